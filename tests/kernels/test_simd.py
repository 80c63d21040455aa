"""Vectors do lane by lane what NumPy does."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba.core.errors import TypingError

from fffcpu.kernels import simd
from fffcpu.kernels.jit import JIT, kernel
from tests.support.emulation import (
    assert_same_bits,
    bits,
    folded,
    fused,
    lanes_of,
    multiply_add,
    numbers,
)

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SEEDS = st.integers(0, 2**32 - 1)


# --- Kernels under test: one vector function each -------------------------------------------------


@kernel
def lane_count(array):
    return simd.lanes(array)


@kernel
def copy_vector(out, out_at, array, at):
    simd.store(out, out_at, simd.load(array, at))


@kernel
def copy_loaded_part(out, out_at, array, at, count):
    simd.store(out, out_at, simd.load_partial(array, at, count))


@kernel
def copy_stored_part(out, out_at, array, at, count):
    simd.store_partial(out, out_at, simd.load(array, at), count)


@kernel
def store_zeros(out, out_at):
    simd.store(out, out_at, simd.zeros(out))


@kernel
def store_broadcast(out, out_at, array, at):
    simd.store(out, out_at, simd.broadcast(array[at]))


@kernel
def store_fma(out, a, b, c):
    simd.store(out, 0, simd.fma(simd.load(a, 0), simd.load(b, 0), simd.load(c, 0)))


@kernel
def store_sum(out, a, b):
    simd.store(out, 0, simd.add(simd.load(a, 0), simd.load(b, 0)))


@kernel
def store_difference(out, a, b):
    simd.store(out, 0, simd.subtract(simd.load(a, 0), simd.load(b, 0)))


@kernel
def store_product(out, a, b):
    simd.store(out, 0, simd.multiply(simd.load(a, 0), simd.load(b, 0)))


@kernel
def store_quotient(out, a, b):
    simd.store(out, 0, simd.divide(simd.load(a, 0), simd.load(b, 0)))


@kernel
def store_where_greater(out, a, b):
    left, right = simd.load(a, 0), simd.load(b, 0)
    simd.store(out, 0, simd.where_greater(left, right, left, right))


@kernel
def store_shifted(out, a):
    simd.store(out, 0, simd.low_bits_to_exponent(simd.load(a, 0)))


THIRDS = (float(np.float32(1 / 3)), 1 / 3)
POLYNOMIALS = ((0.5, -2.0, THIRDS[0], 3.0), (0.25, 1.5, THIRDS[1], -4.0, 7.0))


@kernel
def store_constant(out):
    simd.store(out, 0, simd.constant(simd.load(out, 0), THIRDS))


@kernel
def store_polynomial(out, a):
    simd.store(out, 0, simd.polynomial(simd.load(a, 0), POLYNOMIALS))


@kernel
def sum_of_lanes(array, at):
    return simd.ordered_sum(simd.load(array, at))


@kernel
def copy_elements(out, out_at, array, at, count):
    to, elements = simd.pointer(out, out_at), simd.pointer(array, at)
    for k in range(count):
        to[k] = elements[k]


@kernel
def copy_vector_of_pointers(out, out_at, array, at):
    simd.store(simd.pointer(out, out_at), 0, simd.load(simd.pointer(array, at), 0))


@kernel
def element_of_a_pointer_of_a_pointer(array, first, second, at):
    there = simd.pointer(simd.pointer(array, first), second)
    return there[at], simd.element(there, at), simd.element(array, first + second + at)


@kernel
def is_none(array):
    return simd.pointer(array, 3) is None


@kernel
def sum_through_a_pointer(count):
    array = np.empty(count, np.float64)
    there = simd.pointer(array, 0)
    for k in range(count):
        there[k] = k
    # Of the same size, so that they would take the memory of an array that is no longer kept.
    for _ in range(8):
        other = np.full(count, -1.0)
        there[0] += other[0] + 1
    total = 0.0
    for k in range(count):
        total += there[k]
    simd.keep(array)
    return total


# --- The emulation --------------------------------------------------------------------------------


def test_emulated_fusing_rounds_once():
    # Exactly, (1 + e)**2 - 1 is 2 e + e**2; the product rounds to 1 + 2 e first if not fused.
    for dtype, e in ((np.float32, 2.0**-23), (np.float64, 2.0**-52)):
        a = np.array([1 + e], dtype)
        assert a * a - dtype(1) == 2 * e
        assert fused(a, a, np.array([-1], dtype)) == dtype(2 * e + e * e)


@given(SEEDS)
def test_emulated_fusing_of_float32_agrees_with_fractions(seed):
    a, b, c = numbers(seed, 3, 20, dtype=np.float32)
    a[:5] = np.round(a[:5])
    exact = [
        Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        for x, y, z in zip(a, b, c, strict=True)
    ]
    found = fused(a, b, c)
    for value, nearest in zip(exact, found, strict=True):
        distance = abs(value - Fraction(float(nearest)))
        for other in (np.nextafter(nearest, np.float32(s)) for s in (-np.inf, np.inf)):
            assert distance <= abs(value - Fraction(float(other)))


# --- Single vectors -------------------------------------------------------------------------------


@DTYPES
@pytest.mark.parametrize("shape", [(64,), (4, 16), (2, 4, 8)])
def test_vector_has_64_bytes_whatever_the_shape_of_the_array(dtype, shape):
    assert simd.VECTOR_BYTES == 64
    assert lane_count(np.zeros(shape, dtype)) == lanes_of(dtype)


@DTYPES
@pytest.mark.parametrize("shape", [(64,), (4, 16), (2, 4, 8)])
@pytest.mark.parametrize("at", [0, 1, 7, 48])
def test_load_and_store_count_places_in_the_flattened_array(dtype, shape, at):
    array = numbers(0, *shape, dtype=dtype)
    out = numbers(1, *shape, dtype=dtype)
    expected = out.copy()
    step = lanes_of(dtype)
    out_at = 48 - at
    expected.reshape(-1)[out_at : out_at + step] = array.reshape(-1)[at : at + step]
    copy_vector(out, out_at, array, at)
    assert_same_bits(out, expected)


@DTYPES
def test_all_bit_patterns_pass_through_load_and_store(dtype):
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, 1e-45, 1.0] * 2, dtype)
    out = np.ones(16, dtype)
    for at in range(0, 16, lanes_of(dtype)):
        copy_vector(out, at, special, at)
    assert_same_bits(out, special)


@DTYPES
def test_partial_load_gives_zeros_from_count_on(dtype):
    array = numbers(2, 3, 13, dtype=dtype)
    step = lanes_of(dtype)
    for count in range(step + 3):
        for at in (0, 5):
            out = np.full(step, -1, dtype)
            copy_loaded_part(out, 0, array, at, count)
            expected = np.zeros(step, dtype)
            taken = min(count, step)
            expected[:taken] = array.reshape(-1)[at : at + taken]
            assert_same_bits(out, expected)


@DTYPES
def test_partial_store_leaves_its_neighbours_alone(dtype):
    array = numbers(2, 40, dtype=dtype)
    step = lanes_of(dtype)
    for count in range(step + 3):
        for out_at in (0, 3):
            out = numbers(3, 5, 8, dtype=dtype)
            expected = out.copy()
            written = min(count, step)
            expected.reshape(-1)[out_at : out_at + written] = array[7 : 7 + written]
            copy_stored_part(out, out_at, array, 7, count)
            assert_same_bits(out, expected)


@DTYPES
def test_zeros_are_zeros(dtype):
    out = np.full(40, -1, dtype)
    store_zeros(out, 3)
    expected = np.full(40, -1, dtype)
    expected[3 : 3 + lanes_of(dtype)] = 0
    assert_same_bits(out, expected)


@DTYPES
@pytest.mark.parametrize("value", [1.5, -0.0, np.inf])
def test_broadcast_fills_every_lane(dtype, value):
    array = np.array([7, value, 7], dtype)
    out = np.full(40, -1, dtype)
    store_broadcast(out, 3, array, 1)
    expected = np.full(40, -1, dtype)
    expected[3 : 3 + lanes_of(dtype)] = value
    assert_same_bits(out, expected)


@DTYPES
@given(seed=SEEDS)
def test_fma_multiplies_and_adds_lane_by_lane(dtype, seed):
    a, b, c = numbers(seed, 3, lanes_of(dtype), dtype=dtype)
    out = np.empty_like(a)
    store_fma(out, a, b, c)
    assert_same_bits(out, multiply_add(a, b, c))


@DTYPES
def test_fma_rounds_once_when_compiled(dtype):
    e = np.finfo(dtype).eps
    a = np.full(lanes_of(dtype), 1 + e, dtype)
    out = np.empty_like(a)
    store_fma(out, a, a, np.full_like(a, -1))
    np.testing.assert_array_equal(out, 2 * e + e * e if JIT else 2 * e)


@DTYPES
@given(seed=SEEDS)
def test_add_adds_lane_by_lane(dtype, seed):
    a, b = numbers(seed, 2, lanes_of(dtype), dtype=dtype)
    out = np.empty_like(a)
    store_sum(out, a, b)
    assert_same_bits(out, a + b)


@DTYPES
@pytest.mark.parametrize(
    ("store_result", "operation"),
    [
        (store_difference, np.subtract),
        (store_product, np.multiply),
        (store_quotient, np.divide),
    ],
    ids=["subtract", "multiply", "divide"],
)
@given(seed=SEEDS)
def test_arithmetic_is_that_of_numpy(dtype, store_result, operation, seed):
    a, b = numbers(seed, 2, lanes_of(dtype), dtype=dtype)
    a[:4], b[:4] = (np.inf, 0, 1, -0.0), (np.inf, 0, 0, 1)
    out = np.empty_like(a)
    store_result(out, a, b)
    with np.errstate(all="ignore"):
        expected = operation(a, b)
    np.testing.assert_array_equal(out, expected)
    finite = np.isfinite(expected)
    assert_same_bits(out[finite], expected[finite])


@DTYPES
@given(seed=SEEDS)
def test_where_greater_takes_the_other_for_ties_and_nan(dtype, seed):
    a, b = numbers(seed, 2, lanes_of(dtype), dtype=dtype)
    a[:4], b[:4] = (np.nan, 1, 0.0, -0.0), (2, np.nan, -0.0, 0.0)
    out = np.empty_like(a)
    store_where_greater(out, a, b)
    assert_same_bits(out, np.where(a > b, a, b))
    np.testing.assert_array_equal(out[:2], np.array([2, np.nan]))
    np.testing.assert_array_equal(np.signbit(out[2:4]), [True, False])


@DTYPES
def test_low_bits_become_the_exponent(dtype):
    info = np.finfo(dtype)
    largest = 2 * info.maxexp - 2
    exponents = np.linspace(1, largest, lanes_of(dtype)).astype(np.int64)
    shifter = dtype(1.5 * 2.0**info.nmant)
    out = np.empty(lanes_of(dtype), dtype)
    store_shifted(out, shifter + exponents.astype(dtype))
    expected = np.ldexp(dtype(1), exponents - (info.maxexp - 1)).astype(dtype)
    assert_same_bits(out, expected)


@DTYPES
def test_a_constant_is_the_one_of_the_dtype(dtype):
    out = np.zeros(lanes_of(dtype), dtype)
    store_constant(out)
    assert_same_bits(out, np.full_like(out, THIRDS[dtype is np.float64]))


@DTYPES
@given(seed=SEEDS)
def test_polynomial_is_a_chain_of_multiply_adds_from_the_highest_power(dtype, seed):
    a = numbers(seed, lanes_of(dtype), dtype=dtype)
    first, *rest = POLYNOMIALS[dtype is np.float64]
    expected = np.full_like(a, first)
    for coefficient in rest:
        expected = multiply_add(expected, a, np.full_like(a, coefficient))
    out = np.empty_like(a)
    store_polynomial(out, a)
    assert_same_bits(out, expected)


@DTYPES
def test_arithmetic_of_what_is_not_finite_is_that_of_ieee(dtype):
    step = lanes_of(dtype)
    largest = np.finfo(dtype).max
    a, b = np.ones((2, step), dtype)
    a[:4], b[:4] = (np.inf, np.nan, np.inf, largest), (0, 1, -np.inf, largest)
    out = np.empty(step, dtype)
    store_fma(out, a, b, np.zeros(step, dtype))
    np.testing.assert_array_equal(out[:5], np.array([np.nan, np.nan, -np.inf, np.inf, 1]))
    store_sum(out, a, b)
    np.testing.assert_array_equal(out[:5], np.array([np.inf, np.nan, np.nan, np.inf, 2]))


@DTYPES
@given(seed=SEEDS)
def test_lanes_are_summed_in_halves(dtype, seed):
    step = lanes_of(dtype)
    array = numbers(seed, 2, step, dtype=dtype)
    for row in range(2):
        assert bits(sum_of_lanes(array, row * step), dtype) == bits(folded(array[row]), dtype)


@DTYPES
def test_order_of_the_lanes_decides_the_bits_of_their_sum(dtype):
    # 1 swallows a quarter of its last digit, unless it has met its opposite before.
    step, small = lanes_of(dtype), dtype(np.finfo(dtype).eps / 4)
    array = np.full(step, small)
    array[0], array[step // 2] = 1, -1
    assert sum_of_lanes(array, 0) == (step - 2) * small
    array[1], array[step // 2] = -1, small
    assert sum_of_lanes(array, 0) < (step - 2) * small


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["F", "strided"])
def test_vectors_refuse_arrays_that_are_not_contiguous(layout):
    array = (
        np.zeros((40, 40), np.float32, order="F") if layout == "F" else np.zeros((40, 80))[:, ::2]
    )

    @kernel
    def first_sum(array):
        return simd.ordered_sum(simd.load(array, 0))

    with pytest.raises(TypingError, match="vectors need C-contiguous arrays"):
        first_sum(array)


# --- Pointers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint16, np.int8])
@pytest.mark.parametrize("shape", [(64,), (4, 16), (2, 4, 8)])
def test_elements_are_read_and_written_through_pointers(dtype, shape):
    array = np.arange(64, dtype=dtype).reshape(shape)
    out = np.full(shape, 100, dtype)
    expected = out.copy()
    expected.reshape(-1)[5:16] = array.reshape(-1)[50:61]
    copy_elements(out, 5, array, 50, 11)
    assert_same_bits(out, expected)


@DTYPES
def test_vectors_are_loaded_and_stored_through_pointers(dtype):
    array, out = numbers(0, 4, 16, dtype=dtype), numbers(1, 64, dtype=dtype)
    expected = out.copy()
    expected[7 : 7 + lanes_of(dtype)] = array.reshape(-1)[21 : 21 + lanes_of(dtype)]
    copy_vector_of_pointers(out, 7, array, 21)
    assert_same_bits(out, expected)


def test_places_of_a_pointer_of_a_pointer_add():
    array = np.arange(60, dtype=np.int32).reshape(6, 10)
    assert element_of_a_pointer_of_a_pointer(array, 13, 20, 4) == (37, 37, 37)


def test_pointer_of_none_is_none():
    assert is_none(None)
    assert not is_none(np.zeros(5))


@pytest.mark.parametrize("count", [1, 10, 1000, 20_000])
def test_kept_array_lives_while_its_pointers_are_used(count):
    assert sum_through_a_pointer(count) == count * (count - 1) / 2


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["F", "strided"])
def test_pointers_refuse_arrays_that_are_not_contiguous(layout):
    array = np.zeros((40, 40), order="F") if layout == "F" else np.zeros((40, 80))[:, ::2]

    @kernel
    def first(array):
        return simd.pointer(array, 0)[0]

    with pytest.raises(TypingError, match="vectors need C-contiguous arrays"):
        first(array)
