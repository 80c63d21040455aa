"""NumPy, imported so that its BLAS lets idle threads sleep; the package imports this first.

The threads of OpenBLAS, which NumPy's wheels carry, spin for 2**26 ticks of the processor's clock
after a product, a tenth of a second, before they sleep. Kernels that run in turn with products have
to share their cores with them. OpenBLAS reads how long once, when it is loaded; so this changes
nothing where NumPy was imported before, and nothing that the user has set. The variable is taken
away again, since it is no business of other programs.
"""

from __future__ import annotations

import os
import sys

__all__ = ["APPLIED", "SPIN", "VARIABLE"]

VARIABLE = "OPENBLAS_THREAD_TIMEOUT"
SPIN = "14"
"""Logarithm of the ticks: 2**14 are a few microseconds. Products take no longer for it, as
docs/benchmarks.md shows."""

APPLIED = "numpy" not in sys.modules and VARIABLE not in os.environ
"""Whether NumPy was loaded with this, here."""

if APPLIED:
    os.environ[VARIABLE] = SPIN
    try:
        import numpy  # noqa: F401
    finally:
        del os.environ[VARIABLE]
