"""A block of rows descends one tree; rows that are at the same node share the loads of its weights.

The rows of a block are copied side by side, aligned, so that they stay in the L2 cache while all
levels of all trees read them. They are sorted by the node that they have reached, so that those at
one node are a *run* of the sorted rows. A run descends two levels at a time, four rows by a node
and its two children: each load of a weight serves four rows, and each load of x three nodes::

              node n   left child   right child
    row 17      s          s             s       the row continues to one of four grandchildren,
    row 3       s          s             s       and the run is sorted by them into up to four runs
    row 88      s          s             s
    row 41      s          s             s

One product in three is not needed, but sharing the loads saves more. One or two remaining rows of a
run take single dot products, and so do all rows at the first of an odd number of levels.

Everything here is a pointer (`fffcpu.kernels.simd.pointer`), also in named tuples: arrays would
count references at each call.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

from fffcpu.kernels.elementwise import finished_logit, side_taken
from fffcpu.kernels.jit import inner
from fffcpu.kernels.simd import pointer
from fffcpu.kernels.sums import Four, dot, dots

__all__ = [
    "MORE_ROWS",
    "PRODUCTS",
    "RUN_ARRAYS",
    "TILE",
    "Block",
    "Runs",
    "Tree",
    "descend",
    "follow",
    "four_rows",
    "new_runs",
    "start_runs",
    "write_reached",
]

Array = NDArray[Any]
Pointer = Any

RUN_ARRAYS = 6
"""Number of arrays of `Runs`; each holds one int32 per row, and `MORE_ROWS` more."""

MORE_ROWS = 1
"""For the end of the last run, and for the way of a row that pads four of them."""

TILE = 16
"""Size of the array of twelve products."""


PRODUCTS = TILE + 24 * 16
"""Size of a block's scratch for twelve products and the lanes of their sums, 16 in float32."""


class Tree(NamedTuple):
    """The input weights of one tree."""

    weights: Pointer
    """Weights (N, I)."""
    bias: Pointer
    """Biases (N,)."""
    scale: Pointer
    """Scales of the weights (N,), or None unless these are int8."""
    width: int
    """Input width I."""
    ties_right: Any
    """True if a row with a logit of 0 goes right, as in LeafFeedForward; None if it goes left.
    Numba compiles a version for None, and one for anything else."""


class Block(NamedTuple):
    """Rows that descend together."""

    x: Pointer
    """Input rows (n, I), side by side."""
    rows: int
    """Number of rows n, at most 65,535: places of rows take 16 bits."""
    logits: Pointer
    """Logits, written: that of row k at level l is at place ``k * stride + l - above``."""
    stride: int
    """Distance between the logits of two rows."""
    above: int
    """Number of levels above the first whose logits are kept."""
    order: Pointer
    """Numbers of the rows (n,), int32, sorted by the node that each has reached."""
    products: Pointer
    """Scratch of `PRODUCTS` numbers of the dtype of x."""


class Runs(NamedTuple):
    """Runs of sorted rows at one node, and scratch for making the next ones: int32 pointers."""

    nodes: Pointer
    """Node of each run."""
    begins: Pointer
    """Place of each run's first row in the order, then the number of rows."""
    next_nodes: Pointer
    """``nodes`` of the next runs."""
    next_begins: Pointer
    """``begins`` of the next runs."""
    next_order: Pointer
    """Row numbers, sorted by the next nodes."""
    ways: Pointer
    """Way that each sorted row continues: 0 to 3, one for each grandchild. `start_runs` takes its
    node from here."""


@inner
def new_runs(integers: Pointer, rows: int) -> Any:
    """Return scratch for blocks of up to ``rows`` rows in int32 ``integers``."""
    size = rows + MORE_ROWS
    return Runs(
        pointer(integers, 0),
        pointer(integers, size),
        pointer(integers, 2 * size),
        pointer(integers, 3 * size),
        pointer(integers, 4 * size),
        pointer(integers, 5 * size),
    )


