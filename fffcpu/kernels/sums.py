"""The sums that all kernels use, each in one fixed order.

``dot`` is the only dot product. Columns go to lanes of two accumulators, in turns, 64 bytes each::

    columns      0 .. 15 | 16 .. 31 | 32 .. 47 | 48 .. 63 | ...      (float32)
    accumulator    even  |   odd    |   even   |   odd    | ...

    even += a * b and odd += a * b are fused multiply-adds; missing columns at the end count as 0;
    at the end even + odd, then the upper half of the lanes onto the lower until one is left.

There are two accumulators, because one chain of fused multiply-adds waits four cycles per step.

``weighted_sum`` is the only combination of rows: every column adds its terms in the given order, so
its bits do not depend on how columns are split into blocks.

``dots``, ``weighted_sums``, ``row_products`` and ``outer_sums`` compute several of these at once,
with the same bits and shared loads. They process as many lanes at a time as the registers hold:
those of AVX-512 hold a whole vector, those of AVX2 half of one. Places of several rows are tuples.
They are counted in elements of the flattened array, as in `fffcpu.kernels.simd`, and no bounds are
checked. All arrays may be pointers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from fffcpu.kernels.jit import inlined, inner
from fffcpu.kernels.simd import (
    WHOLE_REGISTERS,
    add,
    add_sums,
    element,
    fma,
    lanes,
    load,
    load_partial,
    load_register,
    load_register_partial,
    ordered_sum,
    ordered_sums,
    register_lanes,
    register_zeros,
    repeat,
    repeat_register,
    store,
    store_partial,
    store_sums,
    stream,
    zeros,
)

__all__ = ["Four", "dot", "dots", "outer_sums", "row_products", "weighted_sum", "weighted_sums"]

Array = NDArray[Any]
Three = tuple[int, int, int]
Four = tuple[int, int, int, int]


@inner
def dot(a: Array, a_at: int, b: Array, b_at: int, width: int) -> Any:
    """Return the dot product of two runs of ``width`` elements, in the order given above."""
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
        # The accumulators swap places, so that the next vector goes to the other one.
        even, odd = odd, fma(part_a, part_b, even)
    return ordered_sum(add(even, odd))


@inner
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
    """Write columns ``start`` to ``stop`` of a sum of weighted rows: out[c] = sum of w[k] row k[c].

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
        Whether sums start from the contents of ``out`` instead of 0: a sum that is split into parts
        then has the bits of the whole.
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
            weight = repeat(weights, weights_at + k)
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
            weight = repeat(weights, weights_at + k)
            at = offsets[offsets_at + k] + column
            sum0 = fma(weight, load_partial(rows, at, left), sum0)
        store_partial(out, out_at + column, sum0, left)


