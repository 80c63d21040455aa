"""Numba kernels for batches: rows that visit the same nodes are processed together.

`fffcpu.kernels.backends.vectorized` documents the backend functions; the bits are those of
`fffcpu.kernels.backends.rowwise`. A row descends two levels at a time. Rows of a block are sorted
by the node that they have reached. Those at one node are taken four at a time with that node and
both its children, so that each load of a weight serves four rows and each load of x three nodes::

              node n   left child   right child
    row 17      s          s             s       the row continues to one of four grandchildren,
    row 3       s          s             s       and the rows of node n are sorted by it
    row 88      s          s             s
    row 41      s          s             s

One product in three is not needed, but sharing the loads saves more. One or two remaining rows at a
node take single dot products.

A large batch does this twice, because a block of rows and its weights must fit into the cache
together::

    blocks of rows in their own order      levels 0 .. 5, whose weights (63 nodes) stay in cache
    all rows, sorted by node at level 6    one counting sort
    blocks of rows of one subtree          levels 6 .. 11, then their outputs

In a block that is sorted by leaf, four neighbours share most of their path. The rows of
``weights_out`` on that shared part are loaded once for the four outputs. In LeafFeedForward the
rows of a leaf are multiplied with its two matrices four at a time, one slice of a matrix after the
other. So all rows except the first four read a slice from the nearest cache.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.kernels.backends.gradients import path_backward, path_choices
from fffcpu.kernels.elementwise import activate_run, finished_logit, scaled
from fffcpu.kernels.jit import inner, kernel, launch, writable
from fffcpu.kernels.simd import add, fence, lanes, load_partial, may_stream, store_partial
from fffcpu.kernels.sums import dot, dots, row_products, weighted_sums

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

BLOCK_ROWS = 128
"""Rows per block: at BERT's size their x takes 384 KiB."""

ROWS_IN_SUBTREE = 48
"""Minimum average number of rows per subtree for sorting a batch by subtree."""

MOST_LEVELS_ABOVE = 6
"""Levels of a large batch that are computed before it is sorted: 63 nodes."""


SLICE_BYTES = 16 * 1024
"""Size of the slice of a leaf's matrix that all rows of the leaf use before the next slice."""


class _Descent(NamedTuple):
    """Rows on their path down one tree."""

    x: Array
    """Input rows (B, I)."""
    weights_in: Array
    """Weights (T, N, I)."""
    bias_in: Array
    """Biases (T, N)."""
    scale_in: Array | None
    """Scales of the weights (T, N) if these are int8."""
    tree: int
    """Number of the tree."""
    inclusive: bool
    """Whether a row with a logit of 0 goes right, as in LeafFeedForward."""
    logits: Array
    """Logits (B, slots, L), written."""
    slot: int
    """Slot of this tree in ``logits``."""
    reached: Array
    """Node of each row (B,), int32, changed."""
    order: Array
    """Row numbers (B,), int32, changed; those of a block are sorted by node."""


class _Scratch(NamedTuple):
    """Scratch memory of a thread."""

    products: Array
    """Dot products of four rows with three nodes."""
    sums: Array
    """Lanes of these products."""
    spare: Array
    """Row numbers of a block."""
    places: Array
    """Destination of each of four groups of rows."""


@inner
def _new_scratch(x: Array) -> _Scratch:
    return _Scratch(
        np.empty(12, x.dtype),
        np.empty(24 * lanes(x), x.dtype),
        np.empty(BLOCK_ROWS, np.int32),
        np.empty(5, np.int64),
    )


@inner
def _four_places(order: Array, first: int, last: int, width: int) -> tuple[int, int, int, int]:
    """Return the places of four sorted rows; after ``last``, that row is repeated.

    Rows are int32, and without compilation NumPy would keep a place or an address in 32 bits.
    """
    return (
        int(order[first]) * width,
        int(order[min(first + 1, last)]) * width,
        int(order[min(first + 2, last)]) * width,
        int(order[min(first + 3, last)]) * width,
    )


# --- Descending -----------------------------------------------------------------------------------


@inner
def _visit(
    logits: Array,
    row: int,
    slot: int,
    level: int,
    bias_in: Array,
    scale_in: Array | None,
    tree: int,
    node: int,
    product: Any,
    inclusive: bool,
) -> int:
    """Write a logit, and return the child that the row goes to."""
    logit = finished_logit(product, bias_in, scale_in, tree, node)
    logits[row, slot, level] = logit
    right = logit > 0 or (inclusive and logit == 0)
    return 2 * node + (2 if right else 1)


