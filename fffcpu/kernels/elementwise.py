"""Activations of one number, and their derivatives, for compiled kernels.

GELU is the exact one (arXiv 1606.08415, section 2): ``gelu(s) = s Phi(s)``, with Phi the normal
distribution function. A logit that is not finite makes its row's output NaN: so both functions map
infinities and NaN to NaN, under every activation.
"""

from __future__ import annotations

import math

from fffcpu.config import Activation
from fffcpu.kernels.jit import kernel

__all__ = ["activate", "activate_gradient"]

_GELU = int(Activation.GELU)
_RELU = int(Activation.RELU)
_ROOT_HALF = math.sqrt(0.5)
_DENSITY_AT_0 = 1 / math.sqrt(2 * math.pi)


@kernel
def activate(s: float, activation: int) -> float:
    """Activation of a float64 number; ``activation`` is a code of `fffcpu.config.Activation`."""
    if not math.isfinite(s):
        return math.nan
    if activation == _GELU:
        # erfc and not 1 + erf: the latter loses all digits of the left tail.
        return 0.5 * s * math.erfc(-s * _ROOT_HALF)
    if activation == _RELU:
        return max(s, 0.0)
    return s


@kernel
def activate_gradient(s: float, activation: int) -> float:
    """Derivative of `activate`: Phi(s) + s phi(s) for GELU; 0 at 0 for ReLU."""
    if not math.isfinite(s):
        return math.nan
    if activation == _GELU:
        return 0.5 * math.erfc(-s * _ROOT_HALF) + s * _DENSITY_AT_0 * math.exp(-0.5 * s * s)
    if activation == _RELU:
        return 1.0 if s > 0 else 0.0
    return 1.0