@inlined
def _dots_in_parts(
    products: Array, scratch: Array, x: Array, rows: Four, weights: Array, nodes: Three, width: int
) -> None:
    """Compute `dots` with the 16 registers of AVX2, each of which holds half a vector.

    The lanes of `dot` are split into registers, and one register at a time processes all columns:
    twelve sums then fit into the registers, and each load serves three or four of them.
    """
    row0, row1, row2, row3 = rows
    node0, node1, node2 = nodes
    size = register_lanes(x)
    step = 2 * lanes(x)
    whole = width - width % step
    turns = step // size
    for turn in range(turns):
        lane = turn * size
        s00 = s01 = s02 = register_zeros(x)
        s10 = s11 = s12 = register_zeros(x)
        s20 = s21 = s22 = register_zeros(x)
        s30 = s31 = s32 = register_zeros(x)
        for column in range(lane, whole + lane, step):
            w0 = load_register(weights, node0 + column)
            w1 = load_register(weights, node1 + column)
            w2 = load_register(weights, node2 + column)
            v = load_register(x, row0 + column)
            s00, s01, s02 = fma(v, w0, s00), fma(v, w1, s01), fma(v, w2, s02)
            v = load_register(x, row1 + column)
            s10, s11, s12 = fma(v, w0, s10), fma(v, w1, s11), fma(v, w2, s12)
            v = load_register(x, row2 + column)
            s20, s21, s22 = fma(v, w0, s20), fma(v, w1, s21), fma(v, w2, s22)
            v = load_register(x, row3 + column)
            s30, s31, s32 = fma(v, w0, s30), fma(v, w1, s31), fma(v, w2, s32)
        left = width - whole - lane
        if left > 0:
            column = whole + lane
            w0 = load_register_partial(weights, node0 + column, left)
            w1 = load_register_partial(weights, node1 + column, left)
            w2 = load_register_partial(weights, node2 + column, left)
            v = load_register_partial(x, row0 + column, left)
            s00, s01, s02 = fma(v, w0, s00), fma(v, w1, s01), fma(v, w2, s02)
            v = load_register_partial(x, row1 + column, left)
            s10, s11, s12 = fma(v, w0, s10), fma(v, w1, s11), fma(v, w2, s12)
            v = load_register_partial(x, row2 + column, left)
            s20, s21, s22 = fma(v, w0, s20), fma(v, w1, s21), fma(v, w2, s22)
            v = load_register_partial(x, row3 + column, left)
            s30, s31, s32 = fma(v, w0, s30), fma(v, w1, s31), fma(v, w2, s32)
        sums = (s00, s01, s02, s10, s11, s12, s20, s21, s22, s30, s31, s32)
        if turn < turns // 2:  # an even vector, or a part of one
            store_sums(scratch, 12 * lane, sums)
            continue
        sums = add_sums(scratch, 12 * (lane - lanes(x)), sums)
        if turn < turns - 1:
            store_sums(scratch, 0, sums)
        elif turns > 2:
            ordered_sums(products, add_sums(scratch, 0, sums))
        else:
            ordered_sums(products, sums)


@inlined
def _dots_at_once(
    products: Array, scratch: Array, x: Array, rows: Four, weights: Array, nodes: Three, width: int
) -> None:
    """Compute `dots` with the 32 registers of AVX-512: 24 of them hold the accumulators."""
    row0, row1, row2, row3 = rows
    node0, node1, node2 = nodes
    step = lanes(x)
    e00 = e01 = e02 = e10 = e11 = e12 = e20 = e21 = e22 = e30 = e31 = e32 = zeros(x)
    o00 = o01 = o02 = o10 = o11 = o12 = o20 = o21 = o22 = o30 = o31 = o32 = zeros(x)
    whole = width - width % (2 * step)
    for even in range(0, whole, 2 * step):
        w0 = load(weights, node0 + even)
        w1 = load(weights, node1 + even)
        w2 = load(weights, node2 + even)
        v = load(x, row0 + even)
        e00, e01, e02 = fma(v, w0, e00), fma(v, w1, e01), fma(v, w2, e02)
        v = load(x, row1 + even)
        e10, e11, e12 = fma(v, w0, e10), fma(v, w1, e11), fma(v, w2, e12)
        v = load(x, row2 + even)
        e20, e21, e22 = fma(v, w0, e20), fma(v, w1, e21), fma(v, w2, e22)
        v = load(x, row3 + even)
        e30, e31, e32 = fma(v, w0, e30), fma(v, w1, e31), fma(v, w2, e32)
        odd = even + step
        w0 = load(weights, node0 + odd)
        w1 = load(weights, node1 + odd)
        w2 = load(weights, node2 + odd)
        v = load(x, row0 + odd)
        o00, o01, o02 = fma(v, w0, o00), fma(v, w1, o01), fma(v, w2, o02)
        v = load(x, row1 + odd)
        o10, o11, o12 = fma(v, w0, o10), fma(v, w1, o11), fma(v, w2, o12)
        v = load(x, row2 + odd)
        o20, o21, o22 = fma(v, w0, o20), fma(v, w1, o21), fma(v, w2, o22)
        v = load(x, row3 + odd)
        o30, o31, o32 = fma(v, w0, o30), fma(v, w1, o31), fma(v, w2, o32)
    for column in range(whole, width, step):
        left = width - column
        w0 = load_partial(weights, node0 + column, left)
        w1 = load_partial(weights, node1 + column, left)
        w2 = load_partial(weights, node2 + column, left)
        # The accumulators swap places, as in `dot`.
        v = load_partial(x, row0 + column, left)
        e00, e01, e02, o00, o01, o02 = (
            o00,
            o01,
            o02,
            fma(v, w0, e00),
            fma(v, w1, e01),
            fma(v, w2, e02),
        )
        v = load_partial(x, row1 + column, left)
        e10, e11, e12, o10, o11, o12 = (
            o10,
            o11,
            o12,
            fma(v, w0, e10),
            fma(v, w1, e11),
            fma(v, w2, e12),
        )
        v = load_partial(x, row2 + column, left)
        e20, e21, e22, o20, o21, o22 = (
            o20,
            o21,
            o22,
            fma(v, w0, e20),
            fma(v, w1, e21),
            fma(v, w2, e22),
        )
        v = load_partial(x, row3 + column, left)
        e30, e31, e32, o30, o31, o32 = (
            o30,
            o31,
            o32,
            fma(v, w0, e30),
            fma(v, w1, e31),
            fma(v, w2, e32),
        )
    ordered_sums(
        products,
        (
            *(add(e00, o00), add(e01, o01), add(e02, o02)),
            *(add(e10, o10), add(e11, o11), add(e12, o12)),
            *(add(e20, o20), add(e21, o21), add(e22, o22)),
            *(add(e30, o30), add(e31, o31), add(e32, o32)),
        ),
    )


