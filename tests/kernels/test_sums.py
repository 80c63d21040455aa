"""All sums add in the one order that is promised, and touch nothing else."""

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

import fffcpu
from fffcpu.kernels import sums
from fffcpu.kernels.jit import kernel
from fffcpu.kernels.simd import fence
from fffcpu.lowbit import to_bfloat16
from fffcpu.parameters import aligned_empty
from tests.support.emulation import (
    assert_same_bits,
    bits,
    emulated_dot,
    emulated_weighted_sum,
    folded,
    lanes_of,
    numbers,
)

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SEEDS = st.integers(0, 2**32 - 1)

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
        found = sums.dot(a, 0, b, 0, width)
        assert abs(float(Fraction(float(found)) - exact)) <= bound, width
        assert abs(float(found) - math.fsum(map(float, terms))) <= bound * (1 + eps), width


@DTYPES
@pytest.mark.parametrize(("a_at", "b_at"), [(0, 0), (3, 0), (0, 5), (1, 13)])
def test_dot_has_the_bits_of_its_order(dtype, a_at, b_at):
    for width in WIDTHS if dtype is np.float32 else WIDTHS[:101]:
        a, b = numbers(width, 2, width + 20, dtype=dtype)
        expected = emulated_dot(a[a_at : a_at + width], b[b_at : b_at + width])
        assert bits(sums.dot(a, a_at, b, b_at, width), dtype) == bits(expected, dtype), width


@DTYPES
def test_dot_of_nothing_is_zero(dtype):
    a = numbers(0, 5, dtype=dtype)
    assert bits(sums.dot(a, 2, a, 3, 0), dtype) == bits(0.0, dtype)


@DTYPES
def test_dot_runs_along_rows_of_arrays_of_any_shape(dtype):
    weights, x = numbers(0, 2, 7, 37, dtype=dtype), numbers(1, 5, 37, dtype=dtype)
    for node in (0, 6, 9):
        found = sums.dot(weights, node * 37, x, 3 * 37, 37)
        expected = emulated_dot(weights.reshape(-1, 37)[node], x[3])
        assert bits(found, dtype) == bits(expected, dtype)


@DTYPES
@given(seed=SEEDS, width=st.integers(0, 200))
def test_dot_is_the_same_both_ways_round(dtype, seed, width):
    a, b = numbers(seed, 2, width, dtype=dtype)
    assert bits(sums.dot(a, 0, b, 0, width), dtype) == bits(sums.dot(b, 0, a, 0, width), dtype)


@DTYPES
@pytest.mark.parametrize("width", [1, 8, 17, 100])
def test_dot_sees_what_is_not_finite_and_nothing_beyond_its_width(dtype, width):
    a, b = np.full((2, width + 2), np.nan, dtype)
    a[1:-1], b[1:-1] = 1, 2
    assert sums.dot(a, 1, b, 1, width) == 2 * width
    a[width] = np.inf
    assert sums.dot(a, 1, b, 1, width) == np.inf
    b[width] = 0
    assert math.isnan(sums.dot(a, 1, b, 1, width))


@pytest.mark.slow
def test_bits_of_dot_depend_on_the_fused_multiply_add():
    # Else the tests of its order would pass with any rounding.
    different = 0
    for seed in range(20):
        a, b = np.random.default_rng(seed).standard_normal((2, 64)).astype(np.float32)
        products = (a * b).reshape(4, 16)
        twice_rounded = folded((products[0] + products[2]) + (products[1] + products[3]))
        different += sums.dot(a, 0, b, 0, 64) != twice_rounded
        assert bits(sums.dot(a, 0, b, 0, 64), np.float32) == bits(emulated_dot(a, b), np.float32)
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
    sums.weighted_sum(out, out_at, weights, 3, rows, offsets, 2, count, start, stop, onto)
    assert_same_bits(out, expected)


@DTYPES
@given(seed=SEEDS, width=st.integers(1, 300), data=st.data())
def test_weighted_sum_has_the_same_bits_however_columns_are_cut(dtype, seed, width, data):
    weights, rows, offsets, out = weighted_case(seed, 5, width, dtype)
    whole, cut = out.copy(), out.copy()
    sums.weighted_sum(whole, 2, weights, 0, rows, offsets, 0, 5, 0, width, False)
    cuts = data.draw(st.lists(st.integers(0, width), max_size=4).map(sorted), label="cuts")
    for start, stop in zip([0, *cuts], [*cuts, width], strict=True):
        sums.weighted_sum(cut, 2, weights, 0, rows, offsets, 0, 5, start, stop, False)
    assert_same_bits(cut, whole)


