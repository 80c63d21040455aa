"""How many threads kernels use: no more than the CPUs that this process may use; their caches.

Three limits hold, and the least of them decides:

- the affinity of the process, which ``taskset``, Slurm and the CPU sets of containers lower;
- the CPU quota of its control group and of all groups above it. A container, a pod, a slice or a
  unit of systemd has one. Neither Numba nor Python sees it;
- the number of threads of Numba's pool: ``NUMBA_NUM_THREADS``, or else the affinity.

`fffcpu.system.pool` reads them once, when the first call needs kernels or their number of threads.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
from pathlib import Path

from fffcpu.system.cgroups import Group, groups

__all__ = ["affinity", "cache_bytes", "cpu_quota", "default_threads", "usable_cpus"]


def affinity() -> int:
    """Return the number of CPUs that the system may run this thread on, quotas aside."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


@functools.cache
def cache_bytes(root: Path | None = None) -> int:
    """Return the size of a core's L2 cache.

    Parameters
    ----------
    root : Path, optional
        Folder that describes the caches of a CPU; by default that of the first CPU in Linux.

    Returns
    -------
    int
        Bytes; 1 MiB where the system does not state them.
    """
    for cache in sorted((root or CACHES).glob("index*")):
        with contextlib.suppress(OSError, ValueError, KeyError):
            if (cache / "level").read_text().strip() == "2":
                size = (cache / "size").read_text().strip()
                return int(size[:-1]) * {"K": 1 << 10, "M": 1 << 20}[size[-1:]]
    return 1 << 20


def cpu_quota(root: Path | None = None) -> float:
    """Return the number of CPUs that the process's control groups may use.

    Parameters
    ----------
    root : Path, optional
        As for `fffcpu.system.cgroups.groups`.

    Returns
    -------
    float
        The least quota of the process's group and of all groups above it that are visible; infinity
        if none has one. What cannot be read counts as no quota.
    """
    return min(map(_quota, groups("cpu", root)), default=math.inf)


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use; a part of one counts as one."""
    return max(1, math.ceil(min(affinity(), cpu_quota())))


def default_threads(pool: int) -> int:
    """Return the default number of threads of kernels, which is the largest number too.

    Parameters
    ----------
    pool : int
        Number of threads of Numba's pool: ``NUMBA_NUM_THREADS`` if that is set.

    Returns
    -------
    int
        ``pool``, lowered to `usable_cpus`, also if ``NUMBA_NUM_THREADS`` asks for more.
    """
    return max(1, min(pool, usable_cpus()))


def _quota(group: Group) -> float:
    """Return the quota of one control group in CPUs, infinity if it has none."""
    names = ("cpu.max",) if group.version == 2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        words = " ".join((group.path / name).read_text() for name in names).split()
        quota, period = map(int, words)  # "max" and -1 are no quota
        return quota / period if quota > 0 and period > 0 else math.inf
    return math.inf
