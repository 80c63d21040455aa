"""Vectors do lane by lane what NumPy does, and both sums add in the one order that is promised."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba.core.errors import TypingError

import fffcpu
from fffcpu.kernels import simd
from fffcpu.kernels.jit import JIT, kernel

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SEEDS = st.integers(0, 2**32 - 1)


def lanes_of(dtype):
    return 64 // np.dtype(dtype).itemsize


def numbers(seed, *shape, dtype=np.float64):
    """Random numbers over some orders of magnitude, so that each rounding shows."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) * 10 ** rng.uniform(-3, 3, shape)).astype(dtype)


def bits(value, dtype):
    """Bytes of numbers, which tell 0 from -0. A compiled function returns Python's floats."""
    return np.asarray(value, dtype).tobytes()


def assert_same_bits(found, expected):
    """Compare arrays of one dtype bit by bit."""
    assert found.dtype == expected.dtype
    unsigned = np.dtype(f"u{found.itemsize}")
    np.testing.assert_array_equal(found.view(unsigned), expected.view(unsigned))


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


# --- Slow emulations of what they promise ---------------------------------------------------------


def fused(a, b, c):
    """``a * b + c`` of each element, rounded once; of finite numbers without overflow."""
    a, b, c = np.broadcast_arrays(a, b, c)
    if c.dtype == np.float64:
        exact = [
            Fraction(x) * Fraction(y) + Fraction(z)
            for x, y, z in zip(a.flat, b.flat, c.flat, strict=True)
        ]
        return np.array([float(value) for value in exact]).reshape(c.shape)
    # A product of float32 numbers is exact in float64. The sum is not; so it is rounded to the odd
    # one of its two neighbours, from which rounding to float32 goes where the exact sum would go.
    product, c = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    total = product + c
    part = total - product
    error = (product - (total - part)) + (c - part)
    even = total.view(np.uint64) % 2 == 0
    towards = np.where(error > 0, np.inf, -np.inf)
    total = np.where((error != 0) & even, np.nextafter(total, towards), total)
    return total.astype(np.float32)


def multiply_add(a, b, c):
    """What the kernels' multiply-add gives: fused when compiled, rounded twice in plain Python."""
    return fused(a, b, c) if JIT else a * b + c


def folded(vector):
    """Sum of the lanes: the upper half onto the lower, until one is left."""
    while len(vector) > 1:
        half = len(vector) // 2
        vector = vector[:half] + vector[half:]
    return vector[0]


def emulated_dot(a, b):
    """Dot product in the order that simd.py draws."""
    step = lanes_of(a.dtype)
    a, b = (np.concatenate([v, np.zeros(-len(v) % step, v.dtype)]) for v in (a, b))
    accumulators = [np.zeros(step, a.dtype), np.zeros(step, a.dtype)]
    for block, column in enumerate(range(0, len(a), step)):
        run = slice(column, column + step)
        accumulators[block % 2] = multiply_add(a[run], b[run], accumulators[block % 2])
    return folded(accumulators[0] + accumulators[1])


def emulated_weighted_sum(begin, weights, rows):
    """Every column adds its terms, one multiply-add each, in the order of the rows."""
    total = begin.copy()
    for weight, row in zip(weights, rows, strict=True):
        total = multiply_add(weight, row, total)
    return total


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


# --- The dot product ------------------------------------------------------------------------------


WIDTHS = [*range(101), 127, 128, 129, 160, 255, 256, 257, 300, 767, 768, 769]