@DTYPES
@given(seed=SEEDS, count=st.integers(0, 8), width=st.integers(1, 150), data=st.data())
def test_weighted_sum_has_the_same_bits_however_terms_are_cut(dtype, seed, count, width, data):
    weights, rows, offsets, out = weighted_case(seed, count, width, dtype)
    whole, cut = out.copy(), out.copy()
    sums.weighted_sum(whole, 2, weights, 0, rows, offsets, 0, count, 0, width, True)
    first = data.draw(st.integers(0, count), label="first part")
    sums.weighted_sum(cut, 2, weights, 0, rows, offsets, 0, first, 0, width, True)
    rest = count - first
    sums.weighted_sum(cut, 2, weights, first, rows, offsets, first, rest, 0, width, True)
    assert_same_bits(cut, whole)


@DTYPES
@pytest.mark.parametrize("width", [5, 64, 70])
def test_weighted_sum_of_no_terms_is_zero_or_what_was_there(dtype, width):
    weights, rows, offsets, out = weighted_case(0, 0, width, dtype)
    before = out.copy()
    sums.weighted_sum(out, 2, weights, 0, rows, offsets, 0, 0, 0, width, True)
    assert_same_bits(out, before)
    sums.weighted_sum(out, 2, weights, 0, rows, offsets, 0, 0, 0, width, False)
    before.reshape(-1)[2 : 2 + width] = 0
    assert_same_bits(out, before)


# --- Several dot products -------------------------------------------------------------------------


VERSIONS = pytest.mark.parametrize("version", [sums._dots_in_parts, sums._dots_at_once])
STORED = pytest.mark.parametrize("stored", ["float32", "float64", "bfloat16", "int8"])


def dots_case(seed, size, stored):
    """Scratch, rows and the weights of nodes, both lying anywhere in an array."""
    dtype = np.float64 if stored == "float64" else np.float32
    x, weights = numbers(seed, 2, size, dtype=dtype)
    if stored == "bfloat16":
        weights = to_bfloat16(weights)
    if stored == "int8":
        weights = np.random.default_rng(seed).integers(-127, 128, size).astype(np.int8)
    return np.full(16, 7, dtype), np.full(24 * 16 + 1, np.nan, dtype)[1:], x, weights


def assert_same_as_dot(version, case, rows, nodes, width):
    products, scratch, x, weights = case
    version(products, scratch, x, rows, weights, nodes, width)
    expected = [sums.dot(weights, node, x, row, width) for row in rows for node in nodes]
    assert_same_bits(products, np.array([*expected, 7, 7, 7, 7], x.dtype))


@VERSIONS
@STORED
@pytest.mark.parametrize("width", [0, 1, 15, 16, 17, 31, 32, 33, 64, 100])
def test_dots_have_the_bits_of_dot_and_are_twelve(version, stored, width):
    case = dots_case(width, 4 * width + 9, stored)
    rows = (3, 3 + width, 5 + 2 * width, 9 + 3 * width)
    assert_same_as_dot(version, case, rows, (1, 8 + 2 * width, width), width)


@VERSIONS
@given(seed=SEEDS, width=st.integers(0, 150), data=st.data())
def test_dots_of_repeated_rows_and_nodes_have_the_bits_of_dot(version, seed, width, data):
    case = dots_case(seed, 3 * width + 1, "float32")
    places = st.sampled_from([0, width, 2 * width + 1])
    rows = data.draw(st.tuples(*[places] * 4), label="rows")
    nodes = data.draw(st.tuples(*[places] * 3), label="nodes")
    assert_same_as_dot(version, case, rows, nodes, width)


def test_dots_are_one_of_the_two_versions():
    assert sums.dots in (sums._dots_in_parts, sums._dots_at_once)


# --- Four weighted sums ---------------------------------------------------------------------------


def four_sums_case(seed, shared, count, width, dtype):
    """Weights, rows lying anywhere in an array, and where those of each of four sums start."""
    weights = numbers(seed, 4 * count + 2, dtype=dtype)
    rows = numbers(seed + 1, 5, width + 3, dtype=dtype)
    offsets = np.random.default_rng(seed).integers(0, 4 * (width + 3), (4, count))
    offsets[:, :shared] = offsets[0, :shared]
    return weights, rows, offsets


def one_by_one(out, places, weights, factors, rows, offsets, width, onto):
    """Compute four weighted sums, the same ones once only."""
    for place, first, own in dict(
        zip(places, zip(places, factors, offsets, strict=True), strict=True)
    ).values():
        sums.weighted_sum(out, place, weights, first, rows, own, 0, len(own), 0, width, onto)


