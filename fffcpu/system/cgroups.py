"""The control groups of this process: its own and all their ancestors, of both versions.

A limit of any ancestor holds for the process. Files show a group at its path below a mount::

    /proc/self/cgroup     4:memory:/user.slice/job.scope        version 1: one line per controller
                          0::/user.slice/job.scope              version 2: one for all
    /proc/self/mountinfo  ... / /sys/fs/cgroup/memory ... - cgroup cgroup rw,memory
                          ... / /sys/fs/cgroup ... - cgroup2 cgroup rw

    folders("memory")     /sys/fs/cgroup/memory/user.slice/job.scope
                          /sys/fs/cgroup/memory/user.slice
                          /sys/fs/cgroup/memory
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

__all__ = ["PROCESS", "Group", "folders", "read_number", "read_table"]

PROCESS = Path("/proc/self")
"""Folder in which Linux describes this process."""


class Group(NamedTuple):
    """A control group that this process is in, itself or by a subgroup."""

    path: Path
    """The folder of its files."""
    version: int
    """1 or 2, the version of the files."""


class _Mount(NamedTuple):
    """A mount of a hierarchy of control groups."""

    root: str
    """The group that it shows at its top."""
    path: Path
    """Where it is."""
    version: int
    controllers: frozenset[str]
    """Version 1: the controllers of the hierarchy."""


def folders(controller: str) -> list[Group]:
    """Return the groups that limit this process, the process's own first.

    Parameters
    ----------
    controller : str
        Name of a controller: ``"memory"``, ``"cpu"``.

    Returns
    -------
    list of Group
        Groups whose folders exist; empty on systems without control groups.
    """
    texts = []
    for name in ("cgroup", "mountinfo"):
        try:
            texts.append((PROCESS / name).read_text())
        except OSError:
            return []
    return list(_folders(controller, *texts))


@functools.lru_cache(maxsize=8)
def _folders(controller: str, cgroup: str, mountinfo: str) -> tuple[Group, ...]:
    """Return the groups, given the texts of the two files."""
    found: list[Group] = []
    own = _own_groups(cgroup)
    for mount in _mounts(mountinfo):
        if mount.version == 1 and controller not in mount.controllers:
            continue
        path = own.get(controller if mount.version == 1 else "")
        if path is not None:
            found += _lineage(mount, path)
    return tuple(found)


def read_number(path: Path) -> int | None:
    """Return the integer in a group's file; None if it has another text, or cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text())
    return None


def read_table(path: Path) -> dict[str, int]:
    """Return the integers in a file of lines ``name value`` or ``name: value unit``."""
    with contextlib.suppress(OSError):
        lines = re.findall(r"^(\S+?):?\s+(\d+)", path.read_text(), re.MULTILINE)
        return {name: int(value) for name, value in lines}
    return {}


def _own_groups(cgroup: str) -> dict[str, str]:
    """Return the path of this process's group by controller; that of version 2 under ``""``."""
    own = {}
    for line in cgroup.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        own.update(dict.fromkeys(controllers.split(","), path))
    return own


def _mounts(mountinfo: str) -> Iterator[_Mount]:
    """Yield the mounts of hierarchies of control groups."""
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        kind, *others = rest.split()
        if kind in ("cgroup", "cgroup2"):
            root, path = map(_unescaped, fields.split()[3:5])
            options = frozenset(others[-1].split(","))
            yield _Mount(root, Path(path), 2 if kind == "cgroup2" else 1, options)


def _unescaped(text: str) -> str:
    """Return a path of mountinfo, in which spaces and the like are octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _lineage(mount: _Mount, path: str) -> Iterator[Group]:
    """Yield the group of a path and its ancestors, as far as the mount shows them."""
    parts: tuple[str, ...] = ()
    with contextlib.suppress(ValueError):  # a container's mount may show another part of the tree
        parts = PurePosixPath(path).relative_to(mount.root).parts
    if ".." in parts:
        parts = ()
    for count in range(len(parts), -1, -1):
        folder = mount.path.joinpath(*parts[:count])
        if folder.is_dir():
            yield Group(folder, mount.version)
