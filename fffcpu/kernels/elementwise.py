"""Activations of vectors, their derivatives, and exponentials, for compiled kernels.

GELU is the exact one (arXiv 1606.08415, section 2): ``gelu(s) = s Phi(s)``, with Phi the normal
distribution function and phi its density. With a = |s|, one exponential and one fraction give GELU
and its derivative, on both sides::

    Phi(-a)  = exp(-a*a/2) Q(a)                 Q(0) = 1/2, then decreasing, and soon like 1/a
    gelu(s)  = max(s, 0) - a Phi(-a)
    gelu'(s) = Phi(-a) - a phi(a)               = exp(-a*a/2) (Q(a) - a phi(0)), for s <= 0;
               1 - that                         for s > 0

Only operations whose results IEEE 754 fixes are used: sums, products, fused multiply-adds, one
division, comparisons, and shifts of bits. So an element's activation has the same bits on every
CPU and in every lane. If gelu(s) is a normal number, its error is less than 4 units in its last
place, also in the left tail; the error of gelu'(s) is less than 1.5 epsilons of the dtype.
docs/mathematics.md ("GELU in vectors") derives this.

A logit that is not finite makes its row's output NaN. So all functions map infinities and NaN to
NaN, for every activation.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from fffcpu.config import Activation
from fffcpu.kernels.jit import inner
from fffcpu.kernels.simd import (
    add,
    constant,
    divide,
    fma,
    lanes,
    load,
    load_partial,
    low_bits_to_exponent,
    multiply,
    polynomial,
    store,
    store_partial,
    subtract,
    where_greater,
    zeros,
)

__all__ = [
    "activate",
    "activate_gradient",
    "activate_run",
    "backpropagate_run",
    "density_run",
    "exponential",
    "finished_logit",
    "normal_tail",
    "scaled",
    "side_taken",
]

Array = NDArray[Any]
Pointer = Any

_GELU = int(Activation.GELU)
_RELU = int(Activation.RELU)


def _numbers(*digits: str) -> tuple[float, ...]:
    """Return numbers that are given to the bit."""
    return tuple(float.fromhex(number) for number in digits)


# Pairs are (for float32, for float64). A polynomial's coefficients start with the highest power.
# TINY is 2**-64 (2**-512). Powers of two are stored larger by 1 / TINY than their value, so that
# none is subnormal; their factors are smaller by TINY, so that only the product is rounded.

_ONE = (1.0, 1.0)

_MINUS_HALF = (-0.5, -0.5)

_FARTHEST = (14.75, 38.75)
"""From this a on, a Phi(-a) and a phi(a) are below half of the smallest number and round to 0."""

_SHIFTER = (1.5 * 2.0**23 + 64 + 127, 1.5 * 2.0**52 + 512 + 1023)
"""Adding this leaves the nearest integer in the low bits, as the exponent of its power of two: with
64 (512) for TINY and the bias of the format."""
_RATE_HIGH = _numbers("0x1.715476p-1", "0x1.71547652b82fep-1")
_RATE_LOW = _numbers("0x1.4ae0c0p-27", "0x1.777d0ffda0d24p-57")
"""1 / (2 ln 2) as the sum of two numbers."""

_POWER_SLOPE = (
    _numbers(
        "0x1.3f906cp-13",
        "0x1.5f0a66p-10",
        "0x1.3b30b0p-7",
        "0x1.c6af78p-5",
        "0x1.ebfbd8p-3",
        "0x1.62e430p-1",
    ),
    _numbers(
        "0x1.e9471c875b804p-32",
        "0x1.e61c1058a1947p-28",
        "0x1.b5253f6036401p-24",
        "0x1.62bfc71ea7788p-20",
        "0x1.ffcbfc595bcf6p-17",
        "0x1.4309130f139cbp-13",
        "0x1.5d87fe78a111cp-10",
        "0x1.3b2ab6fb9ffb3p-7",
        "0x1.c6b08d704a122p-5",
        "0x1.ebfbdff82c5a5p-3",
        "0x1.62e42fefa39efp-1",
    ),
)
"""(2**x - 1) / x for x in [-1/2, 1/2]."""

_TINY = (2.0**-64, 2.0**-512)

_VANISHES = (-104.0, -746.0)
"""Below this s, exp(s) is less than half of the smallest number and rounds to 0."""

_LOG2E_HIGH = (2 * _RATE_HIGH[0], 2 * _RATE_HIGH[1])
_LOG2E_LOW = (2 * _RATE_LOW[0], 2 * _RATE_LOW[1])
"""1 / ln 2 as the sum of two numbers."""

_ROOT = _numbers("0x1.40d932p+65", "0x1.40d931ff62706p+513")
"""sqrt(2 pi) / TINY."""

_MINUS_DENSITY = _numbers("-0x1.988454p-66", "-0x1.9884533d43651p-514")
"""-phi(0) TINY."""

_DENSITY = _numbers("0x1.988454p-2", "0x1.9884533d43651p-2")
"""phi(0)."""

_G = (
    _numbers(
        "0x1.f25e2ap-7",
        "0x1.27bbd4p-3",
        "0x1.43a3c4p-1",
        "0x1.794a42p+0",
        "0x1.a00000p+0",
    ),
    _numbers(
        "0x1.e8dfac948c705p-21",
        "0x1.cc1c80fc5db31p-16",
        "0x1.ab4ee4717bd25p-12",
        "0x1.fc75da2936682p-9",
        "0x1.a9d374122c82ap-6",
        "0x1.051b897fe811ap-3",
        "0x1.da0fb0488a5efp-2",
        "0x1.3ad7f449e8021p+0",
        "0x1.2600e20266035p+1",
        "0x1.5f9877a671f74p+1",
        "0x1.a000000000000p+0",
    ),
)
_H = (
    _numbers(
        "0x1.40adb4p+46",
        "0x1.369c58p+59",
        "0x1.7692c2p+62",
        "0x1.77a9c8p+64",
        "0x1.a00000p+65",
    ),
    _numbers(
        "0x1.325b2e663e357p+493",
        "0x1.2054ffa38a2f7p+498",
        "0x1.0a94383331389p+502",
        "0x1.3a200656c813ep+505",
        "0x1.0292851b5fe43p+508",
        "0x1.340a1d3467424p+510",
        "0x1.0a49fa8c81e35p+512",
        "0x1.44963048c2471p+513",
        "0x1.00ddc0d7d55d2p+514",
        "0x1.a000000000000p+513",
    ),
)
"""G and H / TINY, where Phi(-a) exp(a*a/2) = G / (sqrt(2 pi) a G + H)."""


def normal_tail() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the coefficients of G and H in float64, as many of each, the highest power first."""
    numerator, rest = _G[1], tuple(number * _TINY[1] for number in _H[1])
    return numerator, (0.0,) * (len(numerator) - len(rest)) + rest


