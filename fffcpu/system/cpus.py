"""How many threads kernels use: no more than the CPUs that this process may use.

Three limits hold, and the least of them decides:

- the affinity of the process, which ``taskset``, Slurm and the CPU sets of containers lower;
- the CPU quota of its control group and of all groups above it. A container, a pod, a slice or a
  unit of systemd has one. Neither Numba nor Python sees it;
- the number of threads of Numba's pool: ``NUMBA_NUM_THREADS``, or else the affinity.

`fffcpu.system.pool` reads them once, when the first call needs kernels or their number of threads.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

__all__ = ["Mount", "affinity", "cpu_quota", "default_threads", "mounts", "usable_cpus"]

ROOT = Path("/")
"""Folder that holds ``proc`` and the mounts of control groups."""


class Mount(NamedTuple):
    """A mounted hierarchy of control groups that may limit CPUs."""

    version: int
    """Version of control groups: 1 or 2."""
    group: PurePosixPath
    """The group that the mount shows at its top, named as ``/proc/self/cgroup`` names groups."""
    folder: str
    """Folder where it is mounted."""


USUAL_MOUNTS = (
    Mount(2, PurePosixPath("/"), "/sys/fs/cgroup"),
    Mount(1, PurePosixPath("/"), "/sys/fs/cgroup/cpu,cpuacct"),
    Mount(1, PurePosixPath("/"), "/sys/fs/cgroup/cpu"),
)
"""What is assumed where ``/proc`` does not list the mounts."""


def affinity() -> int:
    """Return the number of CPUs that the system may run this thread on, quotas aside."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


def cpu_quota(root: Path = ROOT) -> float:
    """Return the number of CPUs that the process's control groups may use.

    Parameters
    ----------
    root : Path
        Folder that holds ``proc/self/cgroup`` and ``proc/self/mountinfo``; mounts lie below it.

    Returns
    -------
    float
        The least quota of the process's group and of all groups above it that are visible; infinity
        if none has one. What cannot be read counts as no quota.
    """
    groups, mounted = _groups(root), mounts(root)
    return min(
        (
            _quota(version, folder)
            for version in (1, 2)
            for folder in _folders(
                root,
                groups.get(version, PurePosixPath("/")),
                [mount for mount in mounted if mount.version == version],
            )
        ),
        default=math.inf,
    )


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


def _lines(path: Path) -> list[str]:
    """Return the lines of a file of the system, none if it cannot be read."""
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    return []


def _groups(root: Path) -> dict[int, PurePosixPath]:
    """Return the process's control groups that may limit CPUs, by version.

    A line of ``/proc/self/cgroup`` is ``ID:CONTROLLERS:GROUP``. Version 2 has no controllers there.
    """
    groups = {}
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0" and not controllers:
            groups[2] = PurePosixPath(group)
        elif "cpu" in controllers.split(","):
            groups[1] = PurePosixPath(group)
    return groups


def mounts(root: Path = ROOT) -> list[Mount]:
    """Return the mounted hierarchies that may limit CPUs.

    A line of ``/proc/self/mountinfo`` has the mount's root and folder as fields 4 and 5. After a
    dash come the type of file system, its source, and its options, such as ``rw,cpu,cpuacct``.
    """
    lines = _lines(root / "proc/self/mountinfo")
    if not lines:
        return list(USUAL_MOUNTS)
    found = []
    for line in lines:
        mount, _, system = line.partition(" - ")
        kind, _, options = (*system.split(" "), "", "", "")[:3]
        version = {"cgroup": 1, "cgroup2": 2}.get(kind)
        fields = mount.split(" ")
        if len(fields) > 4 and (version == 2 or (version == 1 and "cpu" in options.split(","))):
            found.append(Mount(version, PurePosixPath(_plain(fields[3])), _plain(fields[4])))
    return found


def _plain(field: str) -> str:
    r"""Return a field of ``mountinfo`` with its escapes resolved: ``\040`` is a space."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _folders(root: Path, group: PurePosixPath, mounts: list[Mount]) -> Iterator[Path]:
    """Yield the folders of a group and of all groups above it, of one version.

    If no mount shows the group, it lies outside of the process's namespace. Then the top of each
    mount is all that can be known of it.
    """
    showing = [mount for mount in mounts if _below(group, mount.group) is not None]
    for mount in showing or mounts:
        top = root / mount.folder.lstrip("/")
        below = _below(group, mount.group) or PurePosixPath()
        yield top / below
        yield from (top / above for above in below.parents)


def _below(group: PurePosixPath, top: PurePosixPath) -> PurePosixPath | None:
    """Return a group's path below the top of a mount, None if the mount does not show it.

    A path with ``..`` is outside of the namespace, where names of groups are unknown. It must not
    be followed, since it would leave the mount.
    """
    if not group.is_relative_to(top):
        return None
    below = group.relative_to(top)
    return None if ".." in below.parts else below


def _quota(version: int, folder: Path) -> float:
    """Return the quota of one control group in CPUs, infinity if it has none."""
    if version == 2:
        words = " ".join(_lines(folder / "cpu.max")).split()
    else:
        words = [
            word for name in ("quota", "period") for word in _lines(folder / f"cpu.cfs_{name}_us")
        ]
    with contextlib.suppress(ValueError, ZeroDivisionError):
        quota, period = map(int, words)  # "max" and -1 are no quota
        return quota / period if quota > 0 and period > 0 else math.inf
    return math.inf
