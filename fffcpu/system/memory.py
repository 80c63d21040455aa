"""Keeps memory that a process frees for its next step, instead of returning it to the system.

A training step allocates and frees arrays of up to a hundred megabytes: activations, logits,
gradients. The C library returns such blocks to the system at once. For the next step the system
must clear their pages again, one fault at a time. That takes a ninth of a FastBERT's step
(docs/benchmarks.md), so the commands that train keep freed memory.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Parameters of mallopt, with their numbers in <malloc.h> of glibc."""

_LARGEST_BLOCKS = (1 << 30, 1 << 25)
"""Bytes from which a block is taken from the system and returned to it: the wanted threshold, and
the largest that older versions of glibc accept."""

_PAD = 1 << 26
"""Bytes by which the heap grows beyond each request."""

_NEVER = -1


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
