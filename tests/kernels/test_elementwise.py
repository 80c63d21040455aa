"""Activations and their derivatives are right to the last digits, in both backends.

The bounds are those that docs/kernel_notes.md states. Without the compiler a multiply-add rounds
twice; then what rounding the exponent costs, about s**2 epsilons, is allowed besides.
"""

from __future__ import annotations

import functools
import math
import os
import subprocess
import sys
from decimal import Decimal, localcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

import fffcpu
from fffcpu.config import Activation
from fffcpu.kernels.backends import vectorized
from fffcpu.kernels.elementwise import (
    activate_run,
    backpropagate_run,
    exponential,
    normal_tail,
)
from fffcpu.kernels.jit import JIT, kernel
from fffcpu.kernels.simd import lanes, load, store

GELU, RELU, IDENTITY = (int(Activation[name]) for name in ("GELU", "RELU", "IDENTITY"))
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
CODES = pytest.mark.parametrize("code", [GELU, RELU, IDENTITY], ids=["gelu", "relu", "identity"])
NOT_FINITE = (math.inf, -math.inf, math.nan)
POINTS = (
    -38.5,
    -37.0,
    -30.0,
    -20.5,
    -10.0,
    -8.25,
    -6.0,
    -4.0,
    -2.0,
    -1.0,
    -0.75,
    -0.5,
    -1e-3,
    -1e-300,
)
POINTS += tuple(-s for s in POINTS)
FINITE = st.floats(allow_nan=False, allow_infinity=False)


def activated(s, code, absolute=False):
    """Activation of every number of an array."""
    out = np.full_like(s, 7)
    activate_run(out, 0, s, 0, s.size, code, absolute)
    return out


def slopes(s, code, absolute=False):
    """Derivative of the activation at every number of an array."""
    delta = np.ones_like(s)
    backpropagate_run(delta, 0, s, 0, s.size, code, absolute)
    return delta


def activate(s, code):
    """Activation of one float64 number."""
    return activated(np.array([s]), code)[0]


def activate_gradient(s, code):
    """Derivative of the activation at one float64 number."""
    return slopes(np.array([s]), code)[0]


def ulp(exact, dtype):
    """Unit in the last place of numbers: the distance of floating-point numbers around them."""
    info = np.finfo(dtype)
    exponent = np.frexp(exact)[1].astype(np.int64) - info.nmant - 1
    return np.ldexp(1.0, np.maximum(exponent, info.minexp - info.nmant))


def allowed(s, when_compiled):
    """The bound on an error, wider in the left tail where multiply-adds round twice."""
    return when_compiled if JIT else when_compiled + 2 * np.clip(s, -40.0, 0.0) ** 2


@functools.cache
def normal(s):
    """Distribution function and density of the normal distribution, to 40 digits.

    By ``Phi(s) = 1/2 + phi(s) (s + s**3/3 + s**5/(3 5) + ...)``, with digits enough that the left
    tail keeps 40 after the terms have cancelled.
    """
    with localcontext() as context:
        context.prec = 60 + int(s * s / 2)
        x = Decimal(s)
        density = (-x * x / 2).exp() / (2 * _pi(context.prec)).sqrt()
        total = term = x
        odd = 1
        while abs(term) > Decimal(10) ** -context.prec * abs(total):
            odd += 2
            term *= x * x / odd
            total += term
        return Decimal("0.5") + density * total, density


@functools.cache
def _pi(digits):
    """The number pi, by Machin's formula."""
    with localcontext() as context:
        context.prec = digits + 10

        def arc_tangent_of_inverse(n):
            power = total = Decimal(1) / n
            k = 1
            while abs(power) > Decimal(10) ** -context.prec:
                power /= -n * n
                k += 2
                total += power / k
            return total

        return 16 * arc_tangent_of_inverse(5) - 4 * arc_tangent_of_inverse(239)


def test_the_reference_knows_the_normal_distribution():
    distribution, density = normal(1.0)
    assert str(distribution).startswith("0.8413447460685429485852325456320379224779")
    assert str(density).startswith("0.2419707245191433497978301929355606548286")
    for s in POINTS:
        assert math.isclose(normal(s)[0], special.ndtr(s), rel_tol=1e-12)


# --- GELU -----------------------------------------------------------------------------------------


def check_gelu(s):
    """Compare gelu and its derivative at a float64 number with 40 digits of each."""
    distribution, density = normal(s)
    exact = Decimal(s) * distribution
    error = abs(Decimal(float(activate(s, GELU))) - exact) / Decimal(
        float(ulp(float(exact), float))
    )
    assert error < allowed(s, 4)
    exact = distribution + Decimal(s) * density
    error = abs(Decimal(float(activate_gradient(s, GELU))) - exact) / Decimal(2) ** -52
    assert error < 1.5
    if s < -1.5 and abs(exact) > Decimal(2) ** -1022:  # left of its zero it keeps its digits
        assert error / abs(exact) < allowed(s, 2.5)


