"""Row operations of an encoder and its products, each in one pass over memory.

The functions are those of `fffcpu.kernels.encoder.vectorized`, which documents them. Here they are
compiled, and threads share the rows. A row stays in the nearest cache from its first number to its
result, whereas NumPy would apply each operation to all rows in turn.

`fffcpu.kernels.matrix_products` and `fffcpu.kernels.integer_products` have the products.

Sums over rows are computed in blocks of `BLOCK_ROWS` rows for any number of threads, so results
have the same bits for any number of threads.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.kernels.elementwise import activate_run, backpropagate_run, exponential
from fffcpu.kernels.integer_products import feed_forward, integer_matrix, project
from fffcpu.kernels.jit import inner, kernel, launch, writable
from fffcpu.kernels.matrix_products import hidden_layer, matmul
from fffcpu.kernels.simd import (
    add,
    broadcast,
    element,
    fma,
    keep,
    lanes,
    largest_lane,
    load,
    load_partial,
    load_register,
    multiply,
    ordered_sum,
    pointer,
    register_lanes,
    register_zeros,
    repeat,
    repeat_register,
    store,
    store_partial,
    subtract,
    where_greater,
    zeros,
)
from fffcpu.kernels.sums import dot

__all__ = [
    "activate",
    "add_layer_norm",
    "add_rows",
    "attention",
    "attention_backward",
    "backpropagate",
    "cross_entropy",
    "feed_forward",
    "hidden_layer",
    "integer_matrix",
    "layer_norm",
    "layer_norm_backward",
    "matmul",
    "project",
]

Array = NDArray[Any]
Pointer = Any
"""The address of an array's elements; see `fffcpu.kernels.simd.pointer`."""

BLOCK_ROWS = 64
"""Number of rows that one thread sums together."""

BLOCK_COLUMNS = 64
"""Columns of a table that one thread adds rows to."""

SUM_COLUMNS = 512
"""Columns that are summed in the dtype of the rows; the sums of blocks are added in float64."""

PASS = 4
"""Cost of a pass over a number in cache, in multiply-adds."""

EXPONENTIAL = 16
"""Cost of an exponential or an activation, in multiply-adds."""


@kernel
def _activate(out: Array, s: Array, activation: int, start: int, stop: int) -> None:
    first, count = start * s.shape[1], (stop - start) * s.shape[1]
    activate_run(out, first, s, first, count, activation, False)


def activate(s: Array, activation: int) -> Array:
    """Return the activation of every number of rows."""
    out: Array = np.empty_like(s)
    launch(_activate, len(s), EXPONENTIAL * s.shape[1], out, writable(s), activation)
    return out


@kernel
def _backpropagate(delta: Array, s: Array, activation: int, start: int, stop: int) -> None:
    first, count = start * s.shape[1], (stop - start) * s.shape[1]
    backpropagate_run(delta, first, s, first, count, activation, False)


def backpropagate(delta: Array, s: Array, activation: int) -> None:
    """Multiply ``delta`` by the derivatives of the activation."""
    launch(_backpropagate, len(s), EXPONENTIAL * s.shape[1], delta, writable(s), activation)


@inner
def _take(array: Array, at: int, left: int) -> Any:
    """Return a vector of the elements from a place on, with zeros after the last one left."""
    if left >= lanes(array):
        return load(array, at)
    return load_partial(array, at, left)


@inner
def _put(array: Array, at: int, vector: Any, left: int) -> None:
    """Write a vector to the elements from a place on, up to the last one left."""
    if left >= lanes(array):
        store(array, at, vector)
    else:
        store_partial(array, at, vector, left)


# --- Layer norm -----------------------------------------------------------------------------------


@inner
def _sum(x: Array, at: int, width: int) -> Any:
    """Return the sum of a run of numbers."""
    total = zeros(x)
    for k in range(0, width, lanes(x)):
        total = add(total, _take(x, at + k, width - k))
    return ordered_sum(total)


