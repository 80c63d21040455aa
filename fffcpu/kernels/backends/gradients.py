"""The sparse backward of FastFeedForward: gradients of the nodes that rows visited, and no others.

The value of a choice at these nodes compares the path that a row took with the path that it did not
take: from each of its nodes the row descends once more, by the other child.

Rows are sorted by the last node of their path, which sorts them by node at every level. They are
processed in two steps; no two threads ever write the same memory.

The first step takes sorted rows, four at a time, and computes their logits' gradients and their
``dx``. Neighbours share most of their path, and the weights on it are loaded once for all four.

The second takes tasks (block of columns, tree). A node's gradient is a weighted sum over a run of
rows, and three levels are computed together, so that each load of a row serves three nodes::

    order of rows     r7 r2 r9   r0 r4   r1 r3 r5 r8
    node at level 1   |----- 1 -----|   |--- 2 ----|       each run: d_weights[node] += sum
    node at level 2   |- 3 -|   |- 4 -|   |--- 6 ----|

Sums have this order for any number of threads, so gradients have the same bits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.kernels.elementwise import (
    activate_run,
    backpropagate_run,
    density_run,
    finished_logit,
)
from fffcpu.kernels.jit import inner, kernel, launch, writable
from fffcpu.kernels.simd import fence, lanes, may_stream
from fffcpu.kernels.sums import dot, dots, outer_sums, weighted_sum, weighted_sums

__all__ = ["path_backward", "path_choices"]

Array = NDArray[Any]

BLOCK_COLUMNS = 64
BLOCK_ROWS = 128
"""The second step takes blocks of 128 x 64 elements (32 KiB in float32) through all levels, so
that x and dy come from the nearest cache at all levels except the first."""


@inner
def _active_gradients(
    d_active: Array,
    dy: Array,
    rows: Array,
    weights_out: Array,
    offsets: Array,
    shared: int,
    products: Array,
    scratch: Array,
) -> None:
    """Write the gradients of the activations of four rows, whose first nodes are the same.

    Parameters
    ----------
    d_active : array of shape (4 * L,), written
        Gradients of the first row, then those of the second, and so on.
    rows : array of shape (4,)
        Row numbers; equal ones are neighbours.
    offsets : array of shape (4 * L,)
        Start of the weights of their nodes.
    shared : int
        Number of first levels that all four paths share.
    """
    width = weights_out.shape[2]
    levels = offsets.size // 4
    for level in range(0, shared, 3):
        last = shared - 1
        dots(
            products,
            scratch,
            dy,
            (rows[0] * width, rows[1] * width, rows[2] * width, rows[3] * width),
            weights_out,
            (offsets[level], offsets[min(level + 1, last)], offsets[min(level + 2, last)]),
            width,
        )
        for i in range(4):
            for j in range(min(3, shared - level)):
                d_active[i * levels + level + j] = products[3 * i + j]
    for i in range(4):
        for level in range(shared, levels):
            at = offsets[i * levels + level]
            product = dot(weights_out, at, dy, rows[i] * width, width)
            d_active[i * levels + level] = product


@kernel
def _path_choices(
    d_logits: Array,
    dy: Array,
    x: Array,
    logits: Array,
    nodes: Array,
    weights_in: Array,
    bias_in: Array,
    weights_out: Array,
    activation: int,
    start: int,
    stop: int,
) -> None:
    """Run `path_choices` for some rows; ``d_logits`` holds activations of the path meanwhile."""
    _, count, width_in = weights_in.shape
    width_out = weights_out.shape[2]
    _, trees, levels = logits.shape
    aside = np.empty(levels, dy.dtype)
    for row in range(start, stop):
        for tree in range(trees):
            at = (row * trees + tree) * levels
            activate_run(d_logits, at, logits, at, levels, activation)
            taken = dy.dtype.type(0)
            for level in range(levels - 1, -1, -1):
                first = int(nodes[row, tree, level])
                right = logits[row, tree, level] > 0
                node = 2 * first + (1 if right else 2)
                below = levels - 1 - level
                for k in range(below):
                    place = tree * count + node
                    product = dot(weights_in, place * width_in, x, row * width_in, width_in)
                    aside[k] = finished_logit(product, bias_in, None, tree, node)
                    node = 2 * node + (2 if aside[k] > 0 else 1)
                activate_run(aside, 0, aside, 0, below, activation)
                other = dy.dtype.type(0)
                for k in range(below - 1, -1, -1):
                    node = (node - 1) >> 1
                    place = tree * count + node
                    share = dot(weights_out, place * width_out, dy, row * width_out, width_out)
                    other += aside[k] * share
                own = d_logits[row, tree, level]
                better = taken - other if math.isfinite(other) else 0 * taken
                d_logits[row, tree, level] = better if right else -better
                if level > 0:
                    place = tree * count + first
                    share = dot(weights_out, place * width_out, dy, row * width_out, width_out)
                    taken += own * share
            density_run(d_logits, at, logits, at, levels)


@kernel
def _path_deltas(
    dx: Array,
    delta: Array,
    active: Array,
    dy: Array,
    logits: Array,
    nodes: Array,
    d_logits: Array,
    weights_in: Array,
    weights_out: Array,
    activation: int,
    tree: int,
    order: Array,
    start: int,
    stop: int,
) -> None:
    """First step: write or add to dx, and write logit gradients and activations in sorted order.

    ``delta`` and ``active`` have shape (T, L, B), and ``order`` (B,) is that of one tree.
    """
    _, count, input_width = weights_in.shape
    output_width = weights_out.shape[2]
    _, trees, levels = logits.shape
    products, scratch = np.empty(12, dx.dtype), np.empty(24 * lanes(dx), dx.dtype)
    rows = np.empty(4, np.int64)
    d_active, own = np.empty(4 * levels, dx.dtype), np.empty(levels, dx.dtype)
    offsets = np.empty(4 * levels, np.int64)
    streamed = may_stream(dx) and trees == 1  # further trees would read dx again
    for k in range(start, stop, 4):
        for i in range(4):
            rows[i] = order[min(k + i, stop - 1)]
            for level in range(levels):
                node = tree * count + nodes[rows[i], tree, level]
                offsets[i * levels + level] = node * output_width
        shared = 0
        while (
            shared < levels
            and offsets[shared] == offsets[levels + shared]
            and offsets[shared] == offsets[2 * levels + shared]
            and offsets[shared] == offsets[3 * levels + shared]
        ):
            shared += 1
        _active_gradients(d_active, dy, rows, weights_out, offsets, shared, products, scratch)
        for i in range(4):
            place, first = min(k + i, stop - 1), i * levels
            at = (rows[i] * trees + tree) * levels
            backpropagate_run(d_active, first, logits, at, levels, activation)
            activate_run(own, 0, logits, at, levels, activation)
            for level in range(d_logits.shape[2]):
                d_active[first + level] += d_logits[rows[i], tree, level]
            for level in range(levels):
                delta[tree, level, place] = d_active[first + level]
                active[tree, level, place] = own[level]
                node = tree * count + nodes[rows[i], tree, level]
                offsets[first + level] = node * input_width
        weighted_sums(
            dx,
            (
                rows[0] * input_width,
                rows[1] * input_width,
                rows[2] * input_width,
                rows[3] * input_width,
            ),
            d_active,
            (0, levels, 2 * levels, 3 * levels),
            weights_in,
            offsets,
            shared,
            levels,
            input_width,
            tree > 0,
            streamed,
        )
    fence()


@inner
def _run_end(last_nodes: Array, tree: int, begin: int, limit: int, shift: int) -> int:
    """Return the end of the run of sorted rows with the same node as ``begin`` at a level.

    The node of a row ``shift`` levels above its last node m is ``((m + 1) >> shift) - 1``.
    """
    node = (last_nodes[tree, begin] + 1) >> shift
    end = begin + 1
    while end < limit and (last_nodes[tree, end] + 1) >> shift == node:
        end += 1
    return end


@kernel
def _path_gradients(
    d_weights: Array,
    factors: Array,
    vectors: Array,
    offsets: Array,
    last_nodes: Array,
    places: Array,
    start: int,
    stop: int,
) -> None:
    """Second step: d_weights[place of node] = sum over its rows of factor * vector.

    Parameters
    ----------
    d_weights : array of shape (R, width), zeros, written
    factors : array of shape (T, L, B)
        In sorted order of rows, like ``offsets`` and ``last_nodes``.
    vectors : array of shape (B, width)
    offsets : int64 array of shape (T * B,)
        Start of the rows of ``vectors``.
    last_nodes : int32 array of shape (T, B)
    places : int64 array of shape (T * N,)
        Row of ``d_weights`` for each node.
    start, stop : int
        Range of tasks; the task number is block * T + tree.
    """
    trees, levels, rows = factors.shape
    count, width = places.size // trees, d_weights.shape[1]
    flat = factors.reshape(-1)
    for task in range(start, stop):
        tree = task % trees
        column = task // trees * BLOCK_COLUMNS
        end_column = min(column + BLOCK_COLUMNS, width)
        for first in range(0, rows, BLOCK_ROWS):
            limit = min(first + BLOCK_ROWS, rows)
            level = 0
            while level < levels:
                together = 3 if levels - level >= 3 else 1
                shift = levels - level - together
                begin = first
                while begin < limit:
                    end = _run_end(last_nodes, tree, begin, limit, shift)
                    node = (last_nodes[tree, begin] + 1) >> shift
                    at = (tree * levels + level) * rows + begin
                    if together == 3:
                        outer_sums(
                            d_weights,
                            (
                                places[tree * count + (node >> 2) - 1] * width,
                                places[tree * count + (node >> 1) - 1] * width,
                                places[tree * count + node - 1] * width,
                            ),
                            flat,
                            (at, at + rows, at + 2 * rows),
                            vectors,
                            offsets,
                            tree * rows + begin,
                            end - begin,
                            column,
                            end_column,
                        )
                    else:
                        weighted_sum(
                            d_weights,
                            places[tree * count + node - 1] * width,
                            flat,
                            at,
                            vectors,
                            offsets,
                            tree * rows + begin,
                            end - begin,
                            column,
                            end_column,
                            True,
                        )
                    begin = end
                level += together


def path_choices(
    d_logits: Array,
    dy: Array,
    x: Array,
    logits: Array,
    nodes: Array,
    weights_in: Array,
    bias_in: Array,
    weights_out: Array,
    activation: int,
) -> None:
    """Write the gradients of FastFeedForward's logits due to choices, straight through."""
    rows, trees, levels = logits.shape
    launch(
        _path_choices,
        rows,
        trees * levels * (levels + 1) // 2 * (x.shape[1] + dy.shape[1]),
        d_logits,
        writable(dy),
        writable(x),
        logits,
        nodes,
        weights_in,
        bias_in,
        weights_out,
        activation,
    )


