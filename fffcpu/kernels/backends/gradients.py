"""The sparse backward of FastFeedForward: gradients of the nodes that rows visited, and no others.

The value of a choice at these nodes compares the path that a row took with the path that it did not
take: from each of its nodes the row descends once more, by the other child.

Rows are sorted by the last node of their path, which sorts them by node at every level. They are
processed in two steps; no two threads ever write the same memory.

The first step takes blocks of rows that stay in cache (`fffcpu.kernels.blocks`). It computes the
gradients of their logits and their ``dx``, four sorted rows at a time: neighbours share most of
their path, and the weights on it are loaded once for all four.

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

from fffcpu.kernels.blocks import (
    copy_rows,
    equal_blocks,
    float_count,
    integer_count,
    most_rows,
    new_space,
    tree_outputs,
)
from fffcpu.kernels.descent import (
    TILE,
    Block,
    Runs,
    Tree,
    descend,
    follow,
    four_rows,
    start_runs,
    write_reached,
)
from fffcpu.kernels.elementwise import activate_run, backpropagate_run, density_run
from fffcpu.kernels.jit import inner, kernel, launch, writable
from fffcpu.kernels.simd import fence, keep, may_stream, pointer
from fffcpu.kernels.sums import dot, dots, outer_sums, weighted_sum

__all__ = ["path_backward", "path_choices"]

Array = NDArray[Any]
Pointer = Any

BLOCK_COLUMNS = 64
BLOCK_ROWS = 128
"""The second step takes blocks of 128 x 64 elements (32 KiB in float32) through all levels, so
that x and dy come from the nearest cache at all levels except the first."""


@inner
def _run_end(nodes: Pointer, begin: int, limit: int, shift: int) -> int:
    """Return the end of the run of sorted rows with the same node as ``begin`` at a level.

    The node of a row ``shift`` levels above its node m of ``nodes`` is ``((m + 1) >> shift) - 1``.
    """
    node = (nodes[begin] + 1) >> shift
    end = begin + 1
    while end < limit and (nodes[end] + 1) >> shift == node:
        end += 1
    return end


# --- First step: gradients of logits, and dx ------------------------------------------------------


@inner
def _shares(
    shares: Pointer,
    stride: int,
    first: int,
    levels: int,
    dy: Pointer,
    weights_out: Pointer,
    sides: int,
    opposite: int,
    width: int,
    order: Pointer,
    reached: Pointer,
    count: int,
    products: Pointer,
) -> None:
    """Write ``dy . weights_out`` for the nodes of sorted rows from level ``first`` on.

    Three levels are taken together: rows that have the same node at the lowest of the three, and
    the same side of it, share the other two. The share of row k at level l goes to place
    ``k * stride + l - first``. ``order`` and ``reached`` are those of
    `fffcpu.kernels.blocks.Paths`, for one tree of ``count`` rows. ``opposite`` is 1 for
    the weights of the sides that were not taken, else 0.
    """
    level = first
    while level < levels:
        together = min(3, levels - level)
        shift = levels + 2 - sides - level - together
        begin = 0
        while begin < count:
            end = _run_end(reached, begin, count, shift)
            # Rows of weights, numbered as in `fffcpu.kernels.blocks.tree_outputs`.
            low = (int(reached[begin]) + 1) >> shift
            middle = low >> 1 if together > 1 else low
            high = middle >> 1 if together > 2 else middle
            places = (
                ((high ^ opposite) - sides) * width,
                ((middle ^ opposite) - sides) * width,
                ((low ^ opposite) - sides) * width,
            )
            for k in range(begin, end, 4):
                last = min(k + 4, end) - 1
                row0, row1, row2, row3 = four_rows(order, k, last)
                if last == k:
                    for j in range(together):
                        at = places[3 - together + j]
                        product = dot(weights_out, at, dy, row0 * width, width)
                        shares[row0 * stride + level - first + j] = product
                    continue
                dots(
                    products,
                    pointer(products, TILE),
                    dy,
                    (row0 * width, row1 * width, row2 * width, row3 * width),
                    weights_out,
                    places,
                    width,
                )
                for i in range(4):
                    row = row0 if i == 0 else row1 if i == 1 else row2 if i == 2 else row3
                    for j in range(together):
                        place = row * stride + level - first + j
                        shares[place] = products[3 * i + 3 - together + j]
            begin = end
        level += together


@inner
def _sort_rows(
    nodes: Array,
    logits: Array,
    begin: int,
    slot: int,
    sides: int,
    order: Pointer,
    reached: Pointer,
    count: int,
    runs: Runs,
) -> None:
    """Sort a block by the paths of its rows, from row ``begin`` on, through tree ``slot``."""
    _, trees, levels = logits.shape
    visits = trees * levels
    last = begin * visits + slot * levels + levels - 1
    leaves, own = pointer(nodes, last), pointer(logits, last)
    follow(leaves, own, visits, order, reached, count, runs, levels, sides)


@inner
def _start_across(runs: Runs, reached: Pointer, count: int, below: int) -> int:
    """Write runs of sorted rows that start at the siblings of their nodes, ``below`` levels up.

    Returns their number.
    """
    for k in range(count):
        node = ((int(reached[k]) + 1) >> below) - 1
        runs.ways[k] = node + 1 if node % 2 else node - 1
    return start_runs(runs, count)


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
    most: int,
    start: int,
    stop: int,
) -> None:
    """Run `path_choices` for some rows, in blocks of up to ``most``."""
    _, nodes_of_tree, width_in = weights_in.shape
    _, _, sides, width_out = weights_out.shape
    _, trees, levels = logits.shape
    visits = trees * levels
    capacity = equal_blocks(stop - start, most)
    floats = np.empty(float_count(capacity, width_in, visits), x.dtype)
    integers = np.empty(integer_count(capacity, 2), np.int32)
    space = new_space(capacity, width_in, 2, floats, integers)
    paths = space.paths
    order, across = paths.order, pointer(paths.order, capacity)
    reached, reached_across = paths.reached, pointer(paths.reached, capacity)
    block_dy = np.empty(capacity * width_out, x.dtype)
    scratch = np.empty(((2 + sides) * levels + 1) * capacity, x.dtype)
    upstream, taken = pointer(block_dy, 0), pointer(scratch, 0)
    own_shares = pointer(scratch, capacity)
    active, shares = (
        pointer(scratch, (levels + 1) * capacity),
        pointer(scratch, (2 * levels + 1) * capacity),
    )
    other_shares = pointer(scratch, (3 * levels + 1) * capacity)  # of two-sided trees
    for begin in range(start, stop, capacity):
        count = min(capacity, stop - begin)
        for k in range(count):
            paths.rows[k] = begin + k
        copy_rows(space.x, pointer(x, 0), paths.rows, count, width_in)
        copy_rows(upstream, pointer(dy, 0), paths.rows, count, width_out)
        here = begin * visits
        activate_run(paths.visits, 0, logits, here, count * visits, activation, sides == 2)
        for slot in range(trees):
            at = slot * nodes_of_tree
            tree = Tree(
                pointer(weights_in, at * width_in), pointer(bias_in, at), None, width_in, None
            )
            outer = pointer(weights_out, at * sides * width_out)
            _sort_rows(nodes, logits, begin, slot, sides, order, reached, count, space.runs)
            for opposite in range(sides):
                _shares(
                    other_shares if opposite else own_shares,
                    levels,
                    0,
                    levels,
                    upstream,
                    outer,
                    sides,
                    opposite,
                    width_out,
                    order,
                    reached,
                    count,
                    space.products,
                )
            for k in range(count):
                taken[k] = 0
            for level in range(levels - 1, -1, -1):
                below = levels - 1 - level
                if below > 0:
                    for k in range(count):
                        across[k] = order[k]
                    number = _start_across(space.runs, reached, count, below)
                    block = Block(space.x, count, active, below, level + 1, across, space.products)
                    number = descend(tree, block, space.runs, number, level + 1, levels)
                    write_reached(space.runs, number, reached_across)
                    activate_run(active, 0, active, 0, count * below, activation, sides == 2)
                    _shares(
                        shares,
                        below,
                        level + 1,
                        levels,
                        upstream,
                        outer,
                        sides,
                        0,
                        width_out,
                        across,
                        reached_across,
                        count,
                        space.products,
                    )
                for k in range(count):
                    aside = dy.dtype.type(0)
                    for j in range(below - 1, -1, -1):
                        aside += active[k * below + j] * shares[k * below + j]
                    own = paths.visits[k * visits + slot * levels + level]
                    before = taken[k]
                    taken[k] += own * own_shares[k * levels + level]
                    if sides == 2:  # a choice also decides on the node's own output
                        before = taken[k]
                        aside += own * other_shares[k * levels + level]
                    better = before - aside if math.isfinite(aside) else 0 * before
                    right = logits[begin + k, slot, level] > 0
                    d_logits[begin + k, slot, level] = better if right else -better
        density_run(d_logits, here, logits, here, count * visits)
    keep(floats)
    keep(integers)
    keep(block_dy)
    keep(scratch)


@kernel
def _path_deltas(
    dx: Array,
    delta: Array,
    active: Array,
    dy: Array,
    logits: Array,
    nodes: Array,
    d_logits: Array,
    places: Array,
    weights_in: Array,
    weights_out: Array,
    activation: int,
    most: int,
    start: int,
    stop: int,
) -> None:
    """First step: write dx, and write logit gradients and activations in sorted order.

    ``delta`` and ``active`` have shape (T, L, B), and ``places`` (T, B) holds the place of each row
    in the order of each tree.
    """
    _, nodes_of_tree, width_in = weights_in.shape
    _, _, sides, width_out = weights_out.shape
    _, trees, levels = logits.shape
    visits = trees * levels
    capacity = equal_blocks(stop - start, most)
    floats = np.empty(float_count(capacity, width_out, visits), dx.dtype)
    integers = np.empty(integer_count(capacity, trees), np.int32)
    space = new_space(capacity, width_out, trees, floats, integers)
    paths = space.paths
    own, offsets = np.empty(capacity * visits, dx.dtype), np.empty(4 * levels, np.int64)
    streamed = may_stream(dx) and trees == 1  # further trees would read dx again
    chosen = d_logits.shape[2] > 0
    added = pointer(d_logits, 0)
    for begin in range(start, stop, capacity):
        count = min(capacity, stop - begin)
        here = begin * visits
        for k in range(count):
            paths.rows[k] = begin + k
        copy_rows(space.x, pointer(dy, 0), paths.rows, count, width_out)
        for slot in range(trees):
            order = pointer(paths.order, slot * capacity)
            reached = pointer(paths.reached, slot * capacity)
            _sort_rows(nodes, logits, begin, slot, sides, order, reached, count, space.runs)
            outer = pointer(weights_out, slot * nodes_of_tree * sides * width_out)
            shares = pointer(paths.visits, slot * levels)
            _shares(
                shares,
                visits,
                0,
                levels,
                space.x,
                outer,
                sides,
                0,
                width_out,
                order,
                reached,
                count,
                space.products,
            )
        backpropagate_run(paths.visits, 0, logits, here, count * visits, activation, sides == 2)
        if chosen:
            for k in range(count * visits):
                paths.visits[k] += added[here + k]
        activate_run(own, 0, logits, here, count * visits, activation, sides == 2)
        for k in range(count):
            for slot in range(trees):
                place = places[slot, begin + k]
                for level in range(levels):
                    visit = k * visits + slot * levels + level
                    delta[slot, level, place] = paths.visits[visit]
                    active[slot, level, place] = own[visit]
        for slot in range(trees):
            tree_outputs(
                pointer(dx, 0),
                width_in,
                paths,
                slot,
                (trees, levels),
                pointer(weights_in, slot * nodes_of_tree * width_in),
                1,
                pointer(offsets, 0),
                count,
                slot > 0,
                streamed,
            )
    fence()
    keep(floats)
    keep(integers)
    keep(offsets)


# --- Second step: gradients of parameters ---------------------------------------------------------


@inner
def _gradient_row(places: Array, first: int, number: int, sides: int) -> int:
    """Return the row of a gradient for a row of weights, numbered from ``sides`` on.

    ``first`` is the number of the tree's root among all nodes. Numbers of rows are those of
    `fffcpu.kernels.blocks.tree_outputs`.
    """
    row = number - sides
    if sides == 1:
        return int(places[first + row])
    return 2 * int(places[first + (row >> 1)]) + (row & 1)


@kernel
def _path_gradients(
    d_weights: Array,
    factors: Array,
    vectors: Array,
    offsets: Array,
    reached: Array,
    places: Array,
    start: int,
    stop: int,
) -> None:
    """Second step: d_weights[place of node, side] = sum over its rows of factor * vector.

    Parameters
    ----------
    d_weights : array of shape (R, S, width), zeros, written
        With S = 2, a node has one row for each side.
    factors : array of shape (T, L, B)
        In sorted order of rows, like ``offsets`` and ``reached``.
    vectors : array of shape (B, width)
    offsets : int64 array of shape (T * B,)
        Start of the rows of ``vectors``.
    reached : int32 array of shape (T, B)
        A child of the last node of each row's path, as `fffcpu.kernels.descent.follow` writes it.
    places : int64 array of shape (T * N,)
        Row of ``d_weights`` for each node.
    start, stop : int
        Range of tasks; the task number is block * T + tree.
    """
    trees, levels, rows = factors.shape
    count = places.size // trees
    _, sides, width = d_weights.shape
    sums, terms, rows_of = pointer(d_weights, 0), pointer(vectors, 0), pointer(offsets, 0)
    for task in range(start, stop):
        tree = task % trees
        own, children = pointer(factors, tree * levels * rows), pointer(reached, tree * rows)
        column = task // trees * BLOCK_COLUMNS
        end_column = min(column + BLOCK_COLUMNS, width)
        for first in range(0, rows, BLOCK_ROWS):
            limit = min(first + BLOCK_ROWS, rows)
            level = 0
            while level < levels:
                together = 3 if levels - level >= 3 else 1
                shift = levels + 2 - sides - level - together
                begin = first
                while begin < limit:
                    end = _run_end(children, begin, limit, shift)
                    low = (int(children[begin]) + 1) >> shift
                    at = level * rows + begin
                    if together == 3:
                        outer_sums(
                            sums,
                            (
                                _gradient_row(places, tree * count, low >> 2, sides) * width,
                                _gradient_row(places, tree * count, low >> 1, sides) * width,
                                _gradient_row(places, tree * count, low, sides) * width,
                            ),
                            own,
                            (at, at + rows, at + 2 * rows),
                            terms,
                            rows_of,
                            tree * rows + begin,
                            end - begin,
                            column,
                            end_column,
                        )
                    else:
                        weighted_sum(
                            sums,
                            _gradient_row(places, tree * count, low, sides) * width,
                            own,
                            at,
                            terms,
                            rows_of,
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
        most_rows(x.shape[1] + dy.shape[1], (trees + 3) * levels + 1, 2, x.itemsize),
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
    # A child of the last node, which at two sides is that of the side taken.
    children = 2 * nodes[:, :, -1].T + 1
    if weights_out.shape[2] == 2:
        children += logits[:, :, -1].T > 0
    # NumPy sorts numbers of 16 bits by their bits, and others by comparing them.
    count = len(places) // trees
    keys = (children - count).astype(np.uint16) if count < 1 << 16 else children
    order = np.argsort(keys, axis=1, kind="stable")
    reached = np.take_along_axis(children, order, axis=1)
    sorted_places = np.empty_like(order)
    np.put_along_axis(sorted_places, order, np.arange(rows)[np.newaxis], axis=1)
    delta = np.empty((trees, levels, rows), x.dtype)
    active = np.empty((trees, levels, rows), x.dtype)
    launch(
        _path_deltas,
        rows,
        trees * levels * (x.shape[1] + dy.shape[1]),
        dx,
        delta,
        active,
        dy,
        logits,
        nodes,
        d_logits,
        sorted_places,
        weights_in,
        weights_out,
        activation,
        most_rows(max(x.shape[1], dy.shape[1]), 2 * trees * levels, trees, x.itemsize),
    )

    ones = np.ones((rows, 1), x.dtype)
    for d_weights, factors, vectors in (
        (d_weights_in[:, np.newaxis], delta, x),
        (d_bias_in[:, np.newaxis, np.newaxis], delta, ones),
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
            reached,
            places,
        )
