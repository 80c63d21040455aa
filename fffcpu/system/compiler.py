"""Whether Numba is installed, and whether it compiles anything."""

from __future__ import annotations

import importlib.util

__all__ = ["compiles", "has_numba"]


def has_numba() -> bool:
    """Return whether Numba is installed, without importing it."""
    return importlib.util.find_spec("numba") is not None


def compiles() -> bool:
    """Return whether functions are compiled: Numba is installed and its JIT is on.

    ``NUMBA_DISABLE_JIT=1`` switches the JIT off, for debugging.
    """
    if not has_numba():
        return False
    import numba

    return not numba.config.DISABLE_JIT
