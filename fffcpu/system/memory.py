"""Memory: checks whether there is enough, and keeps freed memory for the next step.

**Checked.** Linux grants a program more memory than the machine has, and kills the program when it
uses it. Therefore code that needs a lot of memory calls `check_memory` before it allocates any. The
available memory is the least that the machine, a control group of the process or one of its own
limits leaves.

**Kept.** A training step allocates and frees arrays of up to a hundred megabytes: activations,
logits, gradients. The C library returns such blocks to the system at once. For the next step the
system must clear their pages again, one fault at a time. That takes a ninth of a FastBERT's step
(docs/benchmarks.md), so the commands that train keep freed memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

from fffcpu.errors import NotEnoughMemoryError
from fffcpu.system import cgroups
from fffcpu.system.cgroups import Group, read_named_numbers, read_number

__all__ = [
    "CHECKED_BYTES",
    "Available",
    "available_memory",
    "check_memory",
    "format_bytes",
    "keep_freed_memory",
]

CHECKED_BYTES = 1 << 26
"""Bytes below which nothing is checked. A check takes less than a millisecond; filling this amount
of memory takes tens of milliseconds."""

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Parameters of mallopt, with their numbers in <malloc.h> of glibc."""

_LARGEST_BLOCKS = (1 << 30, 1 << 25)
"""Bytes from which a block is taken from the system and returned to it: the wanted threshold, and
the largest that older versions of glibc accept."""

_PAD = 1 << 26
"""Bytes by which the heap grows beyond each request."""

_NEVER = -1

_RESOURCES = (("RLIMIT_AS", "VmSize", "ulimit -v"), ("RLIMIT_DATA", "VmData", "ulimit -d"))
"""Limits of a process, the line of its status that they bound, and how a shell sets them."""


_UNLIMITED = 1 << 60
"""A limit of version 1 from which on there is none."""


class Available(NamedTuple):
    """Memory that this process may still take."""

    nbytes: float
    """Number of bytes; infinity if it is not known."""
    where: str
    """What bounds it, in the words of errors."""


def check_memory(nbytes: int, what: str, advise: Callable[[int], str] | None = None) -> None:
    """Raise unless this amount of memory is available; call it before any of it is allocated.

    Parameters
    ----------
    nbytes : int
        Bytes that are needed at the same time, and not taken yet. Rather too few than too many:
        what is refused here cannot be done.
    what : str
        What needs them: ``"training a FastFeedForward of depth 25"``.
    advise : callable, optional
        Maps the bytes that are available to a sentence on what would fit.

    Raises
    ------
    NotEnoughMemoryError
        If less is available; it is a MemoryError.
    """
    if nbytes < CHECKED_BYTES:
        return
    available = available_memory()
    if nbytes > available.nbytes:
        advice = "" if advise is None else f"; {advise(int(available.nbytes))}"
        raise NotEnoughMemoryError(
            f"{what} needs {format_bytes(nbytes)}, but {available.where} "
            f"{format_bytes(available.nbytes)}{advice}"
        )


def available_memory() -> Available:
    """Return the memory that this process may still take, swap space included.

    Only Linux has all the figures; elsewhere only the process's own limits count.
    """
    own = _reusable()
    machine = read_named_numbers(cgroups.ROOT / "proc/meminfo")
    swap = machine.get("SwapFree", 0) << 10
    found = list(_limits())
    if "MemAvailable" in machine:
        free = (machine["MemAvailable"] << 10) + swap
        found.append(Available(free, "this machine has only"))
    for group in cgroups.groups("memory"):
        room = _room_v1(group, swap) if group.version == 1 else _room_v2(group, swap)
        found.append(Available(room, f"the control group '{group.path}' leaves only"))
    least = min(found, key=lambda one: one.nbytes, default=Available(math.inf, ""))
    return Available(max(0, least.nbytes) + own, least.where)


def format_bytes(nbytes: float) -> str:
    """Return a number of bytes in a unit that suits it, such as ``"3.2 GB"``."""
    for unit in ("bytes", "kB", "MB", "GB", "TB", "PB"):
        if nbytes < 1000:
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.3g} EB"


def _limits() -> Iterator[Available]:
    """Yield what the limits of this process leave."""
    with contextlib.suppress(ImportError):  # Windows has none
        import resource

        status = read_named_numbers(cgroups.ROOT / "proc/self/status")
        for name, line, command in _RESOURCES:
            most, _ = resource.getrlimit(getattr(resource, name))
            if most != resource.RLIM_INFINITY:
                used = status.get(line, 0) << 10
                yield Available(most - used, f"the limit of this process ({command}) leaves only")


def _room_v2(group: Group, swap: int) -> float:
    """Return what a control group of version 2 leaves."""
    most, used = (read_number(group.path / f"memory.{name}") for name in ("max", "current"))
    if most is None or used is None:  # "max", or the root of the tree
        return math.inf
    stat = read_named_numbers(group.path / "memory.stat")
    names = ("active_file", "inactive_file", "slab_reclaimable")
    return most - used + sum(stat.get(name, 0) for name in names) + _swap_v2(group, swap)


def _swap_v2(group: Group, swap: int) -> int:
    """Return the swap space that a control group of version 2 leaves."""
    most, used = (read_number(group.path / f"memory.swap.{name}") for name in ("max", "current"))
    return swap if most is None or used is None else max(0, min(swap, most - used))


def _room_v1(group: Group, swap: int) -> float:
    """Return what a control group of version 1 leaves: of memory, and of memory and swap."""
    rooms = [math.inf]
    for kind, more in (("memory", swap), ("memory.memsw", 0)):
        most = read_number(group.path / f"{kind}.limit_in_bytes")
        if most is None or most >= _UNLIMITED:
            continue
        used = read_number(group.path / f"{kind}.usage_in_bytes")
        if used is not None:
            rooms.append(most - used + more)
    if rooms == [math.inf]:
        return math.inf
    stat = read_named_numbers(group.path / "memory.stat")
    return min(rooms) + sum(stat.get(f"total_{name}_file", 0) for name in ("active", "inactive"))


class _HeapInfo(ctypes.Structure):
    """What mallinfo2 of glibc returns."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def _reusable() -> int:
    """Return the bytes that the C library keeps for this process after they were freed."""
    if not sys.platform.startswith("linux"):
        return 0
    info = getattr(ctypes.CDLL(None), "mallinfo2", None)  # since glibc 2.33
    if info is None:
        return 0
    info.restype = _HeapInfo
    return int(info().fordblks)


def keep_freed_memory() -> bool:
    """Make the C library keep freed memory for later allocations of this process.

    The setting holds until the process ends. So programs should call this before they train, but
    libraries should not. The process then keeps its peak memory.

    Returns
    -------
    bool
        Whether freed memory is kept; only glibc supports this.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    mallopt(_TOP_PAD, _PAD)
    kept = any(mallopt(_MMAP_THRESHOLD, size) == 1 for size in _LARGEST_BLOCKS)
    return mallopt(_TRIM_THRESHOLD, _NEVER) == 1 and kept
