"""What tests of more than one folder share; kernels are tested by `fffcpu.testing.plugin`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import settings

# Behind everything else, so that the package under test is the one that is installed.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from tests.support import simulator

pytest_plugins = ["fffcpu.testing.plugin"]

if simulator.SIMULATED:
    simulator.install()


def pytest_configure(config):
    if simulator.SIMULATED and config.getoption("--kernel") == "cuda":
        settings.register_profile("simulated", settings.get_profile("fffcpu"), max_examples=4)
        settings.load_profile("simulated")


def pytest_collection_modifyitems(config, items):
    if not simulator.SIMULATED:
        other = [item for item in items if item.get_closest_marker("simulator")]
        config.hook.pytest_deselected(items=other)
        items[:] = [item for item in items if item not in set(other)]


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


@pytest.fixture
def program(tmp_path):
    """Write a program to a file."""

    def write(*parts):
        path = tmp_path / "program.py"
        path.write_text("\n".join(parts), encoding="utf-8")
        return path

    return write
