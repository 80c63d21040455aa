"""Number of CPUs this process may use, including a container's limit, which Numba ignores."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

__all__ = ["cpu_quota", "default_threads"]

CGROUP = Path("/sys/fs/cgroup")
"""Folder in which Linux stores the CPU limit of a container."""


def cpu_quota() -> float:
    """Return the number of CPUs that the process's control group may use; infinity if unlimited."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (CGROUP / "cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        quota, period = (
            (CGROUP / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
        )
        return math.inf if int(quota) < 0 else int(quota) / int(period)
    return math.inf


def default_threads(most: int) -> int:
    """Return the default number of threads of kernels.

    Parameters
    ----------
    most : int
        Number of threads of Numba.

    Returns
    -------
    int
        ``most``, lowered to the control group's CPUs unless ``NUMBA_NUM_THREADS`` is set.
    """
    if "NUMBA_NUM_THREADS" in os.environ:
        return most
    return max(1, min(most, math.ceil(min(most, cpu_quota()))))