@inner
def _centre(out: Array, x: Array, at: int, width: int, mean: Any) -> Any:
    """Write a run of numbers minus their mean; return the sum of the squares."""
    means, total = broadcast(mean), zeros(x)
    for k in range(0, width, lanes(x)):
        _put(out, at + k, subtract(_take(x, at + k, width - k), means), width - k)
        centred = _take(out, at + k, width - k)  # with zeros behind the end, not minus the mean
        total = fma(centred, centred, total)
    return ordered_sum(total)


@inner
def _norm_row(
    out: Pointer,
    x: Pointer,
    at: int,
    width: int,
    scales: Pointer,
    biases: Pointer,
    numbers: Array,
) -> tuple[Any, Any]:
    """Write the layer norm of a row; return its moments."""
    mean = _sum(x, at, width) / numbers[0]
    variance = _centre(out, x, at, width, mean) / numbers[0]
    inverse = numbers[1] / np.sqrt(variance + numbers[2])
    for k in range(0, width, lanes(x)):
        left = width - k
        normal = multiply(_take(out, at + k, left), broadcast(inverse))
        _put(out, at + k, fma(normal, _take(scales, k, left), _take(biases, k, left)), left)
    return mean, inverse


@kernel
def _layer_norm(
    out: Array,
    moments: Array,
    x: Array,
    scale: Array,
    bias: Array,
    numbers: Array,
    start: int,
    stop: int,
) -> None:
    width = x.shape[1]
    rows, written = pointer(x, 0), pointer(out, 0)
    scales, biases = pointer(scale, 0), pointer(bias, 0)
    for row in range(start, stop):
        found = _norm_row(written, rows, row * width, width, scales, biases, numbers)
        moments[row, 0], moments[row, 1] = found


def layer_norm(out: Array, moments: Array, x: Array, scale: Array, bias: Array, eps: float) -> None:
    """Write the layer norm of rows; ``out`` may be ``x``."""
    numbers = _norm_numbers(x, eps)
    work = 3 * PASS * x.shape[1]
    launch(_layer_norm, len(x), work, out, moments, writable(x), scale, bias, numbers)


@kernel
def _add_layer_norm(
    y: Array,
    x: Array,
    shift: Array,
    scale: Array,
    bias: Array,
    numbers: Array,
    start: int,
    stop: int,
) -> None:
    width = x.shape[1]
    inputs, sums, shifts = pointer(x, 0), pointer(y, 0), pointer(shift, 0)
    scales, biases = pointer(scale, 0), pointer(bias, 0)
    for row in range(start, stop):
        at = row * width
        for k in range(0, width, lanes(x)):
            left = width - k
            total = _take(sums, at + k, left)
            if len(shift):
                total = add(total, _take(shifts, k, left))
            _put(sums, at + k, add(total, _take(inputs, at + k, left)), left)
        _norm_row(sums, sums, at, width, scales, biases, numbers)


def add_layer_norm(y: Array, x: Array, shift: Array, scale: Array, bias: Array, eps: float) -> None:
    """Write the layer norm of ``y + shift + x`` over ``y``."""
    numbers = _norm_numbers(x, eps)
    work = 4 * PASS * x.shape[1]
    launch(_add_layer_norm, len(x), work, y, writable(x), writable(shift), scale, bias, numbers)


def _norm_numbers(x: Array, eps: float) -> Array:
    """Return the numbers of a layer norm in the dtype of its rows: width, 1, eps."""
    return np.array([x.shape[1], 1.0, eps], x.dtype)


@inner
def _normal(x: Array, at: int, left: int, mean: Any, inverse: Any) -> Any:
    """Return a vector of normalized numbers."""
    return multiply(subtract(_take(x, at, left), broadcast(mean)), broadcast(inverse))


