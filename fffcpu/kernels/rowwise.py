"""Numba kernels in which one row descends at a time, and threads share the rows.

The backend functions do what `fffcpu.kernels.vectorized` says. A row reads its nodes' weights as
runs of contiguous memory, level by level::

    weights_in  (T, N, I)    node 0 |################|         logit s0 > 0: right, to node 2
                             node 1 |                |
                             node 2 |################|         logit s2 <= 0: left, to node 5
                             ...
                             node 5 |################|
    weights_out (T, N, O)    the same nodes again, all at once: y is written in one pass

The backward has two steps, and no two threads ever write the same memory. The first goes over rows:
each row's logit gradients, and its ``dx``. The second goes over tasks (block of columns, tree):
rows sorted by the last node of their path are sorted by node at every level, so each node's
gradient is a weighted sum over a run of rows::

    order of rows     r7 r2 r9   r0 r4   r1 r3 r5 r8
    node at level 1   |----- 1 -----|   |--- 2 ----|       each run: d_weights[node] += sum
    node at level 2   |- 3 -|   |- 4 -|   |--- 6 ----|

Sums go in that order whatever the number of threads, so gradients have the same bits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.kernels.elementwise import activate_run, backpropagate_run
from fffcpu.kernels.jit import kernel, launch, parallel_kernel, prange, writable
from fffcpu.kernels.simd import dot, weighted_sum

__all__ = [
    "leaf_infer",
    "leaf_route",
    "path_backward",
    "path_forward",
    "path_infer",
    "path_logits",
]

Array = NDArray[Any]

BLOCK_COLUMNS = 128
BLOCK_ROWS = 128
"""The backward's second step takes blocks of 128 x 128 elements (64 KiB in float32) through all
levels, so that x and dy come from the nearest caches at all levels but the first."""


# --- One row of FastFeedForward ---------------------------------------------------------------


@kernel
def _descend(
    logits: Array, nodes: Array, slot: int, x: Array, row: int, weights_in: Array, bias_in: Array
) -> None:
    """Write one row's path through every tree to ``logits[slot]`` and ``nodes[slot]``."""
    trees, count, width = weights_in.shape
    biased = bias_in.shape[1] > 0
    for tree in range(trees):
        node = 0
        for level in range(logits.shape[2]):
            logit = dot(weights_in, (tree * count + node) * width, x, row * width, width)
            if biased:
                logit += bias_in[tree, node]
            logits[slot, tree, level] = logit
            nodes[slot, tree, level] = node
            node = 2 * node + (2 if logit > 0 else 1)


@kernel
def _offsets(offsets: Array, nodes: Array, slot: int, count: int, width: int) -> None:
    """Write where the weights of the nodes that a row visits start."""
    _, trees, levels = nodes.shape
    for tree in range(trees):
        for level in range(levels):
            offsets[tree * levels + level] = (tree * count + nodes[slot, tree, level]) * width


@kernel
def _output(
    y: Array,
    row: int,
    logits: Array,
    nodes: Array,
    slot: int,
    active: Array,
    offsets: Array,
    weights_out: Array,
    activation: int,
) -> None:
    """Write one row of y; ``active`` and ``offsets`` are scratch of T * L elements."""
    _, count, width = weights_out.shape
    _, trees, levels = logits.shape
    visits = trees * levels
    activate_run(active, 0, logits, slot * visits, visits, activation)
    _offsets(offsets, nodes, slot, count, width)
    weighted_sum(y, row * width, active, 0, weights_out, offsets, 0, visits, 0, width, False)


# --- Ranges of rows of FastFeedForward ----------------------------------------------------------


@kernel
def _path_logits(
    logits: Array, nodes: Array, x: Array, weights_in: Array, bias_in: Array, start: int, stop: int
) -> None:
    for row in range(start, stop):
        _descend(logits, nodes, row, x, row, weights_in, bias_in)


@parallel_kernel
def _path_logits_parallel(
    logits: Array, nodes: Array, x: Array, weights_in: Array, bias_in: Array, rows: int, ranges: int
) -> None:
    for part in prange(ranges):
        start, stop = rows * part // ranges, rows * (part + 1) // ranges
        _path_logits(logits, nodes, x, weights_in, bias_in, start, stop)


@kernel
def _path_infer(
    y: Array,
    x: Array,
    weights_in: Array,
    bias_in: Array,
    weights_out: Array,
    activation: int,
    start: int,
    stop: int,
) -> None:
    trees, count, _ = weights_in.shape
    levels = 0
    while count >> levels:
        levels += 1
    logits = np.empty((1, trees, levels), x.dtype)
    nodes = np.empty((1, trees, levels), np.int32)
    offsets = np.empty(trees * levels, np.int64)
    active = logits.reshape(-1)  # the logits of one row are overwritten by their activations
    for row in range(start, stop):
        _descend(logits, nodes, 0, x, row, weights_in, bias_in)
        _output(y, row, logits, nodes, 0, active, offsets, weights_out, activation)