@inner
def _absolute(s: Array) -> Any:
    """Return |s|; NaN for NaN."""
    minus_s = subtract(zeros(s), s)
    return where_greater(s, minus_s, s, minus_s)


@inner
def _magnitude(s: Array) -> Any:
    """Return |s|, but at most `_FARTHEST`; also for NaN."""
    a = _absolute(s)
    farthest = constant(s, _FARTHEST)
    return where_greater(farthest, a, a, farthest)


@inner
def _bell(a: Array) -> tuple[Array, Array]:
    """Return exp(-a*a/2) as (1 + the first result) * the second, a power of two over TINY.

    The exponent -a*a / (2 ln 2) is computed as -a * (product + error), where the error is that of
    the product: rounding the exponent to one number would cost a*a roundings of the result.
    """
    minus_a = subtract(zeros(a), a)
    rate = constant(a, _RATE_HIGH)
    shifter = constant(a, _SHIFTER)
    product = multiply(a, rate)
    minus_error = fma(minus_a, constant(a, _RATE_LOW), fma(minus_a, rate, product))
    shifted = fma(minus_a, product, shifter)
    minus_integer = subtract(shifter, shifted)
    fraction = fma(a, minus_error, fma(minus_a, product, minus_integer))
    return multiply(fraction, polynomial(fraction, _POWER_SLOPE)), low_bits_to_exponent(shifted)


@inner
def exponential(s: Array) -> Any:
    """Return exp(s) of a vector without positive elements; 0 for minus infinity, NaN for NaN.

    If the result is a normal number, its error is less than 2 units in its last place.
    """
    vanishes = constant(s, _VANISHES)
    s = where_greater(vanishes, s, vanishes, s)
    shifter = constant(s, _SHIFTER)
    shifted = fma(s, constant(s, _LOG2E_HIGH), shifter)
    minus_integer = subtract(shifter, shifted)
    fraction = fma(s, constant(s, _LOG2E_HIGH), minus_integer)
    fraction = fma(s, constant(s, _LOG2E_LOW), fraction)
    change = multiply(fraction, polynomial(fraction, _POWER_SLOPE))
    scale = low_bits_to_exponent(shifted)
    return multiply(fma(change, scale, scale), constant(s, _TINY))


@inner
def _tail_over_bell(a: Array) -> Any:
    """Return Phi(-a) exp(a*a/2) TINY.

    Most of the error of G cancels in the fraction, and more so for larger a.
    """
    numerator = polynomial(a, _G)
    return divide(numerator, fma(multiply(a, constant(a, _ROOT)), numerator, polynomial(a, _H)))


@inner
def _gelu(s: Array, not_finite: Array) -> Any:
    a = _magnitude(s)
    change, scale = _bell(a)
    tail = _tail_over_bell(a)
    # Multiplied by a power of two, a stays exact; multiplied by the small tail, it might vanish.
    scaled = multiply(subtract(zeros(a), a), scale)
    return fma(fma(tail, change, tail), scaled, where_greater(s, not_finite, s, not_finite))