@inner
def four_rows(order: Pointer, first: int, last: int) -> Four:
    """Return four numbers from place ``first`` on; after ``last``, that one is repeated.

    They are int32, and without compilation NumPy would keep a place made of one in 32 bits.
    """
    return (
        int(order[first]),
        int(order[min(first + 1, last)]),
        int(order[min(first + 2, last)]),
        int(order[min(first + 3, last)]),
    )


@inner
def start_runs(runs: Runs, count: int) -> int:
    """Write the runs of ``count`` sorted rows, whose nodes are in ``runs.ways``.

    Returns their number.
    """
    number = 0
    for k in range(count):
        node = runs.ways[k]
        if k == 0 or node != runs.nodes[number - 1]:
            runs.nodes[number], runs.begins[number] = node, k
            number += 1
    runs.begins[number] = count
    return number


@inner
def _is_right(logit: Any, ties_right: Any) -> int:
    """Return 1 if a row with this logit goes right, else 0."""
    if ties_right is None:
        return 1 if logit > 0 else 0
    return 1 if logit >= 0 else 0


@inner
def _alone(
    tree: Tree,
    block: Block,
    ways: Pointer,
    begin: int,
    end: int,
    node: int,
    level: int,
    levels: int,
) -> None:
    """Move sorted rows at one node down by one level or two, each by itself."""
    width = tree.width
    for k in range(begin, end):
        row, way, own = int(block.order[k]), 0, node
        for below in range(levels):
            product = dot(tree.weights, own * width, block.x, row * width, width)
            logit = finished_logit(product, tree.bias, tree.scale, own)
            block.logits[row * block.stride + level - block.above + below] = logit
            right = _is_right(logit, tree.ties_right)
            way, own = 2 * way + right, 2 * own + 1 + right
        ways[k] = way


@inner
def _together(
    tree: Tree, block: Block, ways: Pointer, begin: int, end: int, node: int, level: int
) -> None:
    """Move sorted rows at one node down by two levels, four at a time."""
    weights, bias, scale, width, ties_right = tree
    x, _, logits, stride, above, order, products = block
    child = 2 * node + 1
    bias_here, bias_below = pointer(bias, node), pointer(bias, child)
    scale_here, scale_below = pointer(scale, node), pointer(scale, child)
    last = end - 1
    for k in range(begin, end, 4):
        row0, row1, row2, row3 = four_rows(order, k, last)
        dots(
            products,
            pointer(products, TILE),
            x,
            (row0 * width, row1 * width, row2 * width, row3 * width),
            weights,
            (node * width, child * width, (child + 1) * width),
            width,
        )
        # All four, so that no loop is needed: those after the end are repeated.
        for i in range(4):
            row = row0 if i == 0 else row1 if i == 1 else row2 if i == 2 else row3
            at = row * stride + level - above
            logit = finished_logit(products[3 * i], bias_here, scale_here, 0)
            right = _is_right(logit, ties_right)
            logits[at] = logit
            logit = finished_logit(products[3 * i + 1 + right], bias_below, scale_below, right)
            logits[at + 1] = logit
            ways[k + i] = 2 * right + _is_right(logit, ties_right)


@inner
def _split(runs: Runs, order: Pointer, begin: int, end: int, first: int, new: int) -> int:
    """Sort a run by the ways of its rows, into new runs at nodes from ``first`` on; stable.

    Returns the number of new runs: ``new``, and those of this run. Four numbers of 16 bits, one for
    each way, are counted in one of 64 bits: no branch and no memory stands between two rows.
    """
    nodes, begins, ways = runs.next_nodes, runs.next_begins, runs.ways
    counted = 0
    for k in range(begin, end):
        counted += 1 << (int(ways[k]) << 4)
    place, places = begin, 0
    for way in range(4):
        rows = (counted >> (way << 4)) & 0xFFFF
        nodes[new], begins[new] = first + way, place
        new += 1 if rows > 0 else 0
        places |= place << (way << 4)
        place += rows
    next_order = runs.next_order
    for k in range(begin, end):
        bits = int(ways[k]) << 4
        next_order[(places >> bits) & 0xFFFF] = order[k]
        places += 1 << bits
    return new


