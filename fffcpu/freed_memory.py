"""Memory that a process frees, kept for its next step instead of given back to the system.

A training step makes anew, and frees, arrays of up to a hundred megabytes: activations, logits,
gradients. The C library gives such blocks back to the system at once, which then has to clear
their pages, one fault at a time, for the next step. That is a ninth of a FastBERT's step
(docs/benchmarks.md), so the commands that train keep what they free.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Parameters of mallopt, by the numbers that <malloc.h> of glibc gives them."""

_LARGEST_BLOCK = 1 << 30
"""Bytes from which a block still comes from the system, and goes back to it."""

_PAD = 1 << 26
"""Bytes by which the heap grows beyond what is asked for."""

_NEVER = (1 << 31) - 1


def keep_freed_memory() -> bool:
    """Have the C library keep freed memory for what this process asks for next.

    It holds for the whole process until its end, so it is for programs to call, before they train,
    and not for libraries. The process then takes as much memory as it ever needed at a time.

    Returns
    -------
    bool
        Whether it does: glibc on Linux can be told so, other C libraries cannot.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = ((_MMAP_THRESHOLD, _LARGEST_BLOCK), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _PAD))
    return all(mallopt(parameter, value) == 1 for parameter, value in wanted)
