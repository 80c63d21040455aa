"""Numba kernels for batches: rows that visit the same nodes are processed together.

`fffcpu.kernels.backends.vectorized` documents the backend functions; the bits are those of
`fffcpu.kernels.backends.rowwise`. A block of rows, as many as stay in the L2 cache, goes through
all trees before the next block starts (`fffcpu.kernels.descent`)::

    copy of x (n, I)     tree 0, tree 1, ...   all levels: logits, and the order of the rows
    logits (n, T, L)     all at once           activations
    y (n, O)             tree 0, tree 1, ...   outputs, in that order of the rows

In a block that is sorted by leaf, four neighbours share most of their path. The rows of
``weights_out`` on that shared part are loaded once for the four outputs.

If a tree has so many nodes that few rows of a block share one, a large batch descends it in two
stages, which sort the batch in between::

    blocks of rows in their own order      levels 0 .. 5, whose weights (63 nodes) stay in cache
    all rows, sorted by node at level 6    one sort
    blocks of sorted rows                  levels 6 .. 11, then their outputs

In LeafFeedForward the rows of a leaf are multiplied with its two matrices four at a time, one slice
of a matrix after the other. So all rows except the first four read a slice from the nearest cache.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.kernels.backends.gradients import path_backward, path_choices
from fffcpu.kernels.blocks import (
    Paths,
    Space,
    copy_rows,
    equal_blocks,
    float_count,
    integer_count,
    most_rows,
    new_space,
    tree_outputs,
)
from fffcpu.kernels.descent import Block, Tree, descend, four_rows, start_runs, write_reached
from fffcpu.kernels.elementwise import activate_run, finished_logit, scaled
from fffcpu.kernels.jit import inner, kernel, launch, writable
from fffcpu.kernels.simd import (
    add,
    fence,
    keep,
    lanes,
    load_partial,
    may_stream,
    pointer,
    store_partial,
)
from fffcpu.kernels.sums import row_products
from fffcpu.tree import level_start

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
Pointer = Any

ONE_TREE, MORE_TREES = 4, 3
"""Cost of a multiply-add on a path, relative to one whose numbers are in cache. Several trees read
x from nearby."""

NODES_PER_ROW, MOST_COUNTED = 1, 4
"""Number of nodes per row of a block from which a large batch descends a tree in two stages. It is
as many times that as there are trees, but at most four times: one stage copies x once for all."""

ROWS_IN_SUBTREE = 48
"""Minimum average number of rows per subtree for sorting a batch by subtree."""

LEAST_LEVELS_ABOVE, MOST_LEVELS_ABOVE = 4, 6
"""Minimum and maximum number of levels above these subtrees: 15 and 63 nodes."""

LEAF_ROWS = 128
"""Maximum number of rows of a leaf that are multiplied together."""

SLICE_BYTES = 16 * 1024
"""Size of the slice of a leaf's matrix that all rows of the leaf use before the next slice."""


class _Stage(NamedTuple):
    """What a launch computes of the trees.

    Kernels take it as an array, because a launch cannot pass a tuple in its tuple of arguments.
    """

    tree: int
    """First tree."""
    trees: int
    """Number of trees; 1 unless the launch computes all levels."""
    first: int
    """First level. If it is not 0, the rows are sorted by the node that they have reached."""
    last: int
    """Level below the last one."""
    levels: int
    """Number of levels of the trees."""
    rows: int
    """Maximum number of rows per block."""


@inner
def _stage(numbers: Array) -> Any:
    """Return the stage that an array holds."""
    return _Stage(numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5])


# --- Descending -----------------------------------------------------------------------------------


@inner
def _descend_tree(
    space: Space,
    tree: Tree,
    slot: int,
    shape: tuple[int, int],
    stage: _Stage,
    reached: Pointer,
    count: int,
) -> None:
    """Move a block down a tree, which is number ``slot`` of ``shape`` (trees, levels)."""
    trees, levels = shape
    paths, runs = space.paths, space.runs
    order = pointer(paths.order, slot * paths.capacity)
    for k in range(count):
        order[k] = k
    logits = pointer(paths.visits, slot * levels)
    block = Block(space.x, count, logits, trees * levels, 0, order, space.products)
    for k in range(count):
        runs.ways[k] = reached[paths.rows[k]] if stage.first > 0 else 0
    number = descend(tree, block, runs, start_runs(runs, count), stage.first, stage.last)
    write_reached(runs, number, pointer(paths.reached, slot * paths.capacity))