def test_the_fraction_of_polynomials_is_the_tail_of_the_normal_distribution():
    a = np.linspace(0.0, 38.0, 1001)
    g, h = (np.polyval(coefficients, a) for coefficients in normal_tail())
    fraction = g / (math.sqrt(2.0 * math.pi) * a * g + h)
    np.testing.assert_allclose(fraction, special.erfcx(a / math.sqrt(2.0)) / 2.0, rtol=1e-14)


@pytest.mark.parametrize("s", POINTS)
def test_gelu_keeps_its_digits_in_both_tails(s):
    check_gelu(s)


@given(st.floats(-39, 39))
def test_gelu_of_float64_is_off_by_less_than_4_units(s):
    check_gelu(s)


@pytest.mark.slow
def test_gelu_of_float64_is_off_by_less_than_4_units_on_a_grid():
    for s in np.linspace(0.01, 12, 400):
        check_gelu(s)
        check_gelu(-s)


def test_gelu_of_float32_is_off_by_less_than_4_units():
    # Every so manyth float32 of all there are. The square of a float32 is exact in float64.
    patterns = np.arange(0, 0x7F800000, 1009 if JIT else 2**18 + 3, dtype=np.uint32)
    magnitude = patterns.view(np.float32)
    s = np.concatenate([-magnitude, magnitude])
    a = np.abs(s).astype(np.float64)
    bell, ratio = np.exp(-a * a / 2), special.erfcx(np.sqrt(0.5) * a) / 2
    exact = np.maximum(s, 0) - a * ratio * bell
    error = np.abs(activated(s, GELU) - exact) / ulp(exact, np.float32)
    assert (error < allowed(s, 4)).all()
    left = (ratio - a * math.sqrt(0.5 / math.pi)) * bell
    exact = np.where(s > 0, 1 - left, left)
    error = np.abs(slopes(s, GELU) - exact) / np.finfo(np.float32).eps
    assert error.max() < 1.5
    tail = (s < -1.5) & (np.abs(exact) > np.finfo(np.float32).tiny)
    assert (error[tail] < allowed(s[tail], 2.5) * np.abs(exact[tail])).all()


@DTYPES
def test_gelu_of_tiny_numbers_is_their_half(dtype):
    info = np.finfo(dtype)
    small = np.geomspace(2 * info.tiny, info.eps / 8, 100, dtype=np.longdouble).astype(dtype)
    smallest = np.arange(20).astype(dtype) * info.smallest_subnormal
    s = np.concatenate([-small, small, -smallest, smallest])
    # Without the compiler, halves of the smallest numbers are rounded before they are subtracted.
    error = np.abs(activated(s, GELU) - s / 2)
    assert error.max() <= (0 if JIT else info.smallest_subnormal)
    assert (slopes(s, GELU) == 0.5).all()


@DTYPES
def test_gelu_falls_and_then_rises(dtype):
    fall = activated(np.linspace(-12, -0.76, 4001).astype(dtype), GELU)
    assert (np.diff(fall) < 0).all()
    rise = activated(np.linspace(-0.74, 20, 4001).astype(dtype), GELU)
    assert (np.diff(rise) > 0).all()


@DTYPES
def test_gelu_fades_into_0_on_the_left(dtype):
    s = np.linspace(-40, -12, 5001).astype(dtype)
    found, slope = activated(s, GELU), slopes(s, GELU)
    for fading in (found, slope):
        assert (np.diff(fading) <= 0).all()
        assert np.signbit(fading).all() or not JIT
        assert fading[0] == 0
        assert (np.abs(fading[fading != 0]).min()) < np.finfo(dtype).tiny


@DTYPES
def test_signs_of_zeros(dtype):
    s = np.array([0.0, -0.0], dtype)
    for code in (GELU, RELU):
        assert not np.signbit(activated(s, code)).any()
    np.testing.assert_array_equal(np.signbit(activated(s, IDENTITY)), [False, True])


def test_gelu_is_half_the_identity_at_0():
    assert activate(0.0, GELU) == 0
    assert activate_gradient(0.0, GELU) == 0.5


@pytest.mark.parametrize("s", [40.0, 1e10, 1.7e308])
def test_gelu_ends_in_0_on_the_left_and_in_the_identity_on_the_right(s):
    assert activate(s, GELU) == s
    assert activate(-s, GELU) == 0
    assert activate_gradient(s, GELU) == 1
    assert activate_gradient(-s, GELU) == 0


