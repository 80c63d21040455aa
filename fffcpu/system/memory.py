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

_LARGEST_BLOCKS = (1 << 30, 1 << 25)
"""Bytes from which a block still comes from the system, and goes back to it: what we want, and the
most that older versions of glibc take."""

_PAD = 1 << 26
"""Bytes by which the heap grows beyond what is asked for."""

_NEVER = -1


def keep_freed_memory() -> bool:
    """Have the C library keep freed memory for what this process asks for next.

    It holds for the whole process until its end, so it is for programs to call, before they train,
    and not for libraries. The process then keeps the most memory that it ever needed.

    Returns
    -------
    bool
        Whether freed memory is kept: glibc can be told so, other C libraries cannot.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    mallopt(_TOP_PAD, _PAD)
    kept = any(mallopt(_MMAP_THRESHOLD, size) == 1 for size in _LARGEST_BLOCKS)
    return mallopt(_TRIM_THRESHOLD, _NEVER) == 1 and kept
