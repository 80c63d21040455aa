"""The machine on which a timing was measured: processor, cores, system, versions of packages."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path

import numpy as np

from fffcpu.system.cpus import usable_cpus
from fffcpu.system.threads import get_thread_layer

__all__ = ["describe_machine", "package_version"]


def describe_machine() -> dict[str, str | int]:
    """Return what a timing depends on: processor, cores, system, versions.

    Returns
    -------
    dict of str to str or int
        The keys are ``processor``, ``cores`` (those that this process may use), ``system``,
        ``python``, ``numpy``, ``numba`` and ``thread_layer``, that of the kernels.
        The call starts their pool.
    """
    return {
        "processor": _processor(),
        "cores": usable_cpus(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": package_version("numba"),
        "thread_layer": get_thread_layer(),
    }


def _processor() -> str:
    """Return the processor's name, or its architecture if the system does not name it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def package_version(package: str) -> str:
    """Return the version of an installed package, or "not installed"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