@parallel_kernel
def _path_infer_parallel(
    y: Array,
    x: Array,
    weights_in: Array,
    bias_in: Array,
    weights_out: Array,
    activation: int,
    rows: int,
    ranges: int,
) -> None:
    for part in prange(ranges):
        start, stop = rows * part // ranges, rows * (part + 1) // ranges
        _path_infer(y, x, weights_in, bias_in, weights_out, activation, start, stop)


@kernel
def _path_forward(
    y: Array,
    logits: Array,
    nodes: Array,
    x: Array,
    weights_in: Array,
    bias_in: Array,
    weights_out: Array,
    activation: int,
    start: int,
    stop: int,
) -> None:
    _, trees, levels = logits.shape
    active = np.empty(trees * levels, x.dtype)
    offsets = np.empty(trees * levels, np.int64)
    for row in range(start, stop):
        _descend(logits, nodes, row, x, row, weights_in, bias_in)
        _output(y, row, logits, nodes, row, active, offsets, weights_out, activation)


@parallel_kernel
def _path_forward_parallel(
    y: Array,
    logits: Array,
    nodes: Array,
    x: Array,
    weights_in: Array,
    bias_in: Array,
    weights_out: Array,
    activation: int,
    rows: int,
    ranges: int,
) -> None:
    for part in prange(ranges):
        start, stop = rows * part // ranges, rows * (part + 1) // ranges
        _path_forward(
            y, logits, nodes, x, weights_in, bias_in, weights_out, activation, start, stop
        )


@kernel
def _path_deltas(
    dx: Array,
    delta: Array,
    active: Array,
    rank: Array,
    dy: Array,
    logits: Array,
    nodes: Array,
    weights_in: Array,
    weights_out: Array,
    activation: int,
    start: int,
    stop: int,
) -> None:
    """Backward, first step: write dx, and logit gradients and activations in sorted order.

    ``delta`` and ``active`` have shape (T, L, B); ``rank`` (T, B) says where a row stands.
    """
    trees, count, input_width = weights_in.shape
    output_width = weights_out.shape[2]
    levels = logits.shape[2]
    visits = trees * levels
    own_delta = np.empty(visits, dx.dtype)
    own_active = np.empty(visits, dx.dtype)
    offsets = np.empty(visits, np.int64)
    for row in range(start, stop):
        _offsets(offsets, nodes, row, count, output_width)
        for k in range(visits):
            own_delta[k] = dot(weights_out, offsets[k], dy, row * output_width, output_width)
        backpropagate_run(own_delta, 0, logits, row * visits, visits, activation)
        activate_run(own_active, 0, logits, row * visits, visits, activation)
        for tree in range(trees):
            place = rank[tree, row]
            for level in range(levels):
                delta[tree, level, place] = own_delta[tree * levels + level]
                active[tree, level, place] = own_active[tree * levels + level]
        _offsets(offsets, nodes, row, count, input_width)
        weighted_sum(
            dx,
            row * input_width,
            own_delta,
            0,
            weights_in,
            offsets,
            0,
            visits,
            0,
            input_width,
            False,
        )


@parallel_kernel
def _path_deltas_parallel(
    dx: Array,
    delta: Array,
    active: Array,
    rank: Array,
    dy: Array,
    logits: Array,
    nodes: Array,
    weights_in: Array,
    weights_out: Array,
    activation: int,
    rows: int,
    ranges: int,
) -> None:
    for part in prange(ranges):
        start, stop = rows * part // ranges, rows * (part + 1) // ranges
        _path_deltas(
            dx,
            delta,
            active,
            rank,
            dy,
            logits,
            nodes,
            weights_in,
            weights_out,
            activation,
            start,
            stop,
        )