@given(st.floats(-30, 30))
def test_gelu_of_s_less_gelu_of_minus_s_is_s(s):
    found = activate(s, GELU) - activate(-s, GELU)
    assert math.isclose(found, s, rel_tol=1e-15, abs_tol=1e-300)  # half of 5e-324 is 0


@given(st.floats(-30, 30))
def test_gradients_of_gelu_at_s_and_minus_s_add_up_to_1(s):
    found = activate_gradient(s, GELU) + activate_gradient(-s, GELU)
    assert math.isclose(found, 1, rel_tol=1e-15)


# --- ReLU and identity ----------------------------------------------------------------------------


@given(FINITE)
def test_relu_is_the_positive_part(s):
    assert activate(s, RELU) == (s if s > 0 else 0)
    assert activate_gradient(s, RELU) == (1 if s > 0 else 0)


@given(FINITE)
def test_identity_is_the_identity(s):
    assert activate(s, IDENTITY) == s
    assert activate_gradient(s, IDENTITY) == 1


@pytest.mark.parametrize("s", [0.0, -0.0])
def test_relu_has_slope_0_at_0(s):
    assert activate(s, RELU) == 0
    assert activate_gradient(s, RELU) == 0


# --- All ------------------------------------------------------------------------------------------


@CODES
@pytest.mark.parametrize("s", NOT_FINITE)
def test_what_is_not_finite_becomes_nan(code, s):
    assert math.isnan(activate(s, code))
    assert math.isnan(activate_gradient(s, code))


@CODES
@given(s=FINITE)
def test_what_is_finite_stays_finite(code, s):
    assert math.isfinite(activate(s, code))
    assert math.isfinite(activate_gradient(s, code))


@CODES
@pytest.mark.parametrize("s", [-9.0, -5.5, -2.0, -0.75, -0.1, 0.1, 0.9, 3.0, 12.0])
def test_gradient_is_the_slope(code, s):
    h = 1e-4
    # Central differences of fourth order: the error is about h**4 and 1e-16 / h.
    near = (activate(s + h, code) - activate(s - h, code)) / (2 * h)
    far = (activate(s + 2 * h, code) - activate(s - 2 * h, code)) / (4 * h)
    assert math.isclose((4 * near - far) / 3, activate_gradient(s, code), abs_tol=1e-10)


@CODES
@DTYPES
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 60),
    s_at=st.integers(0, 20),
    out_at=st.integers(0, 20),
    absolute=st.booleans(),
)
def test_bits_depend_on_nothing_but_the_number(code, dtype, seed, count, s_at, out_at, absolute):
    rng = np.random.default_rng(seed)
    s = (rng.standard_normal(90) * 10 ** rng.uniform(-3, 2, 90)).astype(dtype)
    s[rng.integers(0, 90, 3)] = NOT_FINITE
    before = s.copy()
    for run in (activate_run, backpropagate_run):
        out = np.arange(100, dtype=dtype).reshape(4, 25)
        expected = out.copy()
        for k in range(count):
            run(expected.reshape(-1), out_at + k, s[s_at + k :].copy(), 0, 1, code, absolute)
        run(out, out_at, s, s_at, count, code, absolute)
        assert out.tobytes() == expected.tobytes()
        assert s.tobytes() == before.tobytes()