@inner
def _advance(runs: Runs, order: Pointer, rows: int, count: int) -> None:
    """Replace the runs and the order of rows by the next ones."""
    for run in range(count):
        runs.nodes[run], runs.begins[run] = runs.next_nodes[run], runs.next_begins[run]
    runs.begins[count] = rows
    for k in range(rows):
        order[k] = runs.next_order[k]


@inner
def descend(tree: Tree, block: Block, runs: Runs, count: int, first: int, last: int) -> int:
    """Move a block from level ``first`` to level ``last``, and write the logits between them.

    Level ``last`` may be the one below the tree's last; its nodes are the children to which rows
    would have continued.

    Parameters
    ----------
    tree : Tree
    block : Block
        Rows, sorted by node at level ``first``; afterwards sorted by node at level ``last``.
    runs : Runs
        Its ``nodes`` and ``begins`` hold the runs of the block; afterwards they hold the new ones.
    count : int
        Number of runs.
    first, last : int
        Levels.

    Returns
    -------
    int
        Number of new runs.
    """
    nodes, begins, order = runs.nodes, runs.begins, block.order
    level = first
    while level < last:
        levels = 2 - (last - level) % 2
        new = 0
        for run in range(count):
            begin, end, node = int(begins[run]), int(begins[run + 1]), int(nodes[run])
            together = begin
            if levels == 2:
                # One or two remaining rows are faster alone.
                together = end if (end - begin) % 4 == 3 else end - (end - begin) % 4
                _together(tree, block, runs.ways, begin, together, node, level)
            if together < end:
                _alone(tree, block, runs.ways, together, end, node, level, levels)
            new = _split(runs, order, begin, end, ((node + 1) << levels) - 1, new)
        _advance(runs, order, block.rows, new)
        count = new
        level += levels
    return count


@inner
def write_reached(runs: Runs, count: int, reached: Pointer) -> None:
    """Write the node of each sorted row of ``count`` runs."""
    for run in range(count):
        for k in range(runs.begins[run], runs.begins[run + 1]):
            reached[k] = runs.nodes[run]


@inner
def follow(
    leaves: Pointer,
    logits: Pointer,
    stride: int,
    order: Pointer,
    reached: Pointer,
    rows: int,
    runs: Runs,
    levels: int,
    sides: int,
) -> None:
    """Sort rows by the last node of their path, which is known, and by their side of it; stable.

    Parameters
    ----------
    leaves, logits, stride
        The last node of row k, and the logit there, are at place ``k * stride``.
    order, reached : pointer
        Written: row numbers in sorted order, and a child of each one's last node, which stands for
        the path above it: the child that it would have continued to, or the left one if nodes have
        only one side.
    rows : int
        Number of rows.
    runs : Runs
        Scratch.
    levels : int
        Number of levels of the tree.
    sides : int
        Number of sides of a node: 1 or 2.
    """
    for k in range(rows):
        order[k] = k
    runs.nodes[0], runs.begins[0], runs.begins[1] = 0, 0, rows
    count, level, last = 1, 0, levels + sides - 2
    while level < last:
        step = 2 - (last - level) % 2
        above = last - level - step
        new = 0
        for run in range(count):
            begin, end = int(runs.begins[run]), int(runs.begins[run + 1])
            first = ((int(runs.nodes[run]) + 1) << step) - 1
            for k in range(begin, end):
                place = int(order[k]) * stride
                node = int(leaves[place])
                if sides == 2:
                    node = 2 * node + 1 + side_taken(logits[place], sides)
                node = ((node + 1) >> above) - 1
                # Of any node, also one from elsewhere, so that no path leaves the tree.
                runs.ways[k] = (node - first) & ((1 << step) - 1)
            new = _split(runs, order, begin, end, first, new)
        _advance(runs, order, rows, new)
        count = new
        level += step
    write_reached(runs, count, reached)
    if sides == 1:
        for k in range(rows):
            reached[k] = 2 * reached[k] + 1