@inner
def _gelu_gradient(s: Array, not_finite: Array) -> Any:
    a = _magnitude(s)
    change, scale = _bell(a)
    slope = fma(a, constant(a, _MINUS_DENSITY), _tail_over_bell(a))
    left = fma(slope, change, slope)
    right = subtract(zeros(a), left)
    step = where_greater(s, not_finite, constant(s, _ONE), not_finite)
    return fma(where_greater(s, not_finite, right, left), scale, step)


@inner
def activate(s: Array, activation: int) -> Any:
    """Return the activation of a vector; ``activation`` is a code of `fffcpu.config.Activation`.

    GELU of both zeros is +0; if it underflows on the left it is -0. ReLU of both zeros is +0.
    """
    not_finite = subtract(s, s)  # NaN where s is not finite, else 0
    if activation == _GELU:
        return _gelu(s, not_finite)
    if activation == _RELU:
        return where_greater(s, not_finite, s, not_finite)
    return multiply(s, add(not_finite, constant(s, _ONE)))


@inner
def activate_gradient(s: Array, activation: int) -> Any:
    """Return the derivative of `activate`: Phi(s) + s phi(s) for GELU; 0 at 0 for ReLU."""
    not_finite = subtract(s, s)
    if activation == _GELU:
        return _gelu_gradient(s, not_finite)
    if activation == _RELU:
        return where_greater(s, not_finite, constant(s, _ONE), not_finite)
    return add(not_finite, constant(s, _ONE))


@inner
def _node_activation(s: Array, activation: int, absolute: bool) -> Any:
    """Return the activation of s, or ``absolute``: that of |s|."""
    if absolute:
        s = _absolute(s)
    return activate(s, activation)


@inner
def _node_slope(s: Array, activation: int, absolute: bool) -> Any:
    """Return the derivative of `_node_activation`; where it is ``absolute``, 0 at 0."""
    if not absolute:
        return activate_gradient(s, activation)
    one = constant(s, _ONE)
    sign = where_greater(s, zeros(s), one, where_greater(zeros(s), s, subtract(zeros(s), one), s))
    return multiply(activate_gradient(_absolute(s), activation), sign)


@inner
def activate_run(
    out: Array, out_at: int, s: Array, s_at: int, count: int, activation: int, absolute: bool
) -> None:
    """Write activations of ``count`` elements from place ``s_at`` on; ``out`` may be ``s``.

    With ``absolute``, those of their magnitudes, as in two-sided trees.
    """
    step = lanes(s)
    whole = count - count % step
    for k in range(0, whole, step):
        store(out, out_at + k, _node_activation(load(s, s_at + k), activation, absolute))
    if whole < count:
        left = count - whole
        last = _node_activation(load_partial(s, s_at + whole, left), activation, absolute)
        store_partial(out, out_at + whole, last, left)


@inner
def backpropagate_run(
    delta: Array, delta_at: int, s: Array, s_at: int, count: int, activation: int, absolute: bool
) -> None:
    """Multiply ``count`` elements of ``delta`` by the derivatives of `activate_run` at ``s``."""
    step = lanes(s)
    whole = count - count % step
    for k in range(0, whole, step):
        slope = _node_slope(load(s, s_at + k), activation, absolute)
        store(delta, delta_at + k, multiply(load(delta, delta_at + k), slope))
    if whole < count:
        left = count - whole
        slope = _node_slope(load_partial(s, s_at + whole, left), activation, absolute)
        last = multiply(load_partial(delta, delta_at + whole, left), slope)
        store_partial(delta, delta_at + whole, last, left)


@inner
def density_run(values: Array, values_at: int, s: Array, s_at: int, count: int) -> None:
    """Multiply ``count`` elements of ``values`` by the normal density at those of ``s``."""
    step = lanes(s)
    for k in range(0, count, step):
        left = min(step, count - k)
        own = load_partial(s, s_at + k, left)
        bell = exponential(multiply(multiply(own, own), constant(own, _MINUS_HALF)))
        density = multiply(bell, constant(own, _DENSITY))
        product = multiply(load_partial(values, values_at + k, left), density)
        store_partial(values, values_at + k, product, left)


@inner
def finished_logit(product: Any, bias_in: Pointer, scale_in: Pointer, node: int) -> Any:
    """Return the logit of a node: its dot product, times its scale if it has one, plus its bias.

    The pointers are those of the node's tree. Numba compiles a separate version for a scale of
    None, without the branch.
    """
    if scale_in is not None:
        product = product * scale_in[node]
    return product + bias_in[node]


@inner
def scaled(active: Any, scale_out: Pointer, row: int) -> Any:
    """Return an activation, times the scale of a row of output weights, if it has one."""
    if scale_out is not None:
        active = active * scale_out[row]
    return active


@inner
def side_taken(logit: Any, sides: int) -> int:
    """Return which of a node's ``sides`` rows of output weights a row uses: 1 for the right one.

    The only row of a one-sided node is number 0.
    """
    return 1 if sides == 2 and logit > 0 else 0
