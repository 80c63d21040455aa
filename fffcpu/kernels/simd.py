"""Vectors for kernels, and the two sums that every kernel is made of.

A vector is 64 bytes: 16 lanes of float32 or 8 of float64. It is an LLVM vector, so the compiler
turns the plain loops below into AVX-512, pairs of AVX2 or quads of NEON instructions, and each
gives the same bits, because lanes and order of summation are fixed here and not by the compiler:

``dot``, the one dot product. Columns go to lanes of two accumulators, in turns, 64 bytes each::

    columns      0 .. 15 | 16 .. 31 | 32 .. 47 | 48 .. 63 | ...      (float32)
    accumulator    even  |   odd    |   even   |   odd    | ...

    even += a * b and odd += a * b are fused multiply-adds; missing columns at the end count as 0;
    at the end even + odd, then the upper half of the lanes onto the lower, until one is left.

Two accumulators, because one chain of fused multiply-adds waits four cycles a step.

``weighted_sum``, the one combination of rows: every column adds its terms in the order given, so
its bits do not depend on how columns are cut into blocks.

The functions of one vector take an array of any shape, C-contiguous, and a place ``at``, counted in
elements of the flattened array. They check no bounds. With ``NUMBA_DISABLE_JIT=1`` a vector is a
NumPy array of one dimension and the same kernels run as plain Python (multiply-adds then round
twice, so bits differ from compiled ones).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.kernels.jit import JIT, kernel

__all__ = [
    "VECTOR_BYTES",
    "add",
    "broadcast",
    "constant",
    "divide",
    "dot",
    "fma",
    "lanes",
    "load",
    "load_partial",
    "low_bits_to_exponent",
    "multiply",
    "ordered_sum",
    "polynomial",
    "store",
    "store_partial",
    "subtract",
    "weighted_sum",
    "where_greater",
    "zeros",
]

VECTOR_BYTES = 64

Array = NDArray[Any]

if JIT:
    from fffcpu.kernels._vector import (
        add,
        broadcast,
        constant,
        divide,
        fma,
        lanes,
        load,
        load_partial,
        low_bits_to_exponent,
        multiply,
        ordered_sum,
        polynomial,
        store,
        store_partial,
        subtract,
        where_greater,
        zeros,
    )
else:

    def lanes(array: Array) -> int:
        """Lanes of a vector of the array's dtype."""
        return VECTOR_BYTES // array.itemsize

    def zeros(array: Array) -> Array:
        """Vector of zeros of the array's dtype."""
        return np.zeros(lanes(array), array.dtype)

    def broadcast(scalar: Any) -> Array:
        """Vector with the scalar in every lane."""
        vector: Array = np.full(VECTOR_BYTES // scalar.itemsize, scalar)
        return vector

    def load(array: Array, at: int) -> Array:
        """Vector of the elements from place ``at`` on."""
        vector: Array = array.reshape(-1)[at : at + lanes(array)].copy()
        return vector

    def load_partial(array: Array, at: int, count: int) -> Array:
        """Like ``load``, but lanes from ``count`` on are 0 and their memory is not touched."""
        vector: Array = zeros(array)
        count = min(count, lanes(array))
        vector[:count] = array.reshape(-1)[at : at + count]
        return vector

    def store(array: Array, at: int, vector: Array) -> None:
        """Write a vector to the elements from place ``at`` on."""
        array.reshape(-1)[at : at + lanes(array)] = vector

    def store_partial(array: Array, at: int, vector: Array, count: int) -> None:
        """Like ``store``, but only the first ``count`` lanes."""
        count = min(count, lanes(array))
        array.reshape(-1)[at : at + count] = vector[:count]

    def fma(a: Array, b: Array, c: Array) -> Array:
        """Return ``a * b + c``, lane by lane."""
        with np.errstate(all="ignore"):
            result: Array = a * b + c
        return result

    def add(a: Array, b: Array) -> Array:
        """Return ``a + b``, lane by lane."""
        with np.errstate(all="ignore"):
            result: Array = a + b
        return result

    def subtract(a: Array, b: Array) -> Array:
        """Return ``a - b``, lane by lane."""
        with np.errstate(all="ignore"):
            result: Array = a - b
        return result

    def multiply(a: Array, b: Array) -> Array:
        """Return ``a * b``, lane by lane."""
        with np.errstate(all="ignore"):
            result: Array = a * b
        return result

    def divide(a: Array, b: Array) -> Array:
        """Return ``a / b``, lane by lane."""
        with np.errstate(all="ignore"):
            result: Array = a / b
        return result

    def where_greater(a: Array, b: Array, chosen: Array, other: Array) -> Array:
        """Return ``chosen`` where a > b, ``other`` elsewhere, so also where one of them is NaN."""
        return np.where(a > b, chosen, other)

    def low_bits_to_exponent(vector: Array) -> Array:
        """Shift each lane's bits left by the length of a mantissa.

        Of a number k + 1.5 * 2**23 (float32; 2**52 in float64) that makes 2**(k - 127) (k - 1023),
        for integers k from 1 to 254 (to 2046).
        """
        single = vector.itemsize == 4
        bits: Array = vector.view(np.uint32 if single else np.uint64)
        shifted: Array = np.left_shift(bits, 23 if single else 52).view(vector.dtype)
        return shifted

    def constant(like: Array, pair: tuple[float, float]) -> Array:
        """Vector of the same kind as another, with one number in all lanes.

        It is given as (number for float32, number for float64), each exact in its dtype.
        """
        number = pair[0 if like.itemsize == 4 else 1]
        vector: Array = np.full_like(like, number)
        return vector

    def polynomial(x: Array, pair: tuple[tuple[float, ...], tuple[float, ...]]) -> Array:
        """Polynomial of each lane, by Horner's rule, a fused multiply-add for each power.

        The coefficients, highest power first, are given as (for float32, for float64), exact too.
        """
        total, *rest = (np.full_like(x, c) for c in pair[0 if x.itemsize == 4 else 1])
        for coefficient in rest:
            total = fma(total, x, coefficient)
        return total

    def ordered_sum(vector: Array) -> Any:
        """Sum of the lanes: the upper half onto the lower, until one is left."""
        with np.errstate(all="ignore"):
            while vector.size > 1:
                half = vector.size // 2
                vector = vector[:half] + vector[half:]
        return vector[0]


@kernel
def dot(a: Array, a_at: int, b: Array, b_at: int, width: int) -> Any:
    """Dot product of two runs of ``width`` elements, in the order the module's text fixes."""
    step = lanes(a)
    even = zeros(a)
    odd = zeros(a)
    whole = width - width % (2 * step)
    for column in range(0, whole, 2 * step):
        even = fma(load(a, a_at + column), load(b, b_at + column), even)
        odd = fma(load(a, a_at + column + step), load(b, b_at + column + step), odd)
    for column in range(whole, width, step):
        left = width - column
        part_a = load_partial(a, a_at + column, left)
        part_b = load_partial(b, b_at + column, left)
        # The accumulators change places, so that the next vector goes to the other one.
        even, odd = odd, fma(part_a, part_b, even)
    return ordered_sum(add(even, odd))


@kernel
def weighted_sum(
    out: Array,
    out_at: int,
    weights: Array,
    weights_at: int,
    rows: Array,
    offsets: Array,
    offsets_at: int,
    count: int,
    start: int,
    stop: int,
    onto: bool,
) -> None:
    """Columns ``start`` to ``stop`` of a weighted sum of rows: out[c] = sum of w[k] * row k[c].

    Parameters
    ----------
    out, out_at
        Column c of the result goes to place ``out_at + c``.
    weights, weights_at
        The ``count`` weights.
    rows, offsets, offsets_at
        Row k starts in ``rows`` at place ``offsets[offsets_at + k]``; ``offsets`` has one
        dimension.
    onto
        Whether sums start from what ``out`` holds, and not from 0: a sum cut into parts then has
        the bits of the whole.
    """
    step = lanes(out)
    blocks = start + (stop - start) // (4 * step) * (4 * step)
    for column in range(start, blocks, 4 * step):
        sum0 = sum1 = sum2 = sum3 = zeros(out)
        if onto:
            sum0 = load(out, out_at + column)
            sum1 = load(out, out_at + column + step)
            sum2 = load(out, out_at + column + 2 * step)
            sum3 = load(out, out_at + column + 3 * step)
        for k in range(count):
            weight = broadcast(weights[weights_at + k])
            at = offsets[offsets_at + k] + column
            sum0 = fma(weight, load(rows, at), sum0)
            sum1 = fma(weight, load(rows, at + step), sum1)
            sum2 = fma(weight, load(rows, at + 2 * step), sum2)
            sum3 = fma(weight, load(rows, at + 3 * step), sum3)
        store(out, out_at + column, sum0)
        store(out, out_at + column + step, sum1)
        store(out, out_at + column + 2 * step, sum2)
        store(out, out_at + column + 3 * step, sum3)
    for column in range(blocks, stop, step):
        left = stop - column
        sum0 = load_partial(out, out_at + column, left) if onto else zeros(out)
        for k in range(count):
            weight = broadcast(weights[weights_at + k])
            at = offsets[offsets_at + k] + column
            sum0 = fma(weight, load_partial(rows, at, left), sum0)
        store_partial(out, out_at + column, sum0, left)
