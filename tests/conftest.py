"""Options and fixtures: ``--kernel MODULE`` runs the kernel tests on any backend module."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Behind everything else, so that the package under test is the one that is installed.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from fffcpu import kernels
from tests.support import simulator

JIT = os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")

settings.register_profile(
    "fffcpu",
    deadline=None,  # the first example of a shape may compile
    max_examples=60 if JIT else 10,
    derandomize="CI" in os.environ,  # there the same examples each time; elsewhere new ones
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("fffcpu")

settings.register_profile("simulated", settings.get_profile("fffcpu"), max_examples=4)

if simulator.SIMULATED:
    simulator.install()


@pytest.fixture
def command(capsys, monkeypatch):
    """Run ``fffcpu`` in this process; returns the exit status and what it printed."""
    from fffcpu.cli import main
    from fffcpu.cli.support import runs

    # It would hold for all tests to come.
    monkeypatch.setattr(runs, "keep_freed_memory", lambda: False)

    def run(*argv):
        status = main([str(argument) for argument in argv])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def pytest_addoption(parser):
    parser.addoption(
        "--kernel",
        metavar="MODULE",
        help="run only the kernel tests, on this backend module (a name of fffcpu.kernels, or the "
        "dotted name of your own)",
    )


def pytest_configure(config):
    if simulator.SIMULATED and config.getoption("--kernel") == "cuda":
        settings.load_profile("simulated")


def pytest_generate_tests(metafunc):
    if "backend" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--kernel")
        names = [chosen] if chosen else kernels.BACKENDS
        metafunc.parametrize("backend", names, indirect=True, scope="session")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--kernel"):
        _deselect(config, items, lambda item: "backend" not in getattr(item, "fixturenames", ()))
    if not simulator.SIMULATED:
        _deselect(config, items, lambda item: item.get_closest_marker("simulator"))


def _deselect(config, items, unwanted):
    other = [item for item in items if unwanted(item)]
    config.hook.pytest_deselected(items=other)
    items[:] = [item for item in items if item not in set(other)]


@pytest.fixture(scope="session")
def backend(request):
    """Backend module under test."""
    return kernels.load_backend(request.param)


@pytest.fixture(scope="session")
def through(backend):
    """Context manager in which the layers use the backend under test."""

    def context():
        patch = pytest.MonkeyPatch()
        patch.setattr(kernels, "choose", lambda *_, **__: backend)
        return _Undo(patch)

    return context


class _Undo:
    def __init__(self, patch):
        self.patch = patch

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.patch.undo()


@pytest.fixture
def program(tmp_path):
    """Write a program to a file."""

    def write(*parts):
        path = tmp_path / "program.py"
        path.write_text("\n".join(parts), encoding="utf-8")
        return path

    return write