def only_what_is_read(offsets, shared):
    """Offsets in one run, with places far outside of the array where none must be read."""
    offsets = offsets.copy()
    offsets[1:, :shared] = 1 << 40
    return offsets.reshape(-1)


@DTYPES
@given(
    seed=SEEDS,
    count=st.integers(0, 6),
    width=st.integers(0, 150),
    onto=st.booleans(),
    data=st.data(),
)
def test_weighted_sums_have_the_bits_of_weighted_sum(dtype, seed, count, width, onto, data):
    shared = data.draw(st.integers(0, count), label="shared")
    weights, rows, offsets = four_sums_case(seed, shared, count, width, dtype)
    factors = (1, 2 + count, 2 + 2 * count, 2 + 3 * count)
    out = numbers(seed + 2, 4 * width + 9, dtype=dtype)
    # Neighbours, which must not write into each other, in any order.
    slots = data.draw(st.permutations(range(4)), label="order")
    places = tuple(5 + slot * width for slot in slots)
    expected = out.copy()
    one_by_one(expected, places, weights, factors, rows, offsets, width, onto)
    read = only_what_is_read(offsets, shared)
    sums.weighted_sums(
        *(out, places, weights, factors, rows, read, shared, count, width, onto, False)
    )
    assert_same_bits(out, expected)


@DTYPES
@pytest.mark.parametrize("shared", [0, 2, 3])
@pytest.mark.parametrize("onto", [False, True])
@pytest.mark.parametrize("sums_of", [(0, 1, 2, 2), (0, 1, 1, 1), (0, 0, 0, 0)])
def test_weighted_sums_of_equal_places_are_written_once(dtype, shared, onto, sums_of):
    # As the last rows of a block, which are repeated.
    for width in (1, 16, 47, 48, 49, 100):
        weights, rows, offsets = four_sums_case(width, shared, 3, width, dtype)
        offsets = offsets[list(sums_of)]
        factors = tuple(3 * k for k in sums_of)
        places = tuple(k * width for k in sums_of)
        out = numbers(width, 3 * width + 20, dtype=dtype)
        expected = out.copy()
        one_by_one(expected, places, weights, factors, rows, offsets, width, onto)
        read = only_what_is_read(offsets, shared)
        sums.weighted_sums(
            *(out, places, weights, factors, rows, read, shared, 3, width, onto, False)
        )
        assert_same_bits(out, expected)


@kernel
def stream_weighted_sums(out, places, weights, factors, rows, offsets, shared, count, width, onto):
    sums.weighted_sums(
        out, places, weights, factors, rows, offsets, shared, count, width, onto, True
    )
    fence()


@DTYPES
@pytest.mark.parametrize("onto", [False, True])
def test_streamed_weighted_sums_have_the_same_bits(dtype, onto):
    step = lanes_of(dtype)
    for width in (step, 2 * step, 3 * step, 7 * step):
        weights, rows, offsets = four_sums_case(width, 1, 3, width, dtype)
        out = aligned_empty((4, width), dtype)
        out[...] = numbers(width, 4, width, dtype=dtype)
        expected = out.copy()
        arguments = ((0, 2 * width, 3 * width, width), weights, (0, 3, 6, 9), rows)
        one_by_one(expected, *arguments, offsets, width, onto)
        stream_weighted_sums(out, *arguments, only_what_is_read(offsets, 1), 1, 3, width, onto)
        assert_same_bits(out, expected)


# --- The end of memory ----------------------------------------------------------------------------


AT_THE_END_OF_MEMORY = """
import ctypes, mmap
import numpy as np
from fffcpu.kernels.sums import _dots_at_once, _dots_in_parts, dot, weighted_sum, weighted_sums

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
        two, products = at_the_end(2 * width, dtype), at_the_end(12, dtype)
        scratch = at_the_end(24 * 64 // two.itemsize, dtype)
        two[:] = 1
        for dots in (_dots_in_parts, _dots_at_once):
            products[:] = 0
            dots(products, scratch, two, (0, width, 0, width), a, (0, 0, 0), width)
            assert (products == width).all()
            dots(products, scratch, a, (0, 0, 0, 0), two, (width, 0, width), width)
            assert (products == width).all()
        for shared in range(3):
            weights, offsets = at_the_end(8, dtype), at_the_end(8, np.int64)
            weights[:], offsets[2:] = 3, 0
            places, factors = (width, 0, width, width), (6, 0, 6, 6)
            arguments = weights, factors, a, offsets, shared, 2, width
            weighted_sums(two, places, *arguments, False, False)
            assert (two == 6).all()
            weighted_sums(two, places, *arguments, True, False)
            assert (two == 12).all()
            two[:] = 1
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