# --- FastFeedForward ------------------------------------------------------------------------------


@inner
def _weigh(
    paths: Paths, slot: int, shape: tuple[int, int], scale_out: Pointer, sides: int, count: int
) -> None:
    """Multiply the activations of a tree by the scales of its rows of output weights."""
    trees, levels = shape
    for k in range(count):
        row, reached = (
            paths.order[slot * paths.capacity + k],
            paths.reached[slot * paths.capacity + k],
        )
        for level in range(levels):
            outer = ((reached + 1) >> (levels + 1 - sides - level)) - sides
            paths.visits[(row * trees + slot) * levels + level] *= scale_out[outer]


@inner
def _copy_logits(
    logits: Array, tree: int, paths: Paths, shape: tuple[int, int], count: int, back: bool
) -> None:
    """Copy the logits of a block to those of the batch, or ``back``.

    Those of the batch (B, 1 or T, L) hold all trees, or one after the other.
    """
    trees, levels = shape
    _, slots, _ = logits.shape
    batch, first = pointer(logits, 0), tree if slots > 1 else 0
    for k in range(count):
        at = (int(paths.rows[k]) * slots + first) * levels
        place = k * trees * levels
        for visit in range(trees * levels):
            if back:
                paths.visits[place + visit] = batch[at + visit]
            else:
                batch[at + visit] = paths.visits[place + visit]


@inner
def _write_nodes(nodes: Array, tree: int, paths: Paths, shape: tuple[int, int], count: int) -> None:
    """Write the nodes that the rows of a block have visited, from tree ``tree`` on."""
    trees, levels = shape
    for slot in range(trees):
        place = slot * paths.capacity
        for k in range(count):
            row = int(paths.rows[paths.order[place + k]])
            reached = int(paths.reached[place + k]) + 1
            for level in range(levels):
                nodes[row, tree + slot, level] = (reached >> (levels - level)) - 1


@kernel
def _paths(
    y: Array,
    nodes: Array,
    logits: Array,
    sorting: Array,
    x: Array,
    weights_in: Array,
    bias_in: Array,
    weights_out: Array,
    scale_in: Array | None,
    scale_out: Array | None,
    activation: int,
    numbers: Array,
    start: int,
    stop: int,
) -> None:
    """Compute a stage for rows ``start`` to ``stop``, in the order of ``sorting``.

    ``y``, ``nodes`` and ``logits`` are not written if they have no rows. ``sorting`` (2, B) holds
    the node that each row has reached, then the sorted row numbers; with one stage it is empty.
    ``numbers`` holds the stage.
    """
    stage = _stage(numbers)
    _, nodes_of_tree, width_in = weights_in.shape
    _, _, sides, width_out = weights_out.shape
    levels = stage.levels
    shape = (stage.trees, levels)
    visits = stage.trees * levels
    capacity = equal_blocks(stop - start, stage.rows)
    floats = np.empty(float_count(capacity, width_in, visits), x.dtype)
    integers = np.empty(integer_count(capacity, stage.trees), np.int32)
    places = np.empty(4 * levels, np.int64)
    space = new_space(capacity, width_in, stage.trees, floats, integers)
    paths = space.paths
    reached, order = pointer(sorting, 0), pointer(sorting, sorting.shape[1])
    streamed = may_stream(y) and len(weights_in) == 1  # further trees would read y again
    for begin in range(start, stop, capacity):
        count = min(capacity, stop - begin)
        for k in range(count):
            paths.rows[k] = order[begin + k] if stage.first > 0 else begin + k
        copy_rows(space.x, pointer(x, 0), paths.rows, count, width_in)
        if stage.first > 0:
            _copy_logits(logits, stage.tree, paths, shape, count, True)
        for slot in range(stage.trees):
            at = (stage.tree + slot) * nodes_of_tree
            tree = Tree(
                pointer(weights_in, at * width_in),
                pointer(bias_in, at),
                pointer(scale_in, at),
                width_in,
                None,
            )
            _descend_tree(space, tree, slot, shape, stage, reached, count)
        if len(logits):
            _copy_logits(logits, stage.tree, paths, shape, count, False)
        if stage.last < levels:
            for k in range(count):
                reached[paths.rows[paths.order[k]]] = paths.reached[k]
            continue
        if len(nodes):
            _write_nodes(nodes, stage.tree, paths, shape, count)
        if len(y):
            activate_run(paths.visits, 0, paths.visits, 0, count * visits, activation, sides == 2)
            for slot in range(stage.trees):
                at = (stage.tree + slot) * nodes_of_tree * sides
                if scale_out is not None:
                    _weigh(paths, slot, shape, pointer(scale_out, at), sides, count)
                tree_outputs(
                    pointer(y, 0),
                    width_out,
                    paths,
                    slot,
                    shape,
                    pointer(weights_out, at * width_out),
                    sides,
                    pointer(places, 0),
                    count,
                    stage.tree + slot > 0,
                    streamed,
                )
    fence()
    keep(floats)
    keep(integers)
    keep(places)