@inner
def _one_level(
    x: Array,
    weights_in: Array,
    bias_in: Array,
    scale_in: Array | None,
    tree: int,
    inclusive: bool,
    logits: Array,
    slot: int,
    reached: Array,
    order: Array,
    begin: int,
    end: int,
    level: int,
) -> None:
    """Move rows down by a level, one by one."""
    _, count, width = weights_in.shape
    for k in range(begin, end):
        row = order[k]
        node = reached[row]
        product = dot(weights_in, (tree * count + node) * width, x, row * width, width)
        reached[row] = _visit(
            logits, row, slot, level, bias_in, scale_in, tree, node, product, inclusive
        )


@inner
def _two_levels(
    x: Array,
    weights_in: Array,
    bias_in: Array,
    scale_in: Array | None,
    tree: int,
    inclusive: bool,
    logits: Array,
    slot: int,
    reached: Array,
    order: Array,
    begin: int,
    end: int,
    level: int,
    products: Array,
    sums: Array,
    upcoming: Array,
) -> None:
    """Move rows that are at one node down by two levels, four at a time.

    ``upcoming`` is what to prefetch meanwhile: the first and the last of the next rows, in sorted
    order, and the node of the next run, or -1.
    """
    _, count, width = weights_in.shape
    x_at, weights_at = x.ctypes.data, weights_in.ctypes.data
    x_bytes, weights_bytes = width * x.itemsize, width * weights_in.itemsize
    ahead1 = ahead2 = ahead3 = x_at + int(order[begin]) * x_bytes
    next_node = upcoming[2]
    if next_node >= 0:
        ahead1 = weights_at + (tree * count + next_node) * weights_bytes
        ahead2 = weights_at + (tree * count + 2 * next_node + 1) * weights_bytes
        ahead3 = ahead2 + weights_bytes
    node = reached[order[begin]]
    at = (tree * count + node) * width
    children = (tree * count + 2 * node + 1) * width
    for k in range(begin, end, 4):
        last = upcoming[1] - 1
        first = min(upcoming[0], last)
        ahead0 = x_at + int(order[first]) * x_bytes
        upcoming[0] += 1
        if k > begin or next_node < 0:
            ahead1 = x_at + int(order[min(first + 1, last)]) * x_bytes
            ahead2 = x_at + int(order[min(first + 2, last)]) * x_bytes
            ahead3 = x_at + int(order[min(first + 3, last)]) * x_bytes
            upcoming[0] += 3
        dots(
            products,
            sums,
            x,
            _four_places(order, k, end - 1, width),
            weights_in,
            (at, children, children + width),
            width,
            (ahead0, ahead1, ahead2, ahead3),
        )
        for i in range(min(4, end - k)):
            row, product = order[k + i], products[3 * i]
            child = _visit(
                logits, row, slot, level, bias_in, scale_in, tree, node, product, inclusive
            )
            product = products[3 * i + child - 2 * node]
            reached[row] = _visit(
                logits, row, slot, level + 1, bias_in, scale_in, tree, child, product, inclusive
            )


@inner
def _sort_run(
    order: Array, begin: int, end: int, reached: Array, first: int, spare: Array, places: Array
) -> None:
    """Sort a run of rows by the node they reached, one of four from ``first`` on; stable."""
    places[:] = 0
    for k in range(begin, end):
        spare[k - begin] = order[k]
        places[reached[order[k]] - first + 1] += 1
    places[0] = begin
    for way in range(1, 4):
        places[way] += places[way - 1]
    for k in range(end - begin):
        way = reached[spare[k]] - first
        order[places[way]] = spare[k]
        places[way] += 1


@inner
def _run_end(reached: Array, order: Array, begin: int, end: int) -> int:
    """Return the end of the run of sorted rows that are at the node of the row at ``begin``."""
    node = reached[order[begin]]
    stop = begin + 1
    while stop < end and reached[order[stop]] == node:
        stop += 1
    return stop


