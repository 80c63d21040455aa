"""What an encoder does to rows beside matrix products, each in one pass over memory.

The functions are those of `fffcpu.kernels.plain_rows`, which says what each does; here they are
compiled, and threads share the rows. A row stays in the nearest cache from its first number to its
result, where NumPy would take all rows through each operation in turn.

Sums over rows go block by block, `BLOCK_ROWS` rows each, whatever the number of threads, so results
have the same bits for any number of them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.kernels.elementwise import activate_run, backpropagate_run, exponential
from fffcpu.kernels.jit import kernel, launch, part, writable
from fffcpu.kernels.simd import (
    add,
    broadcast,
    dot,
    element,
    fma,
    lanes,
    load,
    load_partial,
    multiply,
    ordered_sum,
    repeat,
    store,
    store_partial,
    subtract,
    where_greater,
    zeros,
)

__all__ = [
    "activate",
    "add_rows",
    "backpropagate",
    "cross_entropy",
    "layer_norm",
    "layer_norm_backward",
    "softmax",
    "softmax_backward",
]

Array = NDArray[Any]

BLOCK_ROWS = 64
"""Rows whose sums one thread takes together."""

BLOCK_COLUMNS = 64
"""Columns of a table that one thread adds rows to."""

SUM_COLUMNS = 512
"""Columns that are summed in the dtype of the rows; the sums of blocks are added in float64."""

PASS = 4
"""A pass over a number in cache costs about as much as so many multiply-adds."""

EXPONENTIAL = 16
"""So does an exponential, or an activation."""


@kernel
def _activate(out: Array, s: Array, activation: int, start: int, stop: int) -> None:
    width = s.shape[1]
    activate_run(out, start * width, s, start * width, (stop - start) * width, activation)


def activate(s: Array, activation: int) -> Array:
    """Activation of every number of rows."""
    out: Array = np.empty_like(s)
    launch(_activate, len(s), EXPONENTIAL * s.shape[1], out, writable(s), activation)
    return out


@kernel
def _backpropagate(delta: Array, s: Array, activation: int, start: int, stop: int) -> None:
    width = s.shape[1]
    backpropagate_run(delta, start * width, s, start * width, (stop - start) * width, activation)


def backpropagate(delta: Array, s: Array, activation: int) -> None:
    """Multiply ``delta`` by the derivatives of the activation."""
    launch(_backpropagate, len(s), EXPONENTIAL * s.shape[1], delta, writable(s), activation)


@part
def _take(array: Array, at: int, left: int) -> Any:
    """Vector of the elements from a place on, with zeros behind the last of those that are left."""
    if left >= lanes(array):
        return load(array, at)
    return load_partial(array, at, left)


@part
def _put(array: Array, at: int, vector: Any, left: int) -> None:
    """Write a vector to the elements from a place on, as far as there are any left."""
    if left >= lanes(array):
        store(array, at, vector)
    else:
        store_partial(array, at, vector, left)


# --- Layer norm -----------------------------------------------------------------------------------


@part
def _sum(x: Array, at: int, width: int) -> Any:
    """Sum of a run of numbers."""
    total = zeros(x)
    for k in range(0, width, lanes(x)):
        total = add(total, _take(x, at + k, width - k))
    return ordered_sum(total)


@part
def _centre(out: Array, x: Array, at: int, width: int, mean: Any) -> Any:
    """Write a run of numbers less their mean; return the sum of the squares."""
    means, total = broadcast(mean), zeros(x)
    for k in range(0, width, lanes(x)):
        _put(out, at + k, subtract(_take(x, at + k, width - k), means), width - k)
        centred = _take(out, at + k, width - k)  # with zeros behind the end, not minus the mean
        total = fma(centred, centred, total)
    return ordered_sum(total)


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
    for row in range(start, stop):
        at = row * width
        mean = _sum(x, at, width) / numbers[0]
        variance = _centre(out, x, at, width, mean) / numbers[0]
        inverse = numbers[1] / np.sqrt(variance + numbers[2])
        moments[row, 0] = mean
        moments[row, 1] = inverse
        for k in range(0, width, lanes(x)):
            left = width - k
            normal = multiply(_take(out, at + k, left), broadcast(inverse))
            _put(out, at + k, fma(normal, _take(scale, k, left), _take(bias, k, left)), left)


def layer_norm(out: Array, moments: Array, x: Array, scale: Array, bias: Array, eps: float) -> None:
    """Layer norm of rows; ``out`` may be ``x``."""
    width = x.shape[1]
    numbers = np.array([width, 1.0, eps], x.dtype)
    launch(_layer_norm, len(x), 3 * PASS * width, out, moments, writable(x), scale, bias, numbers)


@part
def _normal(x: Array, at: int, left: int, mean: Any, inverse: Any) -> Any:
    """Vector of normalised numbers."""
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
    """Do blocks of rows; ``d_scale`` and ``d_bias``, zeros at first, have a row for each block."""
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
    """Gradients of `layer_norm`; ``dx`` may be ``dy``."""
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


# --- Softmax --------------------------------------------------------------------------------------


@part
def _largest(x: Array, at: int, width: int, scratch: Array) -> Any:
    """Largest of a run of numbers, NaN left out; ``scratch`` has room for a vector."""
    step = lanes(x)
    largest = repeat(x, at)
    whole = width - width % step
    for k in range(0, whole, step):
        vector = load(x, at + k)
        largest = where_greater(vector, largest, vector, largest)
    store(scratch, 0, largest)
    result = scratch[0]
    for k in range(1, step):
        result = max(result, scratch[k])
    for k in range(at + whole, at + width):
        result = max(result, element(x, k))
    return result


@part
def _exponentials(x: Array, at: int, width: int, largest: Any) -> Any:
    """Write the exponentials of a run of numbers less the largest in their place; return the sum.

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


