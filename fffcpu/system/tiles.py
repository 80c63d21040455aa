"""The tile registers of AMX, which Linux gives only to processes that ask for them."""

from __future__ import annotations

import ctypes
import functools
import platform
import sys

__all__ = ["permitted"]

_ARCH_PRCTL = 158
_REQUEST = 0x1023
"""ARCH_REQ_XCOMP_PERM: permission to use a part of the processor's state."""
_TILE_DATA = 18


@functools.cache
def permitted() -> bool:
    """Ask the system for the tile registers, once; return whether this process may use them.

    Threads that exist and forked children may then use them too. A system without the call, an
    older kernel, a CPU without tiles and a thread whose stack for signals is too small for them
    all say no.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    library = ctypes.CDLL(None, use_errno=True)
    answer: int = library.syscall(_ARCH_PRCTL, _REQUEST, _TILE_DATA)
    return answer == 0
