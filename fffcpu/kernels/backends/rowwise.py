"""Numba kernels in which each row descends independently, and threads share the rows.

`fffcpu.kernels.backends.vectorized` documents the backend functions. A row reads its nodes' weights
as runs of contiguous memory, level by level::

    weights_in  (T, N, I)    node 0 |################|         logit s0 > 0: right, to node 2
                             node 1 |                |
                             node 2 |################|         logit s2 <= 0: left, to node 5
                             ...
                             node 5 |################|
    weights_out (T, N, S, O)    the same nodes again, all at once: y is written in one pass

A few rows and trees take each level in turn before any continues to the next. A row's next node is
known only when its dot product is finished, and the processor can read other weights meanwhile.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.kernels.backends.gradients import path_backward, path_choices
from fffcpu.kernels.elementwise import activate_run, finished_logit, scaled, side_taken
from fffcpu.kernels.jit import inner, kernel, launch, writable
from fffcpu.kernels.simd import PREFETCHES, pointer, prefetch_run
from fffcpu.kernels.sums import dot, weighted_sum

__all__ = [
    "leaf_infer",
    "leaf_route",
    "path_backward",
    "path_choices",
    "path_forward",
    "path_infer",
    "path_logits",
]

Array = NDArray[Any]

TOGETHER = 16
"""Number of rows, or of rows times trees, that take each level in turn."""

FAR = 4
"""Cost of a multiply-add on a path, relative to one whose numbers are in cache."""

# --- A few rows of FastFeedForward --------------------------------------------------------------


@inner
def _descend(
    logits: Array,
    nodes: Array,
    slot: int,
    x: Array,
    row: int,
    rows: int,
    weights_in: Array,
    bias_in: Array,
    scale_in: Array | None,
    weights_out: Array,
) -> None:
    """Write the paths of rows from ``row`` on to ``logits`` and ``nodes``, from ``slot`` on.

    Where that pays, a node's row of ``weights_out`` and the next node's of ``weights_in`` are
    prefetched as soon as its logit is known, except from a ``weights_out`` of width 0.
    """
    trees, count, width = weights_in.shape
    _, _, sides, width_out = weights_out.shape
    bias, scale = pointer(bias_in, 0), pointer(scale_in, 0)
    fetches = PREFETCHES or rows * trees == 1
    trees_together = max(1, TOGETHER // rows)
    for first in range(0, trees, trees_together):
        last = min(first + trees_together, trees)
        for tree in range(first, last):
            for k in range(rows):
                nodes[slot + k, tree, 0] = 0
        for level in range(logits.shape[2]):
            for tree in range(first, last):
                for k in range(rows):
                    node = int(nodes[slot + k, tree, level])
                    at = tree * count + node
                    product = dot(weights_in, at * width, x, (row + k) * width, width)
                    logit = finished_logit(product, bias, scale, at)
                    logits[slot + k, tree, level] = logit
                    if fetches:
                        outer = at * sides + side_taken(logit, sides)
                        prefetch_run(weights_out, outer * width_out, width_out)
                    if level + 1 < logits.shape[2]:
                        child = 2 * node + (2 if logit > 0 else 1)
                        nodes[slot + k, tree, level + 1] = child
                        if fetches:
                            prefetch_run(weights_in, (tree * count + child) * width, width)


@inner
def _output(
    y: Array,
    row: int,
    logits: Array,
    nodes: Array,
    slot: int,
    active: Array,
    offsets: Array,
    weights_out: Array,
    scale_out: Array | None,
    activation: int,
) -> None:
    """Write one row of y; ``active`` and ``offsets`` are scratch of T * L elements."""
    _, count, sides, width = weights_out.shape
    _, trees, levels = logits.shape
    visits = trees * levels
    scale = pointer(scale_out, 0)
    activate_run(active, 0, logits, slot * visits, visits, activation, sides == 2)
    for tree in range(trees):
        for level in range(levels):
            k, node = tree * levels + level, tree * count + nodes[slot, tree, level]
            outer = node * sides + side_taken(logits[slot, tree, level], sides)
            active[k] = scaled(active[k], scale, outer)
            offsets[k] = outer * width
    weighted_sum(y, row * width, active, 0, weights_out, offsets, 0, visits, 0, width, False)


# --- Ranges of rows of FastFeedForward ----------------------------------------------------------


@kernel
def _path_logits(
    logits: Array,
    nodes: Array,
    x: Array,
    weights_in: Array,
    bias_in: Array,
    scale_in: Array | None,
    start: int,
    stop: int,
) -> None:
    trees, count, _ = weights_in.shape
    nothing = np.empty((trees, count, 1, 0), weights_in.dtype)
    for row in range(start, stop, TOGETHER):
        rows = min(TOGETHER, stop - row)
        _descend(logits, nodes, row, x, row, rows, weights_in, bias_in, scale_in, nothing)


@inner
def _infer(
    y: Array,
    x: Array,
    weights_in: Array,
    bias_in: Array,
    weights_out: Array,
    scale_in: Array | None,
    scale_out: Array | None,
    activation: int,
    start: int,
    stop: int,
) -> None:
    """Write rows ``start`` to ``stop`` of y."""
    trees, count, _ = weights_in.shape
    levels = 0
    while count >> levels:
        levels += 1
    together = min(TOGETHER, stop - start)
    logits = np.empty((together, trees, levels), x.dtype)
    nodes = np.empty((together, trees, levels), np.int32)
    active = np.empty(trees * levels, x.dtype)
    offsets = np.empty(trees * levels, np.int64)
    for row in range(start, stop, TOGETHER):
        rows = min(TOGETHER, stop - row)
        _descend(logits, nodes, 0, x, row, rows, weights_in, bias_in, scale_in, weights_out)
        for k in range(rows):
            _output(
                y, row + k, logits, nodes, k, active, offsets, weights_out, scale_out, activation
            )


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
    # Two arguments fewer: passing None for the scales would take 4% of a call for one row.
    _infer(y, x, weights_in, bias_in, weights_out, None, None, activation, start, stop)


@kernel
def _path_infer_int8(
    y: Array,
    x: Array,
    weights_in: Array,
    bias_in: Array,
    weights_out: Array,
    scale_in: Array,
    scale_out: Array,
    activation: int,
    start: int,
    stop: int,
) -> None:
    _infer(y, x, weights_in, bias_in, weights_out, scale_in, scale_out, activation, start, stop)


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
    for first in range(start, stop, TOGETHER):
        rows = min(TOGETHER, stop - first)
        _descend(logits, nodes, first, x, first, rows, weights_in, bias_in, None, weights_out)
        for row in range(first, first + rows):
            _output(y, row, logits, nodes, row, active, offsets, weights_out, None, activation)


# --- Ranges of rows of LeafFeedForward ----------------------------------------------------------


@inner
def _descend_gates(x: Array, row: int, gate_weights: Array, gate_bias: Array) -> tuple[int, bool]:
    """Return the leaf that a row reaches, and whether every logit on its path was finite."""
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


@inner
def _consecutive(offsets: Array, first: int, step: int) -> None:
    """Fill with ``first``, ``first + step``, ...: the starts of a matrix's rows."""
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
    leaf_scale_in: Array | None,
    leaf_scale_out: Array | None,
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
    bias, scale, outer_scale = (
        pointer(leaf_bias_in, 0),
        pointer(leaf_scale_in, 0),
        pointer(leaf_scale_out, 0),
    )
    for row in range(start, stop):
        leaf, finite = _descend_gates(x, row, gate_weights, gate_bias)
        _consecutive(rows_in, leaf * width_in * hidden, hidden)
        _consecutive(rows_out, leaf * hidden * width_out, width_out)
        at = row * width_in
        weighted_sum(
            active, 0, vectors, at, leaf_weights_in, rows_in, 0, width_in, 0, hidden, False
        )
        for neuron in range(hidden):
            logit = finished_logit(active[neuron], bias, scale, leaf * hidden + neuron)
            active[neuron] = logit if finite else math.nan
        activate_run(active, 0, active, 0, hidden, activation, False)
        for neuron in range(hidden):
            active[neuron] = scaled(active[neuron], outer_scale, leaf * hidden + neuron)
        at = row * width_out
        weighted_sum(y, at, active, 0, leaf_weights_out, rows_out, 0, hidden, 0, width_out, False)
        for column in range(width_out):
            y[row, column] += leaf_bias_out[leaf, column]