# --- LeafFeedForward ------------------------------------------------------------------------------


@inner
def _leaf_outputs(
    y: Array,
    x: Array,
    rows: Array,
    leaf: int,
    logits: Array,
    leaf_weights_in: Array,
    leaf_bias_in: Array,
    leaf_weights_out: Array,
    leaf_bias_out: Array,
    leaf_scale_in: Array | None,
    leaf_scale_out: Array | None,
    activation: int,
    hidden: Array,
) -> None:
    """Write the outputs of rows that reach one leaf.

    Parameters
    ----------
    rows : int32 array
        Row numbers.
    logits : array of shape (B, 1, depth)
        Logits of the gates.
    hidden : array of shape (at least as many as rows, H), written
    """
    _, width_in, neurons = leaf_weights_in.shape
    width_out = leaf_weights_out.shape[2]
    last = rows.size - 1
    # Pointers, since calls with arrays would count references.
    numbers, vectors, active = pointer(rows, 0), pointer(x, 0), pointer(hidden, 0)
    matrix_in = pointer(leaf_weights_in, leaf * width_in * neurons)
    matrix_out = pointer(leaf_weights_out, leaf * neurons * width_out)
    out, bias_out = pointer(y, 0), pointer(leaf_bias_out, leaf * width_out)
    bias, scale = pointer(leaf_bias_in, leaf * neurons), pointer(leaf_scale_in, leaf * neurons)
    outer_scale = pointer(leaf_scale_out, leaf * neurons)
    slice_rows = max(16, SLICE_BYTES // (neurons * x.itemsize))
    for first in range(0, width_in, slice_rows):
        for k in range(0, rows.size, 4):
            k1, k2, k3 = min(k + 1, last), min(k + 2, last), min(k + 3, last)
            row0, row1, row2, row3 = four_rows(numbers, k, last)
            row_products(
                active,
                (k * neurons, k1 * neurons, k2 * neurons, k3 * neurons),
                vectors,
                (
                    row0 * width_in + first,
                    row1 * width_in + first,
                    row2 * width_in + first,
                    row3 * width_in + first,
                ),
                matrix_in,
                first * neurons,
                neurons,
                min(slice_rows, width_in - first),
                0,
                neurons,
                first > 0,
            )
    for k in range(rows.size):
        finite = True
        for level in range(logits.shape[2]):
            finite = finite and math.isfinite(logits[rows[k], 0, level])
        for neuron in range(neurons):
            logit = finished_logit(hidden[k, neuron], bias, scale, neuron)
            hidden[k, neuron] = logit if finite else math.nan
        activate_run(active, k * neurons, active, k * neurons, neurons, activation, False)
        for neuron in range(neurons):
            hidden[k, neuron] = scaled(hidden[k, neuron], outer_scale, neuron)
    step = lanes(y)
    slice_columns = max(1, SLICE_BYTES // (neurons * x.itemsize) // (2 * step)) * 2 * step
    for start in range(0, width_out, slice_columns):
        stop = min(start + slice_columns, width_out)
        for k in range(0, rows.size, 4):
            k1, k2, k3 = min(k + 1, last), min(k + 2, last), min(k + 3, last)
            row0, row1, row2, row3 = four_rows(numbers, k, last)
            row_products(
                out,
                (row0 * width_out, row1 * width_out, row2 * width_out, row3 * width_out),
                active,
                (k * neurons, k1 * neurons, k2 * neurons, k3 * neurons),
                matrix_out,
                0,
                width_out,
                neurons,
                start,
                stop,
                False,
            )
        for k in range(rows.size):
            for column in range(start, stop, step):
                left = stop - column
                at = rows[k] * width_out + column
                bias = load_partial(bias_out, column, left)
                store_partial(out, at, add(load_partial(out, at, left), bias), left)


@kernel
def _gates(
    logits: Array,
    sorting: Array,
    x: Array,
    gate_weights: Array,
    gate_bias: Array,
    numbers: Array,
    start: int,
    stop: int,
) -> None:
    """Move rows through a stage; ``sorting`` and ``numbers`` are those of `_paths`."""
    stage = _stage(numbers)
    depth, width = logits.shape[2], x.shape[1]
    shape = (1, depth)
    capacity = equal_blocks(stop - start, stage.rows)
    floats = np.empty(float_count(capacity, width, depth), x.dtype)
    integers = np.empty(integer_count(capacity, 1), np.int32)
    space = new_space(capacity, width, 1, floats, integers)
    paths = space.paths
    reached, order = pointer(sorting, 0), pointer(sorting, sorting.shape[1])
    tree = Tree(pointer(gate_weights, 0), pointer(gate_bias, 0), None, width, True)
    for begin in range(start, stop, capacity):
        count = min(capacity, stop - begin)
        for k in range(count):
            paths.rows[k] = order[begin + k] if stage.first > 0 else begin + k
        copy_rows(space.x, pointer(x, 0), paths.rows, count, width)
        if stage.first > 0:
            _copy_logits(logits, 0, paths, shape, count, True)
        _descend_tree(space, tree, 0, shape, stage, reached, count)
        _copy_logits(logits, 0, paths, shape, count, False)
        for k in range(count):
            row = paths.rows[paths.order[k]]
            reached[row] = paths.reached[k]
            order[begin + k] = row
    keep(floats)
    keep(integers)


@kernel
def _leaves(
    y: Array,
    logits: Array,
    sorting: Array,
    x: Array,
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
    """Write the outputs of sorted rows, whose leaves are known."""
    reached, order = sorting[0], sorting[1]
    gates = len(leaf_weights_in) - 1
    hidden = np.empty((LEAF_ROWS, leaf_weights_in.shape[2]), x.dtype)
    begin = start
    while begin < stop:
        node, limit = reached[order[begin]], min(begin + LEAF_ROWS, stop)
        end = begin + 1
        while end < limit and reached[order[end]] == node:
            end += 1
        _leaf_outputs(
            y,
            x,
            order[begin:end],
            node - gates,
            logits,
            leaf_weights_in,
            leaf_bias_in,
            leaf_weights_out,
            leaf_bias_out,
            leaf_scale_in,
            leaf_scale_out,
            activation,
            hidden,
        )
        begin = end


# --- Whole batches --------------------------------------------------------------------------------


def _sort(sorting: Array, top: int) -> None:
    """Sort all rows by the node that they reached at level ``top``; stable."""
    nodes = sorting[0] - level_start(top)
    # NumPy sorts numbers of 8 or 16 bits by their bits, and others by comparing them.
    keys = nodes.astype(np.uint8 if top <= 8 else np.uint16) if top <= 16 else nodes
    sorting[1] = np.argsort(keys, kind="stable")


def _numbers(*stage: int) -> Array:
    """Return a stage as kernels take it."""
    return np.array(_Stage(*stage), np.int64)


def _top(rows: int, trees: int, levels: int, most: int) -> int:
    """Return the level between two stages, by whose nodes a batch is sorted; 0 for one stage.

    ``most`` is the maximum number of rows per block.
    """
    if (1 << levels) <= NODES_PER_ROW * min(trees, MOST_COUNTED) * most:
        return 0
    top = min(rows // ROWS_IN_SUBTREE, 1 << MOST_LEVELS_ABOVE).bit_length() - 1
    if top < LEAST_LEVELS_ABOVE:
        return 0
    top = min(top, levels - 2)
    return max(0, top - (levels - top) % 2)  # the levels below are taken in pairs


def _run_paths(
    y: Array, nodes: Array, logits: Array, x: Array, weights: tuple[Any, ...], activation: int
) -> None:
    """Compute all trees; ``y``, ``nodes`` and ``logits`` without rows are not written."""
    rows, width_in = x.shape
    trees, count, _ = weights[0].shape
    width_out, levels = weights[2].shape[3], count.bit_length()
    cost = ONE_TREE if trees == 1 else MORE_TREES
    most = most_rows(max(width_in, width_out), trees * levels, trees, x.itemsize)
    top = _top(rows, trees, levels, most)
    x = writable(x)
    if not top:
        sorting = np.empty((2, 0), np.int32)
        work = cost * trees * levels * (width_in + width_out)
        stage = _numbers(0, trees, 0, levels, levels, most)
        launch(_paths, rows, work, y, nodes, logits, sorting, x, *weights, activation, stage)
        return
    sorting = np.empty((2, rows), np.int32)
    if not len(logits):
        logits = np.empty((rows, 1, levels), x.dtype)
    for tree in range(trees):
        arguments = (y, nodes, logits, sorting, x, *weights, activation)
        launch(
            _paths, rows, cost * top * width_in, *arguments, _numbers(tree, 1, 0, top, levels, most)
        )
        _sort(sorting, top)
        work = cost * ((levels - top) * width_in + levels * width_out)
        launch(_paths, rows, work, *arguments, _numbers(tree, 1, top, levels, levels, most))


def _run_gates(x: Array, gate_weights: Array, gate_bias: Array) -> tuple[Array, Array]:
    """Move all rows to their leaves.

    Returns
    -------
    logits : array of shape (B, 1, depth)
        Logits of the gates.
    sorting : array of shape (2, B)
        Leaf of each row, as a node below the gates; row numbers, in each block sorted by leaf.
    """
    rows, width = x.shape
    depth = len(gate_weights).bit_length()
    logits, sorting = np.empty((rows, 1, depth), x.dtype), np.empty((2, rows), np.int32)
    most = most_rows(width, depth, 1, x.itemsize)
    top = _top(rows, 1, depth, most)
    arguments = (logits, sorting, writable(x), gate_weights, gate_bias)
    launch(
        _gates,
        rows,
        (top or depth) * width,
        *arguments,
        _numbers(0, 1, 0, top or depth, depth, most),
    )
    _sort(sorting, top or depth)
    if top:
        launch(
            _gates, rows, (depth - top) * width, *arguments, _numbers(0, 1, top, depth, depth, most)
        )
    return logits, sorting


# --- What every backend module exports; `vectorized` documents it ---------------------------------


def path_logits(
    logits: Array,
    nodes: Array,
    x: Array,
    weights_in: Array,
    bias_in: Array,
    scale_in: Array | None,
) -> None:
    """Write the logits of the nodes that each row visits: conditional matrix multiplication."""
    nothing = np.empty((0, 1), x.dtype)
    without = np.empty((*weights_in.shape[:2], 1, 0), weights_in.dtype)
    scale_out = None if scale_in is None else scale_in[:, :, np.newaxis]
    weights = (weights_in, bias_in, without, scale_in, scale_out)
    _run_paths(nothing, nodes, logits, x, weights, 0)


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
    nothing = np.empty((0, 1, 1), x.dtype), np.empty((0, 1, 1), np.int32)
    weights = (weights_in, bias_in, weights_out, scale_in, scale_out)
    _run_paths(y, nothing[1], nothing[0], x, weights, activation)


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
    _run_paths(y, nodes, logits, x, (weights_in, bias_in, weights_out, None, None), activation)


def leaf_route(leaves: Array, x: Array, gate_weights: Array, gate_bias: Array) -> None:
    """Write the leaf that each row reaches in LeafFeedForward."""
    _, sorting = _run_gates(x, gate_weights, gate_bias)
    np.subtract(sorting[0], len(gate_weights), out=leaves)


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
    logits, sorting = _run_gates(x, gate_weights, gate_bias)
    _, width, neurons = leaf_weights_in.shape
    launch(
        _leaves,
        len(x),
        neurons * (width + y.shape[1]),
        y,
        logits,
        sorting,
        writable(x),
        leaf_weights_in,
        leaf_bias_in,
        leaf_weights_out,
        leaf_bias_out,
        leaf_scale_in,
        leaf_scale_out,
        activation,
    )
