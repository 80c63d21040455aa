"""Activations and their derivatives are right to the last digits, in both backends."""

from __future__ import annotations

import functools
import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from fffcpu.config import Activation
from fffcpu.kernels import vectorized
from fffcpu.kernels.elementwise import activate, activate_gradient

EPS = np.finfo(np.float64).eps
GELU, RELU, IDENTITY = (int(Activation[name]) for name in ("GELU", "RELU", "IDENTITY"))
CODES = pytest.mark.parametrize("code", [GELU, RELU, IDENTITY], ids=["gelu", "relu", "identity"])
NOT_FINITE = (math.inf, -math.inf, math.nan)
POINTS = (-37.0, -30.0, -20.5, -10.0, -8.25, -6.0, -4.0, -2.0, -1.0, -0.75, -0.5, -1e-3, -1e-300)
POINTS += tuple(-s for s in POINTS)
FINITE = st.floats(allow_nan=False, allow_infinity=False)


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


def relative_error(found, exact):
    return abs(float((Decimal(float(found)) - exact) / exact))


def test_the_reference_knows_the_normal_distribution():
    distribution, density = normal(1.0)
    assert str(distribution).startswith("0.8413447460685429485852325456320379224779")
    assert str(density).startswith("0.2419707245191433497978301929355606548286")
    for s in POINTS:
        assert math.isclose(normal(s)[0], special.ndtr(s), rel_tol=1e-12)


# --- GELU -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("s", POINTS)
def test_gelu_keeps_its_digits_in_both_tails(s):
    # Rounding the argument of erfc once costs s**2 roundings, relatively, in the left tail.
    bound = (4 + 2 * min(s, 0) ** 2) * EPS
    exact = Decimal(s) * normal(s)[0]
    assert relative_error(activate(s, GELU), exact) <= bound


@pytest.mark.parametrize("s", POINTS)
def test_gradient_of_gelu_keeps_its_digits_in_both_tails(s):
    distribution, density = normal(s)
    exact = distribution + Decimal(s) * density
    # Where the two terms cancel, around -0.75, the digits of the larger are what counts.
    cancelled = float((distribution + abs(Decimal(s)) * density) / abs(exact))
    bound = (4 + 2 * min(s, 0) ** 2) * EPS * cancelled
    assert relative_error(activate_gradient(s, GELU), exact) <= bound


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
    assert math.isclose(found, s, rel_tol=4 * EPS, abs_tol=1e-300)  # half of 5e-324 is 0


@given(st.floats(-30, 30))
def test_gradients_of_gelu_at_s_and_minus_s_add_up_to_1(s):
    found = activate_gradient(s, GELU) + activate_gradient(-s, GELU)
    assert math.isclose(found, 1, rel_tol=8 * EPS)


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


# --- The plain backend ----------------------------------------------------------------------------

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


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
    expected = np.array([activate(float(x), code) for x in s])
    # As above, the left tail loses s**2 roundings; what both call 0 may differ below the smallest.
    bound = (4 + 2 * np.minimum(s, 0).astype(np.float64).clip(-40) ** 2) * eps
    assert (np.abs(found - expected) <= bound * np.abs(expected) + tiny).all()
    expected = np.array([activate_gradient(float(x), code) for x in s])
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