@inner
def _descend_block(
    descent: _Descent, begin: int, end: int, limit: int, first: int, last: int, scratch: _Scratch
) -> None:
    """Move a block of sorted rows from level ``first`` to level ``last``, and keep it sorted.

    Level ``last`` may be the one below the tree's last. A row is then at the child that it would
    have gone to.
    """
    # Unpacked once: each access to a tuple counts references of arrays.
    x, weights_in, bias_in, scale_in, tree, inclusive, logits, slot, reached, order = descent
    products, sums, spare, places = scratch
    upcoming = np.empty(3, np.int64)
    upcoming[0], upcoming[1] = min(end, limit - 1), min(2 * end - begin, limit)
    level = first
    while level < last:
        single = (last - level) % 2
        run = begin
        while run < end:
            stop = _run_end(reached, order, run, end)
            node = reached[order[run]]
            # One or two remaining rows are faster alone.
            paired = stop - (stop - run) % 4 if (stop - run) % 4 < 3 else stop
            paired = run if single else paired
            if run < paired:
                upcoming[2] = reached[order[stop]] if stop < end else -1
                _two_levels(
                    x,
                    weights_in,
                    bias_in,
                    scale_in,
                    tree,
                    inclusive,
                    logits,
                    slot,
                    reached,
                    order,
                    run,
                    paired,
                    level,
                    products,
                    sums,
                    upcoming,
                )
            for below in range(level, level + 2 - single):
                _one_level(
                    x,
                    weights_in,
                    bias_in,
                    scale_in,
                    tree,
                    inclusive,
                    logits,
                    slot,
                    reached,
                    order,
                    paired,
                    stop,
                    below,
                )
            first_below = 2 * node + 1 if single else 4 * node + 3
            _sort_run(order, run, stop, reached, first_below, spare, places)
            run = stop
        level += 2 - single


@kernel
def _sort(sorting: Array, top: int) -> None:
    """Sort all rows by the node that they reached at level ``top``; stable."""
    reached, order = sorting[0], sorting[1]
    first = (1 << top) - 1
    places = np.zeros((1 << top) + 1, np.int64)
    for row in range(reached.size):
        places[reached[row] - first + 1] += 1
    for k in range(1, places.size):
        places[k] += places[k - 1]
    for row in range(reached.size):
        k = reached[row] - first
        order[places[k]] = row
        places[k] += 1


@inner
def _start(reached: Array, order: Array, first: int, start: int, stop: int) -> None:
    """Put rows that start at the root, and not at level ``first``, into their own order."""
    if first == 0:
        for row in range(start, stop):
            reached[row] = 0
            order[row] = row


@inner
def _next_block(descent: _Descent, begin: int, stop: int, first: int) -> int:
    """Return the end of the block from ``begin``: rows of one node at level ``first``."""
    end = min(begin + BLOCK_ROWS, stop)
    if first > 0:
        return _run_end(descent.reached, descent.order, begin, end)
    return end


# --- FastFeedForward ------------------------------------------------------------------------------