@DTYPES
def test_dot_is_near_the_exact_sum(dtype):
    eps = float(np.finfo(dtype).eps) / 2
    for width in WIDTHS:
        a, b = numbers(width, 2, width, dtype=dtype)
        terms = [Fraction(float(x)) * Fraction(float(y)) for x, y in zip(a, b, strict=True)]
        exact = sum(terms, Fraction(0))
        # A term goes through so many roundings: its lane's, even + odd, and the lanes' halves.
        roundings = 2 * (width // (2 * lanes_of(dtype)) + 1) + 1 + math.log2(lanes_of(dtype))
        bound = 1.01 * roundings * eps * math.fsum(abs(float(term)) for term in terms)
        found = simd.dot(a, 0, b, 0, width)
        assert abs(float(Fraction(float(found)) - exact)) <= bound, width
        assert abs(float(found) - math.fsum(map(float, terms))) <= bound * (1 + eps), width


@DTYPES
@pytest.mark.parametrize(("a_at", "b_at"), [(0, 0), (3, 0), (0, 5), (1, 13)])
def test_dot_has_the_bits_of_its_order(dtype, a_at, b_at):
    for width in WIDTHS if dtype is np.float32 else WIDTHS[:101]:
        a, b = numbers(width, 2, width + 20, dtype=dtype)
        expected = emulated_dot(a[a_at : a_at + width], b[b_at : b_at + width])
        assert bits(simd.dot(a, a_at, b, b_at, width), dtype) == bits(expected, dtype), width


@DTYPES
def test_dot_of_nothing_is_zero(dtype):
    a = numbers(0, 5, dtype=dtype)
    assert bits(simd.dot(a, 2, a, 3, 0), dtype) == bits(0.0, dtype)


@DTYPES
def test_dot_runs_along_rows_of_arrays_of_any_shape(dtype):
    weights, x = numbers(0, 2, 7, 37, dtype=dtype), numbers(1, 5, 37, dtype=dtype)
    for node in (0, 6, 9):
        found = simd.dot(weights, node * 37, x, 3 * 37, 37)
        expected = emulated_dot(weights.reshape(-1, 37)[node], x[3])
        assert bits(found, dtype) == bits(expected, dtype)


@DTYPES
@given(seed=SEEDS, width=st.integers(0, 200))
def test_dot_is_the_same_both_ways_round(dtype, seed, width):
    a, b = numbers(seed, 2, width, dtype=dtype)
    assert bits(simd.dot(a, 0, b, 0, width), dtype) == bits(simd.dot(b, 0, a, 0, width), dtype)


@DTYPES
@pytest.mark.parametrize("width", [1, 8, 17, 100])
def test_dot_sees_what_is_not_finite_and_nothing_beyond_its_width(dtype, width):
    a, b = np.full((2, width + 2), np.nan, dtype)
    a[1:-1], b[1:-1] = 1, 2
    assert simd.dot(a, 1, b, 1, width) == 2 * width
    a[width] = np.inf
    assert simd.dot(a, 1, b, 1, width) == np.inf
    b[width] = 0
    assert math.isnan(simd.dot(a, 1, b, 1, width))


@pytest.mark.slow
def test_bits_of_dot_depend_on_the_fused_multiply_add():
    # Else the tests of its order would pass with any rounding.
    different = 0
    for seed in range(20):
        a, b = np.random.default_rng(seed).standard_normal((2, 64)).astype(np.float32)
        products = (a * b).reshape(4, 16)
        twice_rounded = folded((products[0] + products[2]) + (products[1] + products[3]))
        different += simd.dot(a, 0, b, 0, 64) != twice_rounded
        assert bits(simd.dot(a, 0, b, 0, 64), np.float32) == bits(emulated_dot(a, b), np.float32)
    assert different > 0


# --- The weighted sum -----------------------------------------------------------------------------


def weighted_case(seed, count, width, dtype):
    """Weights, rows lying anywhere in an array, where they start, and an out to write to."""
    rng = np.random.default_rng(seed)
    weights = numbers(seed, count + 3, dtype=dtype)
    rows = numbers(seed + 1, 6, width + 5, dtype=dtype)
    offsets = rng.integers(0, 5 * (width + 5), count + 2)
    out = numbers(seed + 2, 3, width + 4, dtype=dtype)
    return weights, rows, offsets, out


@DTYPES
@given(
    seed=SEEDS,
    count=st.integers(0, 6),
    width=st.integers(0, 150),
    onto=st.booleans(),
    data=st.data(),
)
def test_weighted_sum_adds_terms_in_order_and_touches_no_other_column(
    dtype, seed, count, width, onto, data
):
    weights, rows, offsets, out = weighted_case(seed, count, width, dtype)
    start = data.draw(st.integers(0, width), label="start")
    stop = data.draw(st.integers(start, width), label="stop")
    out_at = width + 6  # in the second row, and not where a vector would be aligned
    terms = [rows.reshape(-1)[at + start : at + stop] for at in offsets[2:]]
    expected = out.copy()
    written = expected.reshape(-1)[out_at + start : out_at + stop]
    begin = written if onto else np.zeros_like(written)
    written[...] = emulated_weighted_sum(begin, weights[3:], terms)
    simd.weighted_sum(out, out_at, weights, 3, rows, offsets, 2, count, start, stop, onto)
    assert_same_bits(out, expected)


@DTYPES
@given(seed=SEEDS, width=st.integers(1, 300), data=st.data())
def test_weighted_sum_has_the_same_bits_however_columns_are_cut(dtype, seed, width, data):
    weights, rows, offsets, out = weighted_case(seed, 5, width, dtype)
    whole, cut = out.copy(), out.copy()
    simd.weighted_sum(whole, 2, weights, 0, rows, offsets, 0, 5, 0, width, False)
    cuts = data.draw(st.lists(st.integers(0, width), max_size=4).map(sorted), label="cuts")
    for start, stop in zip([0, *cuts], [*cuts, width], strict=True):
        simd.weighted_sum(cut, 2, weights, 0, rows, offsets, 0, 5, start, stop, False)
    assert_same_bits(cut, whole)


@DTYPES
@given(seed=SEEDS, count=st.integers(0, 8), width=st.integers(1, 150), data=st.data())
def test_weighted_sum_has_the_same_bits_however_terms_are_cut(dtype, seed, count, width, data):
    weights, rows, offsets, out = weighted_case(seed, count, width, dtype)
    whole, cut = out.copy(), out.copy()
    simd.weighted_sum(whole, 2, weights, 0, rows, offsets, 0, count, 0, width, True)
    first = data.draw(st.integers(0, count), label="first part")
    simd.weighted_sum(cut, 2, weights, 0, rows, offsets, 0, first, 0, width, True)
    rest = count - first
    simd.weighted_sum(cut, 2, weights, first, rows, offsets, first, rest, 0, width, True)
    assert_same_bits(cut, whole)


@DTYPES
@pytest.mark.parametrize("width", [5, 64, 70])
def test_weighted_sum_of_no_terms_is_zero_or_what_was_there(dtype, width):
    weights, rows, offsets, out = weighted_case(0, 0, width, dtype)
    before = out.copy()
    simd.weighted_sum(out, 2, weights, 0, rows, offsets, 0, 0, 0, width, True)
    assert_same_bits(out, before)
    simd.weighted_sum(out, 2, weights, 0, rows, offsets, 0, 0, 0, width, False)
    before.reshape(-1)[2 : 2 + width] = 0
    assert_same_bits(out, before)


# --- The end of memory ----------------------------------------------------------------------------


AT_THE_END_OF_MEMORY = """
import ctypes, mmap
import numpy as np
from fffcpu.kernels.simd import dot, weighted_sum

PAGE = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int

def at_the_end(count, dtype):
    # Zeros behind which the next byte must be neither read nor written.
    memory = mmap.mmap(-1, 2 * PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    if libc.mprotect(start + PAGE, PAGE, 0):
        raise OSError(ctypes.get_errno())
    size = count * np.dtype(dtype).itemsize
    return np.frombuffer(memory, np.uint8)[PAGE - size : PAGE].view(dtype)

for dtype in (np.float32, np.float64):
    for width in range(1, 140):
        a, b, out = (at_the_end(width, dtype) for _ in range(3))
        weights, offsets = at_the_end(2, dtype), at_the_end(2, np.int64)
        a[:], b[:], weights[:] = 1, 2, 3
        assert dot(a, 0, b, 0, width) == 2 * width
        weighted_sum(out, 0, weights, 0, a, offsets, 0, 2, 0, width, False)
        assert (out == 6).all()
        weighted_sum(out, 0, weights, 0, a, offsets, 0, 2, 0, width, True)
        assert (out == 12).all()
print("untouched")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="mprotect is of POSIX")
def test_memory_behind_an_array_is_not_touched():
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