@kernel
def _layer_norm_backward(
    dx: Array,
    d_scale: Array,
    d_bias: Array,
    dy: Array,
    moments: Array,
    x: Array,
    scale: Array,
    numbers: Array,
    start: int,
    stop: int,
) -> None:
    """Process blocks of rows; ``d_scale`` and ``d_bias``, initially 0, have one row per block."""
    rows, width = x.shape
    for block in range(start, stop):
        for row in range(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, rows)):
            at, sums = row * width, block * width
            mean, inverse = moments[row, 0], moments[row, 1]
            total, product = zeros(x), zeros(x)
            for k in range(0, width, lanes(x)):
                left = width - k
                normal = _normal(x, at + k, left, mean, inverse)
                upstream = _take(dy, at + k, left)
                d_normal = multiply(upstream, _take(scale, k, left))
                total = add(total, d_normal)
                product = fma(d_normal, normal, product)
                _put(d_scale, sums + k, fma(upstream, normal, _take(d_scale, sums + k, left)), left)
                _put(d_bias, sums + k, add(upstream, _take(d_bias, sums + k, left)), left)
            mean_total = broadcast(ordered_sum(total) / numbers[0])
            mean_product = broadcast(ordered_sum(product) / numbers[0])
            for k in range(0, width, lanes(x)):
                left = width - k
                normal = _normal(x, at + k, left, mean, inverse)
                d_normal = multiply(_take(dy, at + k, left), _take(scale, k, left))
                rest = subtract(subtract(d_normal, mean_total), multiply(normal, mean_product))
                _put(dx, at + k, multiply(rest, broadcast(inverse)), left)


