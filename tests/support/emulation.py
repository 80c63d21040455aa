"""Slow emulations, in NumPy and fractions, of what vectors and sums promise to the bit."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from fffcpu.kernels.jit import JIT


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
    """Dot product in the order that sums.py draws."""
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