def path_backward(
    dx: Array,
    d_weights_in: Array,
    d_bias_in: Array,
    d_weights_out: Array,
    dy: Array,
    x: Array,
    logits: Array,
    nodes: Array,
    d_logits: Array,
    places: Array,
    weights_in: Array,
    weights_out: Array,
    activation: int,
) -> None:
    """Write gradients of FastFeedForward at visited nodes; routes are fixed except for d_logits."""
    rows, trees, levels = logits.shape
    x, dy = writable(x), writable(dy)
    order = np.argsort(nodes[:, :, -1].T, axis=1, kind="stable")
    last_nodes = np.take_along_axis(nodes[:, :, -1].T, order, axis=1)
    delta = np.empty((trees, levels, rows), x.dtype)
    active = np.empty((trees, levels, rows), x.dtype)

    work = levels * (x.shape[1] + dy.shape[1])
    for tree in range(trees):
        launch(
            _path_deltas,
            rows,
            work,
            dx,
            delta,
            active,
            dy,
            logits,
            nodes,
            d_logits,
            weights_in,
            weights_out,
            activation,
            tree,
            order[tree],
        )

    ones = np.ones((rows, 1), x.dtype)
    for d_weights, factors, vectors in (
        (d_weights_in, delta, x),
        (d_bias_in[:, np.newaxis], delta, ones),
        (d_weights_out, active, dy),
    ):
        width = vectors.shape[1]
        tasks = -(-width // BLOCK_COLUMNS) * trees
        launch(
            _path_gradients,
            tasks,
            levels * rows * min(width, BLOCK_COLUMNS),
            d_weights,
            factors,
            vectors,
            (order * width).reshape(-1),
            last_nodes,
            places,
        )