dots: Callable[[Array, Array, Array, Four, Array, Three, int], None]
dots = _dots_at_once if WHOLE_REGISTERS else _dots_in_parts
"""Write the dot products of four rows with three nodes, each with the bits of `dot`.

Parameters
----------
products : array of shape (12,), written
    Products, row by row.
scratch : array of 12 * 2 vectors
x, rows
    Places at which the rows start.
weights, nodes
    Places at which the nodes' weights start.
width : int
"""


@inner
def _write(array: Array, at: int, vector: Array, streamed: bool) -> None:
    """Store a vector, past the caches or not."""
    if streamed:
        stream(array, at, vector)
    else:
        store(array, at, vector)


@inner
def weighted_sums(
    out: Array,
    places: Four,
    weights: Array,
    factors: Four,
    rows: Array,
    offsets: Array,
    shared: int,
    count: int,
    width: int,
    onto: bool,
    streamed: bool,
) -> None:
    """Write four weighted sums of rows with the same first rows, each with `weighted_sum`'s bits.

    Parameters
    ----------
    out, places
        Places at which the results start. Equal places must have equal weights and offsets.
    weights, factors
        Places at which the ``count`` weights of each sum start.
    rows, offsets
        Row k of sum i starts in ``rows`` at place ``offsets[i * count + k]``, or, if k is less than
        ``shared``, at ``offsets[k]``.
    shared : int
        Number of first rows that all four sums share.
    count : int
        Number of rows per sum.
    width : int
        Number of columns.
    onto : bool
        Whether sums start from the contents of ``out`` instead of 0.
    streamed : bool
        Whether to store past the caches: `may_stream` must allow it, all places must be those of
        whole cache lines, and the caller must end with a `fence`.
    """
    out0, out1, out2, out3 = places
    first, second, third, fourth = factors
    size = register_lanes(out)
    whole = width - width % (3 * size)
    for column in range(0, whole, 3 * size):
        middle, right = column + size, column + 2 * size
        a0 = a1 = a2 = b0 = b1 = b2 = register_zeros(out)
        c0 = c1 = c2 = d0 = d1 = d2 = register_zeros(out)
        if onto:
            a0 = load_register(out, out0 + column)
            a1 = load_register(out, out0 + middle)
            a2 = load_register(out, out0 + right)
            b0 = load_register(out, out1 + column)
            b1 = load_register(out, out1 + middle)
            b2 = load_register(out, out1 + right)
            c0 = load_register(out, out2 + column)
            c1 = load_register(out, out2 + middle)
            c2 = load_register(out, out2 + right)
            d0 = load_register(out, out3 + column)
            d1 = load_register(out, out3 + middle)
            d2 = load_register(out, out3 + right)
        for k in range(shared):
            row = element(offsets, k) + column
            v0, v1 = load_register(rows, row), load_register(rows, row + size)
            v2 = load_register(rows, row + 2 * size)
            weight = repeat_register(weights, first + k)
            a0, a1, a2 = fma(weight, v0, a0), fma(weight, v1, a1), fma(weight, v2, a2)
            weight = repeat_register(weights, second + k)
            b0, b1, b2 = fma(weight, v0, b0), fma(weight, v1, b1), fma(weight, v2, b2)
            weight = repeat_register(weights, third + k)
            c0, c1, c2 = fma(weight, v0, c0), fma(weight, v1, c1), fma(weight, v2, c2)
            weight = repeat_register(weights, fourth + k)
            d0, d1, d2 = fma(weight, v0, d0), fma(weight, v1, d1), fma(weight, v2, d2)
        for k in range(shared, count):
            row = element(offsets, k) + column
            weight = repeat_register(weights, first + k)
            a0 = fma(weight, load_register(rows, row), a0)
            a1 = fma(weight, load_register(rows, row + size), a1)
            a2 = fma(weight, load_register(rows, row + 2 * size), a2)
            row = element(offsets, count + k) + column
            weight = repeat_register(weights, second + k)
            b0 = fma(weight, load_register(rows, row), b0)
            b1 = fma(weight, load_register(rows, row + size), b1)
            b2 = fma(weight, load_register(rows, row + 2 * size), b2)
            row = element(offsets, 2 * count + k) + column
            weight = repeat_register(weights, third + k)
            c0 = fma(weight, load_register(rows, row), c0)
            c1 = fma(weight, load_register(rows, row + size), c1)
            c2 = fma(weight, load_register(rows, row + 2 * size), c2)
            row = element(offsets, 3 * count + k) + column
            weight = repeat_register(weights, fourth + k)
            d0 = fma(weight, load_register(rows, row), d0)
            d1 = fma(weight, load_register(rows, row + size), d1)
            d2 = fma(weight, load_register(rows, row + 2 * size), d2)
        _write(out, out0 + column, a0, streamed)
        _write(out, out0 + middle, a1, streamed)
        _write(out, out0 + right, a2, streamed)
        _write(out, out1 + column, b0, streamed)
        _write(out, out1 + middle, b1, streamed)
        _write(out, out1 + right, b2, streamed)
        _write(out, out2 + column, c0, streamed)
        _write(out, out2 + middle, c1, streamed)
        _write(out, out2 + right, c2, streamed)
        _write(out, out3 + column, d0, streamed)
        _write(out, out3 + middle, d1, streamed)
        _write(out, out3 + right, d2, streamed)
    for column in range(whole, width, size):
        left = width - column
        a0 = b0 = c0 = d0 = register_zeros(out)
        if onto:
            a0 = load_register_partial(out, out0 + column, left)
            b0 = load_register_partial(out, out1 + column, left)
            c0 = load_register_partial(out, out2 + column, left)
            d0 = load_register_partial(out, out3 + column, left)
        for k in range(shared):
            v0 = load_register_partial(rows, element(offsets, k) + column, left)
            a0 = fma(repeat_register(weights, first + k), v0, a0)
            b0 = fma(repeat_register(weights, second + k), v0, b0)
            c0 = fma(repeat_register(weights, third + k), v0, c0)
            d0 = fma(repeat_register(weights, fourth + k), v0, d0)
        for k in range(shared, count):
            v0 = load_register_partial(rows, element(offsets, k) + column, left)
            a0 = fma(repeat_register(weights, first + k), v0, a0)
            v0 = load_register_partial(rows, element(offsets, count + k) + column, left)
            b0 = fma(repeat_register(weights, second + k), v0, b0)
            v0 = load_register_partial(rows, element(offsets, 2 * count + k) + column, left)
            c0 = fma(repeat_register(weights, third + k), v0, c0)
            v0 = load_register_partial(rows, element(offsets, 3 * count + k) + column, left)
            d0 = fma(repeat_register(weights, fourth + k), v0, d0)
        store_partial(out, out0 + column, a0, left)
        store_partial(out, out1 + column, b0, left)
        store_partial(out, out2 + column, c0, left)
        store_partial(out, out3 + column, d0, left)


