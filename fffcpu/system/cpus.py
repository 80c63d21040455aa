"""How many CPUs this process may use: a container's limit counts, which Numba does not know."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

__all__ = ["cpu_quota", "default_threads"]

CGROUP = Path("/sys/fs/cgroup")
"""Where Linux keeps how much CPU a container may use."""


def cpu_quota() -> float:
    """Return how many CPUs the process's control group may use; infinity if there is no limit."""
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
    """Return how many threads kernels use unless the user chooses.

    Parameters
    ----------
    most : int
        Numba's number of threads.

    Returns
    -------
    int
        That number, lowered to the control group's CPUs unless ``NUMBA_NUM_THREADS`` sets it.
    """
    if "NUMBA_NUM_THREADS" in os.environ:
        return most
    return max(1, min(most, math.ceil(min(most, cpu_quota()))))
