"""Imports NumPy such that idle BLAS threads sleep; the package imports this module first.

The threads of OpenBLAS, which NumPy's wheels contain, spin after a product for 2**26 ticks of the
processor's clock, a tenth of a second, before they sleep. Kernels that run between products then
share their cores with these threads. OpenBLAS reads the limit once, when it is loaded. So this
module has no effect if NumPy was imported before, and it keeps a value that the user has set. The
variable is removed again, because other programs must not inherit it.
"""

from __future__ import annotations

import os
import sys

__all__ = ["APPLIED", "SPIN", "VARIABLE"]

VARIABLE = "OPENBLAS_THREAD_TIMEOUT"
SPIN = "14"
"""Logarithm of the ticks; 2**14 take a few microseconds. Products do not become slower, as
docs/benchmarks.md shows."""

APPLIED = "numpy" not in sys.modules and VARIABLE not in os.environ
"""Whether NumPy was loaded here with this setting."""

if APPLIED:
    os.environ[VARIABLE] = SPIN
    try:
        import numpy  # noqa: F401
    finally:
        del os.environ[VARIABLE]
