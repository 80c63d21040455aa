"""A control group with a quota of one CPU, where this process may make one."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from fffcpu.system.cgroups import groups

__all__ = ["joining", "one_cpu"]


@contextlib.contextmanager
def one_cpu() -> Iterator[Path]:
    """Context with a group whose parent has a quota of one CPU, as services and pods have.

    Yields
    ------
    Path
        The folder of the group.

    Raises
    ------
    OSError
        If the system has no such groups, or this process may not make one.
    """
    outer = _new_group()
    inner = outer / "inner"
    try:
        inner.mkdir()
        yield inner
    finally:
        for folder in (inner, outer):
            _remove(folder)


def joining(group: Path) -> list[str]:
    """Return the beginning of a command that runs the rest of it in a group."""
    return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs")]


def _new_group() -> Path:
    """Make a group with the quota in the first hierarchy that allows it."""
    refused = OSError("no hierarchy of control groups limits CPUs here")
    for group in reversed(groups("cpu")):  # the outermost first
        folder = group.path / f"fffcpu-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError as error:
            refused = error
            continue
        try:
            _set_quota(group.version, folder)
        except OSError as error:  # the hierarchy has no CPU controller
            refused = error
            _remove(folder)
        else:
            return folder
    raise refused


def _set_quota(version: int, folder: Path) -> None:
    if version == 2:
        _write(folder / "cpu.max", "100000 100000")
    else:
        _write(folder / "cpu.cfs_period_us", "100000")
        _write(folder / "cpu.cfs_quota_us", "100000")


def _write(path: Path, text: str) -> None:
    """Write to a file of the system, which must exist."""
    with path.open("r+", encoding="ascii") as file:
        file.write(text)


def _remove(folder: Path) -> None:
    """Remove a group once the last process has left it."""
    for _ in range(100):
        with contextlib.suppress(OSError):
            folder.rmdir()
        if not folder.exists():
            return
        time.sleep(0.05)
