"""Pytest plugin: ``--kernel MODULE`` runs the conformance suite on any backend module.

From an installed package, in the folder of the module::

    pytest -p fffcpu.testing.plugin --pyargs fffcpu.testing --kernel my_kernels

Without ``--kernel`` the suite runs on the backends of the package. Tests ask for two fixtures:
``backend``, the module under test, and ``through``, a context in which layers use it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import ModuleType

from fffcpu import kernels
from fffcpu.errors import ArgumentError, MissingExtraError, require_extra

require_extra("pytest", "testing")

import pytest  # noqa: E402

__all__ = ["EXAMPLES", "Through", "backend", "through"]

Through = Callable[[], AbstractContextManager[None]]
"""Type of the fixture `through`."""

JIT = os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")

EXAMPLES = 60 if JIT else 10
"""Number of examples that Hypothesis draws per test."""

NUMBER_WARNINGS = "error:.* encountered in:RuntimeWarning"
"""NumPy's warnings about numbers. Numbers that are not finite are part of the contract."""

pytest.register_assert_rewrite("fffcpu.testing.conformance")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--kernel``."""
    parser.addoption(
        "--kernel",
        metavar="MODULE",
        help="run only the kernel tests, on this backend module (the name of a backend of fffcpu, "
        "or the dotted name of your own module)",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Set up Hypothesis and warnings, and import the module of ``--kernel``."""
    config.addinivalue_line("markers", "slow: needs compiled kernels or a lot of time")
    config.addinivalue_line("filterwarnings", NUMBER_WARNINGS)
    try:
        _load_profile(config)
    except MissingExtraError as error:
        raise pytest.UsageError(str(error)) from error
    if name := config.getoption("--kernel"):
        _load_kernel(name, str(config.invocation_params.dir))


def _load_profile(config: pytest.Config) -> None:
    """Set how Hypothesis searches, unless ``--hypothesis-profile`` does."""
    require_extra("hypothesis", "testing")
    from hypothesis import HealthCheck, settings

    settings.register_profile(
        "fffcpu",
        deadline=None,  # the first example of a shape may compile
        max_examples=EXAMPLES,
        derandomize="CI" in os.environ,  # there the same examples each time; elsewhere new ones
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    if not config.getoption("--hypothesis-profile", None):
        settings.load_profile("fffcpu")


def _load_kernel(name: str, folder: str) -> ModuleType:
    """Import a backend module, which may be in the folder where pytest was started."""
    if name not in (*kernels.BACKENDS, *kernels.EXTRA_BACKENDS) and folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return kernels.load_backend(name)
    except (ArgumentError, MissingExtraError) as error:
        raise pytest.UsageError(f"option --kernel: {error}") from error
    except Exception as error:
        raise pytest.UsageError(
            f"option --kernel: module '{name}' cannot be imported: "
            f"{type(error).__name__}: {error}{_place(error, folder)}"
        ) from error


def _place(error: Exception, folder: str) -> str:
    """Return the last line under a folder that an error passed through, if there is one."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.startswith(folder)]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


def pytest_report_header(config: pytest.Config) -> str | None:
    """Report which file is under test."""
    name = config.getoption("--kernel")
    return f"kernel: {kernels.load_backend(name).__file__}" if name else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests of the suite on the module of ``--kernel``, or on the backends of the package."""
    if "backend" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--kernel")
        names = [chosen] if chosen else kernels.BACKENDS
        metafunc.parametrize("backend", names, indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect all other tests if ``--kernel`` is given."""
    if config.getoption("--kernel"):
        other = [item for item in items if "backend" not in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=other)
        items[:] = [item for item in items if item not in set(other)]


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> ModuleType:
    """Return the backend module under test."""
    return kernels.load_backend(request.param)


@pytest.fixture(scope="session")
def through(backend: ModuleType) -> Through:
    """Return a context manager in which layers use the backend under test."""

    @contextlib.contextmanager
    def context() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernels, "choose", lambda *_, **__: backend)
            yield

    return context
