"""Both sums add in the one order that is promised, and touch nothing else."""

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


# --- The end of memory ----------------------------------------------------------------------------


AT_THE_END_OF_MEMORY = """
import ctypes, mmap
import numpy as np
from fffcpu.kernels.sums import dot, weighted_sum

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