# --- What every backend module exports; `vectorized` documents it -------------------------------


def path_logits(
    logits: Array,
    nodes: Array,
    x: Array,
    weights_in: Array,
    bias_in: Array,
    scale_in: Array | None,
) -> None:
    """Write the logits of the nodes that each row visits: conditional matrix multiplication."""
    rows, trees, levels = logits.shape
    work = FAR * trees * levels * x.shape[1]
    arguments = (logits, nodes, writable(x), weights_in, bias_in, scale_in)
    launch(_path_logits, rows, work, *arguments)


def path_infer(
    y: Array,
    x: Array,
    weights_in: Array,
    bias_in: Array,
    weights_out: Array,
    scale_in: Array | None,
    scale_out: Array | None,
    activation: int,
) -> None:
    """Write the output of FastFeedForward."""
    x, unscaled = writable(x), scale_in is None  # both scales are there, or neither
    if len(x) == 1:  # nothing to share; a single row takes little more than the calls around it
        if unscaled:
            _path_infer(y, x, weights_in, bias_in, weights_out, activation, 0, 1)
        else:
            run: Any = _path_infer_int8
            run(y, x, weights_in, bias_in, weights_out, scale_in, scale_out, activation, 0, 1)
        return
    trees, count, width = weights_in.shape
    work = FAR * trees * count.bit_length() * (width + y.shape[1])
    weights = (weights_in, bias_in, weights_out)
    if unscaled:
        launch(_path_infer, len(x), work, y, x, *weights, activation)
    else:
        launch(_path_infer_int8, len(x), work, y, x, *weights, scale_in, scale_out, activation)


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
    """Like `path_infer`, but keep what `path_backward` needs."""
    rows, trees, levels = logits.shape
    work = FAR * trees * levels * (x.shape[1] + y.shape[1])
    arguments = (y, logits, nodes, writable(x), weights_in, bias_in, weights_out, activation)
    launch(_path_forward, rows, work, *arguments)


def leaf_route(leaves: Array, x: Array, gate_weights: Array, gate_bias: Array) -> None:
    """Write the leaf that each row reaches in LeafFeedForward."""
    work = len(gate_bias).bit_length() * x.shape[1]
    arguments = (leaves, writable(x), gate_weights, gate_bias)
    launch(_leaf_route, len(x), work, *arguments)


def leaf_infer(
    y: Array,
    x: Array,
    gate_weights: Array,
    gate_bias: Array,
    leaf_weights_in: Array,
    leaf_bias_in: Array,
    leaf_weights_out: Array,
    leaf_bias_out: Array,
    leaf_scale_in: Array | None,
    leaf_scale_out: Array | None,
    activation: int,
) -> None:
    """Write the output of LeafFeedForward at inference: that of the one leaf each row reaches."""
    _, width, hidden = leaf_weights_in.shape
    work = len(gate_bias).bit_length() * width + hidden * (width + y.shape[1])
    launch(
        _leaf_infer,
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
        leaf_scale_in,
        leaf_scale_out,
        activation,
    )