@inner
def row_products(
    out: Array,
    places: Four,
    factors: Array,
    runs: Four,
    matrix: Array,
    first: int,
    stride: int,
    count: int,
    start: int,
    stop: int,
    onto: bool,
) -> None:
    """Multiply four rows by columns ``start`` to ``stop`` of a matrix, with `weighted_sum`'s bits.

    Parameters
    ----------
    out, places
        Column c of result i goes to place ``places[i] + c``.
    factors, runs
        Places at which the four runs of ``count`` factors start.
    matrix, first, stride
        Row k of the matrix starts at place ``first + k * stride``.
    onto : bool
        Whether sums start from the contents of ``out`` instead of 0.
    """
    out0, out1, out2, out3 = places
    at0, at1, at2, at3 = runs
    size = register_lanes(out)
    whole = start + (stop - start) // (2 * size) * (2 * size)
    for column in range(start, whole, 2 * size):
        a0 = a1 = b0 = b1 = c0 = c1 = d0 = d1 = register_zeros(out)
        if onto:
            a0 = load_register(out, out0 + column)
            a1 = load_register(out, out0 + column + size)
            b0 = load_register(out, out1 + column)
            b1 = load_register(out, out1 + column + size)
            c0 = load_register(out, out2 + column)
            c1 = load_register(out, out2 + column + size)
            d0 = load_register(out, out3 + column)
            d1 = load_register(out, out3 + column + size)
        at = first + column
        for k in range(count):
            v0, v1 = load_register(matrix, at), load_register(matrix, at + size)
            factor = repeat_register(factors, at0 + k)
            a0, a1 = fma(factor, v0, a0), fma(factor, v1, a1)
            factor = repeat_register(factors, at1 + k)
            b0, b1 = fma(factor, v0, b0), fma(factor, v1, b1)
            factor = repeat_register(factors, at2 + k)
            c0, c1 = fma(factor, v0, c0), fma(factor, v1, c1)
            factor = repeat_register(factors, at3 + k)
            d0, d1 = fma(factor, v0, d0), fma(factor, v1, d1)
            at += stride
        store(out, out0 + column, a0)
        store(out, out0 + column + size, a1)
        store(out, out1 + column, b0)
        store(out, out1 + column + size, b1)
        store(out, out2 + column, c0)
        store(out, out2 + column + size, c1)
        store(out, out3 + column, d0)
        store(out, out3 + column + size, d1)
    for column in range(whole, stop, size):
        left = stop - column
        a0 = b0 = c0 = d0 = register_zeros(out)
        if onto:
            a0 = load_register_partial(out, out0 + column, left)
            b0 = load_register_partial(out, out1 + column, left)
            c0 = load_register_partial(out, out2 + column, left)
            d0 = load_register_partial(out, out3 + column, left)
        at = first + column
        for k in range(count):
            v0 = load_register_partial(matrix, at, left)
            a0 = fma(repeat_register(factors, at0 + k), v0, a0)
            b0 = fma(repeat_register(factors, at1 + k), v0, b0)
            c0 = fma(repeat_register(factors, at2 + k), v0, c0)
            d0 = fma(repeat_register(factors, at3 + k), v0, d0)
            at += stride
        store_partial(out, out0 + column, a0, left)
        store_partial(out, out1 + column, b0, left)
        store_partial(out, out2 + column, c0, left)
        store_partial(out, out3 + column, d0, left)