@inner
def _path_outputs(
    y: Array,
    descent: _Descent,
    begin: int,
    end: int,
    weights_out: Array,
    scale_out: Array | None,
    activation: int,
    active: Array,
    offsets: Array,
    shared: Array,
) -> None:
    """Write the outputs of a block of rows that is sorted by leaf and has passed its leaf.

    Parameters
    ----------
    active, offsets : arrays of shape (BLOCK_ROWS * L,), written
        Activations, and the start of the nodes' output weights, by sorted row and level.
    shared : array of shape (BLOCK_ROWS // 4,), written
        Number of nodes that four neighbours have in common.
    """
    _, count, width = weights_out.shape
    _, slots, levels = descent.logits.shape
    order, reached, logits = descent.order, descent.reached, descent.logits
    tree, slot = descent.tree, descent.slot
    padded = begin + (end - begin + 3) // 4 * 4
    for k in range(begin, padded):
        row, first = order[min(k, end - 1)], (k - begin) * levels
        activate_run(active, first, logits, (row * slots + slot) * levels, levels, activation)
        for level in range(levels):
            node = ((reached[row] + 1) >> (levels - level)) - 1
            offsets[first + level] = (tree * count + node) * width
            active[first + level] = scaled(active[first + level], scale_out, tree, node)
    for k in range(0, padded - begin, 4):
        # Sorted rows share the nodes that the first and the last share.
        common, first, last = 0, k * levels, (k + 3) * levels
        while common < levels and offsets[first + common] == offsets[last + common]:
            common += 1
        shared[k // 4] = common
    y_at, y_bytes, weights_at = y.ctypes.data, width * y.itemsize, weights_out.ctypes.data
    streamed = may_stream(y) and len(weights_out) == 1  # further trees would read y again
    ahead = np.empty(4, np.int64)
    for k in range(begin, end, 4):
        ahead[:] = weights_at + offsets[(k - begin) * levels] * weights_out.itemsize
        new = 0
        for j in range(k + 4, min(k + 8, end)):
            place = (j - begin) * levels
            for level in range(levels - 1, 0, -1):
                if new == 4 or offsets[place + level] == offsets[place + level - levels]:
                    break
                ahead[new] = weights_at + offsets[place + level] * weights_out.itemsize
                new += 1
        next0, next1, next2, next3 = _four_places(order, min(k + 4, end - 1), end - 1, y_bytes)
        weighted_sums(
            y,
            _four_places(order, k, end - 1, width),
            active,
            weights_out,
            offsets,
            (k - begin) * levels,
            shared[(k - begin) // 4],
            levels,
            0,
            width,
            tree > 0,
            streamed,
            (ahead[0], ahead[1], ahead[2], ahead[3]),
            (y_at + next0, y_at + next1, y_at + next2, y_at + next3),
        )


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
    tree: int,
    first: int,
    last: int,
    start: int,
    stop: int,
) -> None:
    """Move sorted rows from level ``first`` to ``last``; past their leaves, write the outputs.

    ``sorting`` (2, B) holds the node that each row has reached, then the sorted row numbers.
    """
    reached, order, slot = sorting[0], sorting[1], tree % logits.shape[1]
    descent = _Descent(x, weights_in, bias_in, scale_in, tree, False, logits, slot, reached, order)
    scratch = _new_scratch(x)
    levels = logits.shape[2]
    active = np.empty(BLOCK_ROWS * levels, x.dtype)
    offsets, shared = np.empty(BLOCK_ROWS * levels, np.int64), np.empty(BLOCK_ROWS // 4, np.int64)
    _start(reached, order, first, start, stop)
    begin = start
    while begin < stop:
        end = _next_block(descent, begin, stop, first)
        _descend_block(descent, begin, end, stop, first, last, scratch)
        if last == levels and len(y):
            _path_outputs(
                y,
                descent,
                begin,
                end,
                weights_out,
                scale_out,
                activation,
                active,
                offsets,
                shared,
            )
        if last == levels and len(nodes):
            for k in range(begin, end):
                row = order[k]
                for level in range(levels):
                    nodes[row, slot, level] = ((reached[row] + 1) >> (levels - level)) - 1
        begin = end
    fence()


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
    vectors, active = x.reshape(-1), hidden.reshape(-1)
    slice_rows = max(16, SLICE_BYTES // (neurons * x.itemsize))
    for first in range(0, width_in, slice_rows):
        for k in range(0, rows.size, 4):
            k1, k2, k3 = min(k + 1, last), min(k + 2, last), min(k + 3, last)
            x0, x1, x2, x3 = _four_places(rows, k, last, width_in)
            row_products(
                hidden,
                (k * neurons, k1 * neurons, k2 * neurons, k3 * neurons),
                vectors,
                (x0 + first, x1 + first, x2 + first, x3 + first),
                leaf_weights_in,
                (leaf * width_in + first) * neurons,
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
            logit = finished_logit(hidden[k, neuron], leaf_bias_in, leaf_scale_in, leaf, neuron)
            hidden[k, neuron] = logit if finite else math.nan
        activate_run(active, k * neurons, active, k * neurons, neurons, activation)
        for neuron in range(neurons):
            hidden[k, neuron] = scaled(hidden[k, neuron], leaf_scale_out, leaf, neuron)
    step = lanes(y)
    slice_columns = max(1, SLICE_BYTES // (neurons * x.itemsize) // (2 * step)) * 2 * step
    for start in range(0, width_out, slice_columns):
        stop = min(start + slice_columns, width_out)
        for k in range(0, rows.size, 4):
            k1, k2, k3 = min(k + 1, last), min(k + 2, last), min(k + 3, last)
            row_products(
                y,
                _four_places(rows, k, last, width_out),
                active,
                (k * neurons, k1 * neurons, k2 * neurons, k3 * neurons),
                leaf_weights_out,
                leaf * neurons * width_out,
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
                bias = load_partial(leaf_bias_out, leaf * width_out + column, left)
                store_partial(y, at, add(load_partial(y, at, left), bias), left)


@kernel
def _gates(
    logits: Array,
    sorting: Array,
    x: Array,
    gate_weights: Array,
    gate_bias: Array,
    first: int,
    last: int,
    start: int,
    stop: int,
) -> None:
    """Move sorted rows from level ``first`` to ``last``; ``sorting`` is that of `_paths`."""
    reached, order = sorting[0], sorting[1]
    descent = _Descent(x, gate_weights, gate_bias, None, 0, True, logits, 0, reached, order)
    scratch = _new_scratch(x)
    _start(reached, order, first, start, stop)
    begin = start
    while begin < stop:
        end = _next_block(descent, begin, stop, first)
        _descend_block(descent, begin, end, stop, first, last, scratch)
        begin = end


@kernel
def _leaves(
    y: Array,
    logits: Array,
    sorting: Array,
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
    first: int,
    start: int,
    stop: int,
) -> None:
    """Move sorted rows from level ``first`` to their leaves, and write their outputs."""
    reached, order = sorting[0], sorting[1]
    descent = _Descent(x, gate_weights, gate_bias, None, 0, True, logits, 0, reached, order)
    scratch = _new_scratch(x)
    gates = gate_weights.shape[1]
    hidden = np.empty((BLOCK_ROWS, leaf_weights_in.shape[2]), x.dtype)
    _start(reached, order, first, start, stop)
    begin = start
    while begin < stop:
        end = _next_block(descent, begin, stop, first)
        _descend_block(descent, begin, end, stop, first, logits.shape[2], scratch)
        run = begin
        while run < end:
            after = _run_end(reached, order, run, end)
            _leaf_outputs(
                y,
                x,
                order[run:after],
                reached[order[run]] - gates,
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
            run = after
        begin = end


# --- Whole batches --------------------------------------------------------------------------------


def _top(rows: int, levels: int) -> int:
    """Return the level by whose nodes a batch is sorted; 0 if it is not sorted."""
    top = min(rows // ROWS_IN_SUBTREE, 1 << MOST_LEVELS_ABOVE).bit_length() - 1
    if top < 2:
        return 0
    top = min(top, levels - 2)
    return max(0, top - (levels - top) % 2)  # the levels below are taken in pairs


def _run_paths(
    y: Array, nodes: Array, logits: Array, x: Array, weights: tuple[Any, ...], activation: int
) -> None:
    """Descend tree by tree; ``y`` or ``nodes`` without rows are not written."""
    rows, _, levels = logits.shape
    width_in, width_out = x.shape[1], weights[2].shape[2]
    sorting = np.empty((2, rows), np.int32)
    top = _top(rows, levels)
    for tree in range(len(weights[0])):
        arguments = (y, nodes, logits, sorting, writable(x), *weights, activation, tree)
        if top:
            launch(_paths, rows, top * width_in, *arguments, 0, top)
            _sort(sorting, top)
        work = (levels - top) * width_in + levels * width_out
        launch(_paths, rows, work, *arguments, top, levels)


def _descend_gates(x: Array, gate_weights: Array, gate_bias: Array) -> tuple[int, tuple[Any, ...]]:
    """Sort a large batch by the gates near the root.

    Returns
    -------
    level : int
        Level that rows have reached, and by which they are sorted.
    arguments : tuple
        Arguments of the kernels that continue from there: logits, sorting, x and the gates.
    """
    rows, depth = len(x), len(gate_weights).bit_length()
    logits, sorting = np.empty((rows, 1, depth), x.dtype), np.empty((2, rows), np.int32)
    gates = (gate_weights[np.newaxis], gate_bias[np.newaxis])
    arguments = (logits, sorting, writable(x), *gates)
    top = _top(rows, depth)
    if top:
        launch(_gates, rows, top * x.shape[1], *arguments, 0, top)
        _sort(sorting, top)
    return top, arguments


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
    weights = (weights_in, bias_in, weights_in[:, :, :0].copy(), scale_in, scale_in)
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
    logits = np.empty((len(x), 1, weights_in.shape[1].bit_length()), x.dtype)
    nodes = np.empty((0, 1, 1), np.int32)
    weights = (weights_in, bias_in, weights_out, scale_in, scale_out)
    _run_paths(y, nodes, logits, x, weights, activation)


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
    top, arguments = _descend_gates(x, gate_weights, gate_bias)
    logits, sorting, *_ = arguments
    rows, _, depth = logits.shape
    launch(_gates, rows, (depth - top) * x.shape[1], *arguments, top, depth)
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
    top, arguments = _descend_gates(x, gate_weights, gate_bias)
    _, width, neurons = leaf_weights_in.shape
    work = (len(gate_weights).bit_length() - top) * width + neurons * (width + y.shape[1])
    launch(
        _leaves,
        len(x),
        work,
        y,
        *arguments,
        leaf_weights_in,
        leaf_bias_in,
        leaf_weights_out,
        leaf_bias_out,
        leaf_scale_in,
        leaf_scale_out,
        activation,
        top,
    )
