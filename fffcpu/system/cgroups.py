"""The control groups of this process: its own and all their ancestors, of both versions.

A limit of any ancestor holds for the process. Files show a group at its path below a mount::

    /proc/self/cgroup     4:memory:/user.slice/job.scope        version 1: one line per controller
                          0::/user.slice/job.scope              version 2: one for all
    /proc/self/mountinfo  ... / /sys/fs/cgroup/memory ... - cgroup cgroup rw,memory
                          ... / /sys/fs/cgroup ... - cgroup2 cgroup rw

    groups("memory")      /sys/fs/cgroup/memory/user.slice/job.scope
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

__all__ = ["ROOT", "Group", "groups", "read_named_numbers", "read_number"]

ROOT = Path("/")
"""Folder that holds ``proc`` and the mounts of control groups."""

TOP = PurePosixPath("/")


class Group(NamedTuple):
    """A control group that this process is in, itself or by a subgroup."""

    path: Path
    """The folder of its files."""
    version: int
    """1 or 2, the version of the files."""


class _Mount(NamedTuple):
    """A mount of a hierarchy of control groups."""

    group: PurePosixPath
    """The group that it shows at its top, named as ``/proc/self/cgroup`` names groups."""
    folder: str
    """Where it is."""
    version: int
    controllers: frozenset[str] = frozenset()
    """Version 1: the controllers of the hierarchy."""


def groups(controller: str, root: Path | None = None) -> list[Group]:
    """Return the groups that limit this process, the process's own first.

    Parameters
    ----------
    controller : str
        Name of a controller: ``"memory"``, ``"cpu"``.
    root : Path, optional
        Folder that holds ``proc/self/cgroup`` and ``proc/self/mountinfo``; mounts lie below it. By
        default `ROOT`.

    Returns
    -------
    list of Group
        Groups whose folders exist; empty on systems without control groups.
    """
    root = ROOT if root is None else root
    texts = [_read(root / "proc/self" / name) for name in ("cgroup", "mountinfo")]
    return list(_groups(controller, root, *texts))


@functools.lru_cache(maxsize=8)
def _groups(controller: str, root: Path, cgroup: str, mountinfo: str) -> tuple[Group, ...]:
    """Return the groups, given the texts of the two files."""
    own = _own_groups(cgroup)
    mounts = list(_mounts(mountinfo)) if mountinfo else _usual_mounts(controller)
    found: list[Group] = []
    for version in (1, 2):
        group = own.get(controller if version == 1 else "", TOP)
        counted = [
            mount
            for mount in mounts
            if mount.version == version and (version == 2 or controller in mount.controllers)
        ]
        # A group that no mount shows lies outside of the process's namespace. Then the top of each
        # mount is all that can be known of it.
        for mount in [mount for mount in counted if _below(group, mount) is not None] or counted:
            below = _below(group, mount) or PurePosixPath()
            top = root / mount.folder.lstrip("/")
            found += [
                Group(top / part, version)
                for part in (below, *below.parents)
                if (top / part).is_dir()
            ]
    return tuple(dict.fromkeys(found))


def _usual_mounts(controller: str) -> list[_Mount]:
    """Return what is assumed where ``/proc`` does not list the mounts."""
    combined = {"cpu": ["cpu,cpuacct", "cpu"]}.get(controller, [controller])
    return [
        _Mount(TOP, "/sys/fs/cgroup", 2),
        *(_Mount(TOP, f"/sys/fs/cgroup/{name}", 1, frozenset([controller])) for name in combined),
    ]


def read_number(path: Path) -> int | None:
    """Return the integer in a group's file; None if it has another text, or cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text())
    return None


def read_named_numbers(path: Path) -> dict[str, int]:
    """Return the integers in a file of lines ``name value`` or ``name: value unit``."""
    with contextlib.suppress(OSError):
        lines = re.findall(r"^(\S+?):?\s+(\d+)", path.read_text(), re.MULTILINE)
        return {name: int(value) for name, value in lines}
    return {}


def _read(path: Path) -> str:
    """Return the text of a file of the system, empty if it cannot be read."""
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    return ""


def _own_groups(cgroup: str) -> dict[str, PurePosixPath]:
    """Return the path of this process's group by controller; that of version 2 under ``""``."""
    own = {}
    for line in cgroup.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        own.update(dict.fromkeys(controllers.split(","), PurePosixPath(path)))
    return own


def _mounts(mountinfo: str) -> Iterator[_Mount]:
    """Yield the mounts of hierarchies of control groups.

    A line of ``/proc/self/mountinfo`` has the mount's group and folder as fields 4 and 5. After a
    dash come the type of file system, its source, and its options, such as ``rw,cpu,cpuacct``.
    """
    for line in mountinfo.splitlines():
        mount, _, system = line.partition(" - ")
        kind, _, options = (*system.split(" "), "", "", "")[:3]
        version = {"cgroup": 1, "cgroup2": 2}.get(kind)
        fields = mount.split(" ")
        if version is not None and len(fields) > 4:
            group = PurePosixPath(_plain(fields[3]))
            yield _Mount(group, _plain(fields[4]), version, frozenset(options.split(",")))


def _plain(field: str) -> str:
    r"""Return a field of ``mountinfo`` with its escapes resolved: ``\040`` is a space."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _below(group: PurePosixPath, mount: _Mount) -> PurePosixPath | None:
    """Return a group's path below the top of a mount, None if the mount does not show it.

    A path with ``..`` is outside of the namespace, where names of groups are unknown. It must not
    be followed, since it would leave the mount.
    """
    if not group.is_relative_to(mount.group):
        return None
    below = group.relative_to(mount.group)
    return None if ".." in below.parts else below