@kernel
def _run_end(last_nodes: Array, tree: int, begin: int, limit: int, shift: int) -> int:
    """Return where the run of sorted rows ends that share the node of ``begin`` at a level.

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
    start: int,
    stop: int,
) -> None:
    """Backward, second step: d_weights[node] = sum over its rows of factor * vector.

    Parameters
    ----------
    d_weights : array of shape (T, N, width), zeros, written
    factors : array of shape (T, L, B)
        In sorted order of rows, like ``offsets`` and ``last_nodes``.
    vectors : array of shape (B, width)
    offsets : int64 array of shape (T * B,)
        Where the rows of ``vectors`` start.
    last_nodes : int32 array of shape (T, B)
    start, stop : int
        Range of tasks; task number block * T + tree.
    """
    trees, levels, rows = factors.shape
    _, count, width = d_weights.shape
    flat = factors.reshape(-1)
    for task in range(start, stop):
        tree = task % trees
        column = task // trees * BLOCK_COLUMNS
        for first in range(0, rows, BLOCK_ROWS):
            limit = min(first + BLOCK_ROWS, rows)
            for level in range(levels):
                shift = levels - 1 - level
                begin = first
                while begin < limit:
                    end = _run_end(last_nodes, tree, begin, limit, shift)
                    node = ((last_nodes[tree, begin] + 1) >> shift) - 1
                    weighted_sum(
                        d_weights,
                        (tree * count + node) * width,
                        flat,
                        (tree * levels + level) * rows + begin,
                        vectors,
                        offsets,
                        tree * rows + begin,
                        end - begin,
                        column,
                        min(column + BLOCK_COLUMNS, width),
                        True,
                    )
                    begin = end


@parallel_kernel
def _path_gradients_parallel(
    d_weights: Array,
    factors: Array,
    vectors: Array,
    offsets: Array,
    last_nodes: Array,
    tasks: int,
    ranges: int,
) -> None:
    for part in prange(ranges):
        start, stop = tasks * part // ranges, tasks * (part + 1) // ranges
        _path_gradients(d_weights, factors, vectors, offsets, last_nodes, start, stop)


# --- Ranges of rows of LeafFeedForward ----------------------------------------------------------


@kernel
def _descend_gates(x: Array, row: int, gate_weights: Array, gate_bias: Array) -> tuple[int, bool]:
    """Return the leaf a row reaches, and whether every logit on its way was finite."""
    gates, width = gate_weights.shape
    node = 0
    finite = True
    while node < gates:
        logit = dot(gate_weights, node * width, x, row * width, width) + gate_bias[node]
        finite = finite and math.isfinite(logit)
        node = 2 * node + (2 if logit >= 0 else 1)
    return node - gates, finite


@kernel
def _leaf_route(
    leaves: Array, x: Array, gate_weights: Array, gate_bias: Array, start: int, stop: int
) -> None:
    for row in range(start, stop):
        leaves[row], _ = _descend_gates(x, row, gate_weights, gate_bias)


@parallel_kernel
def _leaf_route_parallel(
    leaves: Array, x: Array, gate_weights: Array, gate_bias: Array, rows: int, ranges: int
) -> None:
    for part in prange(ranges):
        start, stop = rows * part // ranges, rows * (part + 1) // ranges
        _leaf_route(leaves, x, gate_weights, gate_bias, start, stop)


@kernel
def _consecutive(offsets: Array, first: int, step: int) -> None:
    """Fill with ``first``, ``first + step``, ...: where the rows of a matrix start."""
    for k in range(offsets.size):
        offsets[k] = first + k * step


@kernel
def _leaf_infer(
    y: Array,
    x: Array,
    gate_weights: Array,
    gate_bias: Array,
    leaf_weights_in: Array,
    leaf_bias_in: Array,
    leaf_weights_out: Array,
    leaf_bias_out: Array,
    activation: int,
    start: int,
    stop: int,
) -> None:
    _, width_in, hidden = leaf_weights_in.shape
    width_out = leaf_weights_out.shape[2]
    active = np.empty(hidden, x.dtype)
    rows_in = np.empty(width_in, np.int64)
    rows_out = np.empty(hidden, np.int64)
    vectors = x.reshape(-1)
    for row in range(start, stop):
        leaf, finite = _descend_gates(x, row, gate_weights, gate_bias)
        _consecutive(rows_in, leaf * width_in * hidden, hidden)
        _consecutive(rows_out, leaf * hidden * width_out, width_out)
        at = row * width_in
        weighted_sum(
            active, 0, vectors, at, leaf_weights_in, rows_in, 0, width_in, 0, hidden, False
        )
        for neuron in range(hidden):
            active[neuron] += leaf_bias_in[leaf, neuron]
        if not finite:
            active[:] = math.nan
        activate_run(active, 0, active, 0, hidden, activation)
        at = row * width_out
        weighted_sum(y, at, active, 0, leaf_weights_out, rows_out, 0, hidden, 0, width_out, False)
        for column in range(width_out):
            y[row, column] += leaf_bias_out[leaf, column]


@parallel_kernel
def _leaf_infer_parallel(
    y: Array,
    x: Array,
    gate_weights: Array,
    gate_bias: Array,
    leaf_weights_in: Array,
    leaf_bias_in: Array,
    leaf_weights_out: Array,
    leaf_bias_out: Array,
    activation: int,
    rows: int,
    ranges: int,
) -> None:
    for part in prange(ranges):
        start, stop = rows * part // ranges, rows * (part + 1) // ranges
        _leaf_infer(
            y,
            x,
            gate_weights,
            gate_bias,
            leaf_weights_in,
            leaf_bias_in,
            leaf_weights_out,
            leaf_bias_out,
            activation,
            start,
            stop,
        )


# --- What every backend module exports; `fffcpu.kernels.vectorized` documents it ----------------


def path_logits(logits: Array, nodes: Array, x: Array, weights_in: Array, bias_in: Array) -> None:
    """Conditional matrix multiplication: the logits of the nodes each row visits."""
    rows, trees, levels = logits.shape
    work = trees * levels * x.shape[1]
    arguments = (logits, nodes, writable(x), weights_in, bias_in)
    launch(_path_logits, _path_logits_parallel, rows, work, *arguments)


def path_infer(
    y: Array, x: Array, weights_in: Array, bias_in: Array, weights_out: Array, activation: int
) -> None:
    """Output of FastFeedForward."""
    if len(x) == 1:  # nothing to share; a single row takes little more than the calls around it
        x = x if x.flags.writeable else writable(x)
        _path_infer(y, x, weights_in, bias_in, weights_out, activation, 0, 1)
        return
    trees, count, width = weights_in.shape
    launch(
        _path_infer,
        _path_infer_parallel,
        len(x),
        trees * count.bit_length() * (width + y.shape[1]),
        y,
        writable(x),
        weights_in,
        bias_in,
        weights_out,
        activation,
    )


def path_forward(
    y: Array,
    logits: Array,
    nodes: Array,
    x: Array,
    weights_in: Array,
    bias_in: Array,
    weights_out: Array,
    activation: int,
) -> None:
    """Like `path_infer`, and keep what `path_backward` needs."""
    rows, trees, levels = logits.shape
    work = trees * levels * (x.shape[1] + y.shape[1])
    arguments = (y, logits, nodes, writable(x), weights_in, bias_in, weights_out, activation)
    launch(_path_forward, _path_forward_parallel, rows, work, *arguments)


def path_backward(
    dx: Array,
    d_weights_in: Array,
    d_bias_in: Array,
    d_weights_out: Array,
    dy: Array,
    x: Array,
    logits: Array,
    nodes: Array,
    weights_in: Array,
    weights_out: Array,
    activation: int,
) -> None:
    """Gradients of FastFeedForward, routes held constant, over visited nodes only."""
    rows, trees, levels = logits.shape
    x, dy = writable(x), writable(dy)
    order = np.argsort(nodes[:, :, -1].T, axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(rows)[np.newaxis], axis=1)
    last_nodes = np.take_along_axis(nodes[:, :, -1].T, order, axis=1)
    delta = np.empty((trees, levels, rows), x.dtype)
    active = np.empty((trees, levels, rows), x.dtype)

    work = trees * levels * (x.shape[1] + dy.shape[1])
    arguments = (dx, delta, active, rank, dy, logits, nodes, weights_in, weights_out, activation)
    launch(_path_deltas, _path_deltas_parallel, rows, work, *arguments)

    ones = np.ones((rows, 1), x.dtype)
    for d_weights, factors, vectors in (
        (d_weights_in, delta, x),
        (d_bias_in[:, :, np.newaxis], delta, ones),
        (d_weights_out, active, dy),
    ):
        width = vectors.shape[1]
        tasks = -(-width // BLOCK_COLUMNS) * trees
        launch(
            _path_gradients,
            _path_gradients_parallel,
            tasks,
            levels * rows * min(width, BLOCK_COLUMNS),
            d_weights,
            factors,
            vectors,
            (order * width).reshape(-1),
            last_nodes,
        )


def leaf_route(leaves: Array, x: Array, gate_weights: Array, gate_bias: Array) -> None:
    """Leaf that each row reaches in LeafFeedForward."""
    work = len(gate_bias).bit_length() * x.shape[1]
    arguments = (leaves, writable(x), gate_weights, gate_bias)
    launch(_leaf_route, _leaf_route_parallel, len(x), work, *arguments)


def leaf_infer(
    y: Array,
    x: Array,
    gate_weights: Array,
    gate_bias: Array,
    leaf_weights_in: Array,
    leaf_bias_in: Array,
    leaf_weights_out: Array,
    leaf_bias_out: Array,
    activation: int,
) -> None:
    """Output of LeafFeedForward at inference: the network of the one leaf that each row reaches."""
    _, width, hidden = leaf_weights_in.shape
    work = len(gate_bias).bit_length() * width + hidden * (width + y.shape[1])
    launch(
        _leaf_infer,
        _leaf_infer_parallel,
        len(x),
        work,
        y,
        writable(x),
        gate_weights,
        gate_bias,
        leaf_weights_in,
        leaf_bias_in,
        leaf_weights_out,
        leaf_bias_out,
        activation,
    )