@part
def _multiply_run(x: Array, at: int, width: int, factor: Any) -> None:
    """Multiply a run of numbers by a factor."""
    for k in range(0, width, lanes(x)):
        _put(x, at + k, multiply(_take(x, at + k, width - k), broadcast(factor)), width - k)


@kernel
def _softmax(
    scores: Array, penalties: Array, numbers: Array, rows_each: int, start: int, stop: int
) -> None:
    width = scores.shape[1]
    scratch = np.empty(lanes(scores), scores.dtype)
    for row in range(start, stop):
        at = row * width
        _multiply_run(scores, at, width, numbers[1])
        if penalties.shape[0] > 0:
            first = row // rows_each * width
            for k in range(0, width, lanes(scores)):
                left = width - k
                penalty = _take(penalties, first + k, left)
                _put(scores, at + k, add(_take(scores, at + k, left), penalty), left)
        largest = _largest(scores, at, width, scratch)
        scratch[0] = _exponentials(scores, at, width, largest)
        _multiply_run(scores, at, width, numbers[0] / scratch[0])


def softmax(scores: Array, penalties: Array, scale: float, rows_each: int) -> None:
    """Softmax of rows, in their place."""
    width = scores.shape[1]
    numbers = np.array([1.0, scale], scores.dtype)
    work = (3 * PASS + EXPONENTIAL) * width
    launch(_softmax, len(scores), work, scores, penalties, numbers, rows_each)


@kernel
def _softmax_backward(
    d_scores: Array, probabilities: Array, numbers: Array, start: int, stop: int
) -> None:
    width = d_scores.shape[1]
    for row in range(start, stop):
        at = row * width
        mean = broadcast(dot(d_scores, at, probabilities, at, width))
        for k in range(0, width, lanes(d_scores)):
            left = width - k
            share = multiply(_take(probabilities, at + k, left), broadcast(numbers[0]))
            centred = subtract(_take(d_scores, at + k, left), mean)
            _put(d_scores, at + k, multiply(centred, share), left)


def softmax_backward(d_scores: Array, probabilities: Array, scale: float) -> None:
    """Turn gradients by probabilities into gradients by scores, in their place."""
    numbers = np.array([scale], d_scores.dtype)
    work = 2 * PASS * d_scores.shape[1]
    launch(_softmax_backward, len(d_scores), work, d_scores, writable(probabilities), numbers)


@kernel
def _cross_entropy(
    losses: Array, logits: Array, labels: Array, numbers: Array, start: int, stop: int
) -> None:
    width = logits.shape[1]
    scratch = np.empty(lanes(logits), logits.dtype)
    for row in range(start, stop):
        at, label = row * width, labels[row]
        largest = _largest(logits, at, width, scratch)
        of_label = logits[row, label] - largest
        total = _exponentials(logits, at, width, largest)
        losses[row] = math.log(total) - of_label
        scratch[0] = total
        _multiply_run(logits, at, width, numbers[0] / scratch[0])
        logits[row, label] -= numbers[0]


def cross_entropy(logits: Array, labels: Array) -> float:
    """Mean cross-entropy of rows, which become its gradient."""
    rows, width = logits.shape
    losses = np.empty(rows)
    numbers = np.array([1.0 / max(rows, 1)], logits.dtype)
    launch(_cross_entropy, rows, (3 * PASS + EXPONENTIAL) * width, losses, logits, labels, numbers)
    return float(losses.mean()) if rows else 0.0


# --- Tables ---------------------------------------------------------------------------------------


@kernel
def _add_rows(table: Array, ids: Array, rows: Array, start: int, stop: int) -> None:
    """Do blocks of columns, so that no two threads write the same memory."""
    first, last = start * BLOCK_COLUMNS, min(stop * BLOCK_COLUMNS, table.shape[1])
    for k in range(len(ids)):
        for column in range(first, last):
            table[ids[k], column] += rows[k, column]


def add_rows(table: Array, ids: Array, rows: Array) -> None:
    """Add each of some rows to the row of a table that its number names."""
    blocks = -(-table.shape[1] // BLOCK_COLUMNS)
    launch(_add_rows, blocks, PASS * BLOCK_COLUMNS * len(ids), table, ids, writable(rows))