AT_THE_END_OF_MEMORY = """
import ctypes, mmap
import numpy as np
from fffcpu.kernels.elementwise import activate_run, backpropagate_run

PAGE = mmap.PAGESIZE
memory = mmap.mmap(-1, 2 * PAGE)
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
assert libc.mprotect(start + PAGE, PAGE, 0) == 0
for dtype in (np.float32, np.float64):
    for count in range(1, 40):
        s = np.frombuffer(memory, np.uint8)[PAGE - count * dtype().itemsize : PAGE].view(dtype)
        s[:] = 1
        backpropagate_run(s, 0, s, 0, count, 0, count % 2 == 0)
        activate_run(s, 0, s, 0, count, 0, count % 2 == 0)
print("untouched")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="mprotect is of POSIX")
def test_memory_behind_a_run_is_not_touched():
    done = subprocess.run(
        [sys.executable, "-c", AT_THE_END_OF_MEMORY],
        env={**os.environ, "PYTHONPATH": str(Path(fffcpu.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["untouched"]


@CODES
@DTYPES
def test_a_run_may_overwrite_its_input(code, dtype):
    s = np.linspace(-9, 9, 45).astype(dtype)
    expected = activated(s, code)
    activate_run(s, 0, s, 0, s.size, code, False)
    np.testing.assert_array_equal(s, expected)


@DTYPES
def test_backpropagation_multiplies_what_is_there(dtype):
    s = np.linspace(-3, 3, 45).astype(dtype)
    delta = np.linspace(7, 9, 45).astype(dtype)
    expected = delta * slopes(s, GELU)
    backpropagate_run(delta, 0, s, 0, s.size, GELU, False)
    np.testing.assert_array_equal(delta, expected)


# --- Even activations, of two-sided nodes ---------------------------------------------------------


@CODES
@DTYPES
def test_an_even_activation_is_that_of_the_magnitude(code, dtype):
    s = np.concatenate([np.linspace(-9, 9, 45), [0.0, -0.0, np.inf, -np.inf, np.nan]]).astype(dtype)
    size = np.abs(s)
    np.testing.assert_array_equal(activated(s, code, absolute=True), activated(size, code))
    np.testing.assert_array_equal(slopes(s, code, absolute=True), slopes(size, code) * np.sign(s))
    assert not np.signbit(activated(s[45:47], code, absolute=True)).any()


# --- Exponentials ---------------------------------------------------------------------------------


@kernel
def exponentials(out, s):
    """Write exponentials of as many numbers as fill whole vectors."""
    for k in range(0, s.size, lanes(s)):
        store(out, k, exponential(load(s, k)))


def exponentials_of(numbers, dtype):
    s = np.zeros(-(-len(numbers) // 16) * 16, dtype)
    s[: len(numbers)] = numbers
    out = np.empty_like(s)
    exponentials(out, s)
    return out[: len(numbers)]


@DTYPES
def test_exponentials_are_off_by_less_than_2_units(dtype):
    info = np.finfo(dtype)
    lowest = math.log(info.tiny)
    s = np.concatenate([np.linspace(lowest, 0, 4001), -np.geomspace(1e-30, 1, 400)]).astype(dtype)
    exact = np.exp(s.astype(np.longdouble))
    error = np.abs(exponentials_of(s, dtype) - exact) / exact / info.eps
    # Without the compiler, rounding the exponent costs up to s epsilons.
    assert (error < 2 + (0 if JIT else 2) * np.abs(s)).all()


@DTYPES
def test_exponentials_of_the_ends(dtype):
    s = [0.0, -0.0, -math.inf, math.nan, -1e4, -750.0]
    np.testing.assert_array_equal(exponentials_of(s, dtype), [1, 1, 0, math.nan, 0, 0])
    smallest = np.finfo(dtype).smallest_subnormal
    found = exponentials_of([math.log(smallest) + 0.1], dtype)
    assert found == smallest


# --- The plain backend ----------------------------------------------------------------------------


def spread(dtype):
    """Numbers of all sizes that matter, ties and neighbours of 0 included."""
    positive = np.concatenate([np.linspace(0, 12, 241), np.geomspace(1e-30, 1e30, 121)])
    return np.concatenate([-positive, positive]).astype(dtype)


@CODES
@DTYPES
def test_plain_backend_agrees(code, dtype):
    s = spread(dtype)
    found, slope = vectorized.activate(s, code), vectorized.activate_gradient(s, code)
    assert found.dtype == slope.dtype == dtype
    eps, tiny = np.finfo(dtype).eps, np.finfo(dtype).tiny
    expected = activated(s.astype(np.float64), code)
    # Rounding the argument of ndtr loses s**2 roundings in the left tail; what both call 0 may
    # differ below the smallest.
    bound = (4 + 2 * np.minimum(s, 0).astype(np.float64).clip(-40) ** 2) * eps
    assert (np.abs(found - expected) <= bound * np.abs(expected) + tiny).all()
    expected = slopes(s.astype(np.float64), code)
    assert (np.abs(slope - expected) <= 4 * eps).all()


@CODES
@DTYPES
def test_plain_backend_makes_nan_of_what_is_not_finite_and_leaves_the_rest(code, dtype):
    s = np.array([1, *NOT_FINITE, -2], dtype)
    for function in (vectorized.activate, vectorized.activate_gradient):
        found = function(s, code)
        np.testing.assert_array_equal(np.isnan(found), [False, True, True, True, False])
        np.testing.assert_array_equal(found[[0, -1]], function(s[[0, -1]], code))


@CODES
@DTYPES
@pytest.mark.parametrize("shape", [(0,), (3, 0, 2), (2, 3, 4)])
def test_plain_backend_keeps_the_shape_and_its_argument(code, dtype, shape):
    s = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    before = s.copy()
    for function in (vectorized.activate, vectorized.activate_gradient):
        found = function(s, code)
        assert found.shape == shape
        assert not np.may_share_memory(found, s)
    np.testing.assert_array_equal(s, before)
