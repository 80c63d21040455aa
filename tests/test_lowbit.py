"""bfloat16 and int8: to nearest, within the stated bounds, whatever the numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.lowbit import from_bfloat16, from_int8, numpy_dtype, to_bfloat16, to_int8

LARGEST_BFLOAT16 = (2 - 2**-7) * 2.0**127


@pytest.mark.parametrize("name", ["float32", "float64", "int8"])
def test_numpy_knows_all_types_but_bfloat16(name):
    assert numpy_dtype(name) == name
    assert numpy_dtype("bfloat16") == to_bfloat16(np.ones(1)).dtype


def patterns(seed, count=20_000):
    """float32 numbers of random bits: all exponents, NaN and infinities among them."""
    bits = np.random.default_rng(seed).integers(0, 2**32, count, np.uint32)
    bits[: count // 2] &= 0xFFFF8000  # ties, and numbers that need no rounding
    return bits.view(np.float32)


def nearest_bfloat16(x):
    """Round finite numbers with float64 arithmetic: multiples of the last place of 8 digits."""
    x = x.astype(np.float64)
    _, exponent = np.frexp(x)
    place = 2.0 ** np.maximum(exponent - 8, -133)
    rounded = np.rint(x / place) * place
    return np.where(np.abs(rounded) > LARGEST_BFLOAT16, np.copysign(np.inf, x), rounded)


@given(st.integers(0, 2**32))
def test_bfloat16_is_the_nearest_and_ties_go_to_even(seed):
    x = patterns(seed)
    x = x[np.isfinite(x)]
    bits = to_bfloat16(x)
    assert bits.dtype == np.uint16
    np.testing.assert_array_equal(from_bfloat16(bits), nearest_bfloat16(x))


@given(st.integers(0, 2**32))
def test_bfloat16_is_off_by_a_256th_at_most(seed):
    x = patterns(seed)
    x = x[(np.abs(x) >= np.finfo(np.float32).tiny) & (np.abs(x) <= LARGEST_BFLOAT16)]
    error = np.abs(from_bfloat16(to_bfloat16(x)).astype(np.float64) - x)
    assert (error <= 2.0**-8 * np.abs(x).astype(np.float64)).all()


def test_every_bfloat16_is_kept_and_nan_stays_nan():
    bits = np.arange(2**16, dtype=np.uint16)
    wide = from_bfloat16(bits)
    np.testing.assert_array_equal(wide.view(np.uint32), bits.astype(np.uint32) << 16)
    again = to_bfloat16(wide)
    nan = np.isnan(wide)
    np.testing.assert_array_equal(again[~nan], bits[~nan])
    assert np.isnan(from_bfloat16(again[nan])).all()
    hidden = np.array([0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF], np.uint32)
    assert np.isnan(from_bfloat16(to_bfloat16(hidden.view(np.float32)))).all()


def test_bfloat16_of_any_layout_and_width():
    x = np.random.default_rng(0).standard_normal((3, 4, 5))
    expected = nearest_bfloat16(x.astype(np.float32))
    for array in (x, np.asfortranarray(x), x.astype(np.float32)):
        np.testing.assert_array_equal(from_bfloat16(to_bfloat16(array)), expected)
    assert to_bfloat16(np.empty((0, 3), np.float32)).shape == (0, 3)
    assert np.isinf(from_bfloat16(to_bfloat16(np.array([1e300])))).all()


@given(
    seed=st.integers(0, 2**32),
    axis=st.integers(0, 2),
    exponent=st.integers(-149, 127),
)
def test_int8_is_off_by_half_a_scale_at_most(seed, axis, exponent):
    x = np.random.default_rng(seed).uniform(-1, 1, (5, 4, 6))
    x = (x * 2.0**exponent).astype(np.float32)
    numbers, scales = to_int8(x, axis)
    assert numbers.dtype == np.int8
    assert scales.dtype == np.float32
    assert scales.shape == tuple(np.delete(x.shape, axis))
    assert np.abs(numbers.astype(int)).max() <= 127
    step = np.expand_dims(scales.astype(np.float64), axis)
    # The quotient is rounded too, which moves a tie at most.
    assert (np.abs(numbers * step - x) <= 0.50001 * step).all()
    np.testing.assert_allclose(from_int8(numbers, scales, axis), numbers * step, rtol=1e-7)
    if exponent > -118:  # below, the scale is the smallest normal number
        assert (np.abs(numbers.astype(int)).max(axis) == 127).all()


def test_int8_of_zeros_and_of_the_largest_numbers():
    largest = np.finfo(np.float32).max
    x = np.array([[0, 0], [largest, -largest], [1e-45, 0], [-0.0, 5]], np.float32)
    numbers, scales = to_int8(x, 1)
    np.testing.assert_array_equal(numbers, [[0, 0], [127, -127], [0, 0], [0, 127]])
    assert (scales > 0).all()
    assert np.isfinite(scales).all()


@pytest.mark.parametrize("scale", [1.0, 3.0, 0.1])
def test_int8_rounds_to_nearest(scale):
    x = np.float32(scale) * np.array([[127, 1.4, 1.6, -1.4, -1.6, 0.4, -0.4]], np.float32)
    numbers, _ = to_int8(x, 1)
    np.testing.assert_array_equal(numbers, [[127, 1, 2, -1, -2, 0, 0]])