def layer_norm_backward(
    dx: Array, dy: Array, moments: Array, x: Array, scale: Array
) -> tuple[Array, Array]:
    """Write and return the gradients of `layer_norm`; ``dx`` may be ``dy``."""
    rows, width = x.shape
    blocks = -(-rows // BLOCK_ROWS)
    d_scale, d_bias = np.zeros((2, blocks, width), x.dtype)
    launch(
        _layer_norm_backward,
        blocks,
        4 * PASS * BLOCK_ROWS * width,
        dx,
        d_scale,
        d_bias,
        writable(dy),
        moments,
        writable(x),
        scale,
        np.array([width], x.dtype),
    )
    return d_scale.sum(axis=0), d_bias.sum(axis=0)


# --- Softmax and cross-entropy --------------------------------------------------------------------


@inner
def _largest(x: Array, at: int, width: int) -> Any:
    """Return the largest of a run of numbers, ignoring NaN behind the first."""
    step = lanes(x)
    largest = repeat(x, at)
    whole = width - width % step
    for k in range(0, whole, step):
        vector = load(x, at + k)
        largest = where_greater(vector, largest, vector, largest)
    result = largest_lane(largest)
    for k in range(at + whole, at + width):
        result = max(result, element(x, k))
    return result


@inner
def _exponentials(x: Array, at: int, width: int, largest: Any) -> Any:
    """Replace a run of numbers x by exp(x - largest); return the sum.

    Blocks of `SUM_COLUMNS` are summed in the numbers' own dtype, and the blocks in float64.
    """
    step, result = lanes(x), 0.0
    for first in range(0, width, SUM_COLUMNS):
        total = zeros(x)
        for k in range(first, min(first + SUM_COLUMNS, width), step):
            below = subtract(_take(x, at + k, width - k), broadcast(largest))
            _put(x, at + k, exponential(below), width - k)
            total = add(total, _take(x, at + k, width - k))  # with zeros behind the end
        result += ordered_sum(total)
    return result


@inner
def _multiply_run(x: Array, at: int, width: int, factor: Any) -> None:
    """Multiply a run of numbers by a factor."""
    for k in range(0, width, lanes(x)):
        _put(x, at + k, multiply(_take(x, at + k, width - k), broadcast(factor)), width - k)


@kernel
def _cross_entropy(
    losses: Array, logits: Array, labels: Array, numbers: Array, start: int, stop: int
) -> None:
    width = logits.shape[1]
    scratch = np.empty(lanes(logits), logits.dtype)
    for row in range(start, stop):
        at, label = row * width, labels[row]
        largest = _largest(logits, at, width)
        of_label = logits[row, label] - largest
        total = _exponentials(logits, at, width, largest)
        losses[row] = math.log(total) - of_label
        scratch[0] = total
        _multiply_run(logits, at, width, numbers[0] / scratch[0])
        logits[row, label] -= numbers[0]


def cross_entropy(logits: Array, labels: Array) -> float:
    """Return the mean cross-entropy of rows, which are replaced by its gradient."""
    rows, width = logits.shape
    losses = np.empty(rows)
    numbers = np.array([1.0 / max(rows, 1)], logits.dtype)
    launch(_cross_entropy, rows, (3 * PASS + EXPONENTIAL) * width, losses, logits, labels, numbers)
    return float(losses.mean()) if rows else 0.0


# --- Attention ------------------------------------------------------------------------------------
#
# An item is one head of one sequence. Its matrices are copied to scratch memory, with rows padded
# with zeros to whole steps of columns. Its products are computed four rows at a time::
#
#     four rows of a   (4, depth)       one number at a time, for whole registers of columns
#     b                (depth, step)    in the nearest caches
#     out              (4, step)        eight registers at a time: four rows, two registers each
#
# So scores, probabilities and their gradients never leave the caches, unless the caller keeps them.


@inner
def _step(array: Array, width: int) -> int:
    """Return the width of a row of scratch memory."""
    size: int = 2 * register_lanes(array)
    return (width + size - 1) // size * size


@inner
def _copy(
    out: Array, out_at: int, out_step: int, x: Array, at: int, step: int, rows: int, width: int
) -> None:
    """Copy rows that start at equal distances."""
    for row in range(rows):
        for k in range(0, width, lanes(x)):
            vector = _take(x, at + row * step + k, width - k)
            _put(out, out_at + row * out_step + k, vector, width - k)


@inner
def _copy_transposed(
    out: Array, out_step: int, x: Array, at: int, step: int, rows: int, width: int
) -> None:
    """Copy rows to columns of scratch memory."""
    for row in range(rows):
        for k in range(width):
            out[k * out_step + row] = x[at + row * step + k]


@inner
def _four_products(
    out: Array,
    out_step: int,
    a: Array,
    rows: tuple[int, int, int, int],
    a_step: int,
    b: Array,
    b_step: int,
    depth: int,
) -> None:
    """Multiply four rows of ``a`` by a matrix; their numbers are ``a_step`` apart."""
    a0, a1, a2, a3 = rows
    size = register_lanes(out)
    for column in range(0, out_step, 2 * size):
        c0 = c1 = d0 = d1 = e0 = e1 = f0 = f1 = register_zeros(out)
        for k in range(depth):
            at, place = k * b_step + column, k * a_step
            left, right = load_register(b, at), load_register(b, at + size)
            factor = repeat_register(a, a0 + place)
            c0, c1 = fma(factor, left, c0), fma(factor, right, c1)
            factor = repeat_register(a, a1 + place)
            d0, d1 = fma(factor, left, d0), fma(factor, right, d1)
            factor = repeat_register(a, a2 + place)
            e0, e1 = fma(factor, left, e0), fma(factor, right, e1)
            factor = repeat_register(a, a3 + place)
            f0, f1 = fma(factor, left, f0), fma(factor, right, f1)
        store(out, column, c0)
        store(out, column + size, c1)
        store(out, out_step + column, d0)
        store(out, out_step + column + size, d1)
        store(out, 2 * out_step + column, e0)
        store(out, 2 * out_step + column + size, e1)
        store(out, 3 * out_step + column, f0)
        store(out, 3 * out_step + column + size, f1)


@inner
def _rows_by_matrix(
    out: Array,
    out_step: int,
    a: Array,
    at: int,
    a_row: int,
    a_step: int,
    first: int,
    rows: int,
    b: Array,
    b_step: int,
    depth: int,
) -> None:
    """Multiply rows ``first`` to ``first + 3`` of ``a``, ``a_row`` places apart, by a matrix.

    After the last of the ``rows``, the last is repeated.
    """
    last = at + (rows - 1) * a_row
    a0 = at + first * a_row
    a1, a2, a3 = min(a0 + a_row, last), min(a0 + 2 * a_row, last), min(a0 + 3 * a_row, last)
    _four_products(out, out_step, a, (a0, a1, a2, a3), a_step, b, b_step, depth)


@inner
def _scale_scores(x: Pointer, at: int, width: int, penalties: Pointer, scale: Any) -> None:
    """Scale a run of numbers and add their penalties."""
    for k in range(0, width, lanes(x)):
        left = width - k
        scaled = multiply(_take(x, at + k, left), broadcast(scale))
        _put(x, at + k, add(scaled, _take(penalties, k, left)), left)


@inner
def _softmax(x: Pointer, at: int, width: int, one: Any, scratch: Pointer) -> None:
    """Replace a run of numbers by its softmax."""
    largest = _largest(x, at, width)
    scratch[0] = _exponentials(x, at, width, largest)
    _multiply_run(x, at, width, one / scratch[0])


@inner
def _drop(x: Pointer, at: int, width: int, kept: Pointer, first: int, share: Any) -> None:
    """Set dropped numbers of a run to 0, and multiply the others."""
    for k in range(width):
        if kept[first + k]:
            x[at + k] *= share
        else:
            x[at + k] = 0


@kernel
def _attention(
    context: Array,
    probabilities: Array,
    qkv: Array,
    penalties: Array,
    kept: Array,
    numbers: Array,
    start: int,
    stop: int,
) -> None:
    heads, length = probabilities.shape[1:3]
    total, row, drops = context.shape[1], qkv.shape[1], kept.shape[0] > 0
    width = total // heads
    step, wide = _step(qkv, length), _step(qkv, width)
    memory = np.zeros((width + 4) * step + (length + 4) * wide + lanes(qkv), qkv.dtype)
    keys, values = pointer(memory, 0), pointer(memory, width * step)  # a column a key
    p = pointer(memory, width * step + length * wide)
    out = pointer(memory, (width + 4) * step + length * wide)
    scratch = pointer(memory, (width + 4) * step + (length + 4) * wide)
    inputs, outputs, flags = pointer(qkv, 0), pointer(context, 0), pointer(kept, 0)
    one, scale, share = numbers[0], numbers[1], numbers[2]
    for item in range(start, stop):
        sequence, head = item // heads, item % heads
        queries = sequence * length * row + 3 * width * head
        mixed = sequence * length * total + width * head
        _copy_transposed(keys, step, inputs, queries + width, row, length, width)
        _copy(values, 0, wide, inputs, queries + 2 * width, row, length, width)
        for first in range(0, length, 4):
            count = min(4, length - first)
            _rows_by_matrix(p, step, inputs, queries, row, 1, first, length, keys, step, width)
            place = (item * length + first) * length
            for i in range(count):
                if penalties.shape[0] > 0:
                    own = pointer(penalties, sequence * length)
                    _scale_scores(p, i * step, length, own, scale)
                else:
                    _multiply_run(p, i * step, length, scale)
                _softmax(p, i * step, length, one, scratch)
            if probabilities.shape[0] > 0:
                _copy(pointer(probabilities, place), 0, length, p, 0, step, count, length)
            if drops:
                for i in range(count):
                    _drop(p, i * step, length, flags, place + i * length, share)
            _rows_by_matrix(out, wide, p, 0, step, 1, 0, count, values, wide, length)
            _copy(outputs, mixed + first * total, total, out, 0, wide, count, width)
    keep(memory)


def attention(
    context: Array,
    probabilities: Array,
    qkv: Array,
    penalties: Array,
    kept: NDArray[np.bool_],
    share: float,
) -> None:
    """Write the context of every position, from queries, keys and values."""
    rows, total = context.shape
    heads, length = probabilities.shape[1:3]
    numbers = np.array([1.0, math.sqrt(heads / total), share], qkv.dtype)
    work = length * (2 * length * total // heads + (3 * PASS + EXPONENTIAL) * length)
    items = rows // length * heads
    launch(_attention, items, work, context, probabilities, writable(qkv), penalties, kept, numbers)


@kernel
def _attention_backward(
    d_qkv: Array,
    d_context: Array,
    probabilities: Array,
    qkv: Array,
    kept: Array,
    numbers: Array,
    start: int,
    stop: int,
) -> None:
    heads, length = probabilities.shape[1:3]
    total = d_context.shape[1]
    width, row = total // heads, qkv.shape[1]
    step, wide = _step(qkv, length), _step(qkv, width)
    values = np.zeros((width, step), qkv.dtype)  # a column a key
    queries, keys = np.zeros((length, wide), qkv.dtype), np.zeros((length, wide), qkv.dtype)
    d_mixed, out = np.zeros((length, wide), qkv.dtype), np.empty((4, wide), qkv.dtype)
    # The probabilities after dropout, and the gradients of the scores: one row per query.
    weights, d_scores = np.empty((length, step), qkv.dtype), np.empty((length, step), qkv.dtype)
    d_rows = np.empty((4, step), qkv.dtype)
    flags, drops = pointer(kept, 0), kept.shape[0] > 0
    for item in range(start, stop):
        sequence, head = item // heads, item % heads
        at = sequence * length * row + 3 * width * head
        upstream = sequence * length * total + width * head
        _copy(queries, 0, wide, qkv, at, row, length, width)
        _copy(keys, 0, wide, qkv, at + width, row, length, width)
        _copy_transposed(
            pointer(values, 0), step, pointer(qkv, 0), at + 2 * width, row, length, width
        )
        _copy(d_mixed, 0, wide, d_context, upstream, total, length, width)
        for first in range(0, length, 4):
            count = min(4, length - first)
            _rows_by_matrix(d_rows, step, d_mixed, 0, wide, 1, first, length, values, step, width)
            for i in range(count):
                query = first + i
                place, run = (item * length + query) * length, query * step
                _copy(weights, run, step, probabilities, place, length, 1, length)
                if drops:
                    _drop(pointer(weights, run), 0, length, flags, place, numbers[1])
                    _drop(pointer(d_rows, i * step), 0, length, flags, place, numbers[1])
                mean = broadcast(dot(d_rows, i * step, probabilities, place, length))
                for k in range(0, length, lanes(qkv)):
                    left = length - k
                    share = multiply(_take(probabilities, place + k, left), broadcast(numbers[0]))
                    centred = subtract(_take(d_rows, i * step + k, left), mean)
                    _put(d_scores, run + k, multiply(centred, share), left)
        for first in range(0, length, 4):
            count, to = min(4, length - first), at + first * row
            _rows_by_matrix(out, wide, d_scores, 0, step, 1, first, length, keys, wide, length)
            _copy(d_qkv, to, row, out, 0, wide, count, width)
            _rows_by_matrix(out, wide, d_scores, 0, 1, step, first, length, queries, wide, length)
            _copy(d_qkv, to + width, row, out, 0, wide, count, width)
            _rows_by_matrix(out, wide, weights, 0, 1, step, first, length, d_mixed, wide, length)
            _copy(d_qkv, to + 2 * width, row, out, 0, wide, count, width)


def attention_backward(
    d_qkv: Array,
    d_context: Array,
    probabilities: Array,
    qkv: Array,
    kept: NDArray[np.bool_],
    share: float,
) -> None:
    """Write the gradients of `attention` with respect to queries, keys and values."""
    rows, total = d_context.shape
    heads, length = probabilities.shape[1:3]
    numbers = np.array([math.sqrt(heads / total), share], qkv.dtype)
    work = length * (4 * length * total // heads + 4 * PASS * length)
    launch(
        _attention_backward,
        rows // length * heads,
        work,
        d_qkv,
        writable(d_context),
        writable(probabilities),
        writable(qkv),
        kept,
        numbers,
    )


# --- Tables ---------------------------------------------------------------------------------------


@kernel
def _add_rows(table: Array, ids: Array, rows: Array, start: int, stop: int) -> None:
    """Process blocks of columns, so that no two threads write the same memory."""
    first, last = start * BLOCK_COLUMNS, min(stop * BLOCK_COLUMNS, table.shape[1])
    for k in range(len(ids)):
        for column in range(first, last):
            table[ids[k], column] += rows[k, column]


def add_rows(table: Array, ids: Array, rows: Array) -> None:
    """Add each of some rows to the row of a table with its id."""
    blocks = -(-table.shape[1] // BLOCK_COLUMNS)
    launch(_add_rows, blocks, PASS * BLOCK_COLUMNS * len(ids), table, ids, writable(rows))
