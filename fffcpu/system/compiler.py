"""Whether Numba is installed. `fffcpu.kernels.selection` decides whether Numba is used."""

from __future__ import annotations

import importlib.util

__all__ = ["has_numba"]


def has_numba() -> bool:
    """Return whether Numba is installed, without importing it."""
    return importlib.util.find_spec("numba") is not None
