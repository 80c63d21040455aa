"""Programs in interpreters of their own: threads, forks and the cache concern whole processes."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import pytest

from fffcpu.system.pool import load_tbb
from tests.support.paths import PACKAGE, ROOT

__all__ = ["FORKS", "LAYERS", "PACKAGE", "available_layers", "run", "run_module"]

FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def available_layers():
    """Names of the thread layers that this Numba can load, in the order of its preference."""
    load_tbb()
    modules = {"tbb": "tbbpool", "omp": "omppool", "workqueue": "workqueue"}
    for name, module in modules.items():
        try:
            importlib.import_module(f"numba.np.ufunc.{module}")
        except ImportError:
            continue
        yield name


FIRST_LAYER, *OTHER_LAYERS = available_layers()
LAYERS = pytest.mark.parametrize(
    "threading_layer",
    [FIRST_LAYER, *(pytest.param(layer, marks=pytest.mark.thorough) for layer in OTHER_LAYERS)],
)
"""The thread layers. Those that are not the default take long, and are tested in depth."""


def run(program, *arguments, package=PACKAGE, timeout=280, **variables):
    """Run a program in a fresh interpreter; return the lines it prints, or fail with its stderr.

    Programs are files, so that processes they spawn can import them. Nothing of Numba's settings
    is inherited but a cache folder.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("NUMBA_", "FFFCPU_", "OMP_", "KMP_", "TBB_"))
        or name == "NUMBA_CACHE_DIR"
    }
    environment = {**inherited, "PYTHONPATH": str(package.parent), **variables}
    done = subprocess.run(
        [sys.executable, str(program), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout.splitlines()


def run_module(module, *arguments, **variables):
    """Run a module of the repository, such as a benchmark, on the package under test."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={
            **os.environ,
            # The working folder would come first, and with it the sources beside the module.
            "PYTHONSAFEPATH": "1",
            "PYTHONPATH": os.pathsep.join((str(PACKAGE.parent), str(ROOT))),
            **variables,
        },
        capture_output=True,
        text=True,
        check=False,
    )