@inner
def outer_sums(
    sums: Array,
    places: Three,
    factors: Array,
    runs: Three,
    vectors: Array,
    offsets: Array,
    offsets_at: int,
    count: int,
    start: int,
    stop: int,
) -> None:
    """Add weighted sums of the same rows to three others, each with `weighted_sum`'s bits.

    sums[places[i] + c] += sum over k of factors[runs[i] + k] * row k, where one load of a row
    serves three sums.

    Parameters
    ----------
    sums, places
        Column c of sum i is at place ``places[i] + c``.
    factors, runs
        Places at which the three runs of ``count`` factors start.
    vectors, offsets, offsets_at
        Row k starts in ``vectors`` at place ``offsets[offsets_at + k]``.
    start, stop
        Range of columns.
    """
    node0, node1, node2 = places
    at0, at1, at2 = runs
    size = register_lanes(sums)
    whole = start + (stop - start) // (4 * size) * (4 * size)
    for column in range(start, whole, 4 * size):
        second, third, fourth = column + size, column + 2 * size, column + 3 * size
        a0, a1 = load_register(sums, node0 + column), load_register(sums, node0 + second)
        a2, a3 = load_register(sums, node0 + third), load_register(sums, node0 + fourth)
        b0, b1 = load_register(sums, node1 + column), load_register(sums, node1 + second)
        b2, b3 = load_register(sums, node1 + third), load_register(sums, node1 + fourth)
        c0, c1 = load_register(sums, node2 + column), load_register(sums, node2 + second)
        c2, c3 = load_register(sums, node2 + third), load_register(sums, node2 + fourth)
        for k in range(count):
            at = offsets[offsets_at + k] + column
            factor0 = repeat_register(factors, at0 + k)
            factor1 = repeat_register(factors, at1 + k)
            factor2 = repeat_register(factors, at2 + k)
            v = load_register(vectors, at)
            a0, b0, c0 = fma(factor0, v, a0), fma(factor1, v, b0), fma(factor2, v, c0)
            v = load_register(vectors, at + size)
            a1, b1, c1 = fma(factor0, v, a1), fma(factor1, v, b1), fma(factor2, v, c1)
            v = load_register(vectors, at + 2 * size)
            a2, b2, c2 = fma(factor0, v, a2), fma(factor1, v, b2), fma(factor2, v, c2)
            v = load_register(vectors, at + 3 * size)
            a3, b3, c3 = fma(factor0, v, a3), fma(factor1, v, b3), fma(factor2, v, c3)
        store(sums, node0 + column, a0)
        store(sums, node0 + second, a1)
        store(sums, node0 + third, a2)
        store(sums, node0 + fourth, a3)
        store(sums, node1 + column, b0)
        store(sums, node1 + second, b1)
        store(sums, node1 + third, b2)
        store(sums, node1 + fourth, b3)
        store(sums, node2 + column, c0)
        store(sums, node2 + second, c1)
        store(sums, node2 + third, c2)
        store(sums, node2 + fourth, c3)
    if whole < stop:
        for i in range(3):
            weighted_sum(
                sums,
                places[i],
                factors,
                runs[i],
                vectors,
                offsets,
                offsets_at,
                count,
                whole,
                stop,
                True,
            )
