"""Blocks of rows: how many rows one has, its memory, and what its rows write.

A block has as many rows as stay in the L2 cache while they pass all trees. Its memory is two arrays
that a kernel makes and keeps; `new_space` lays them out::

    floats     x (R, I)        products, scratch     visits (R, T, L)
    integers   scratch of runs     rows (R,)    order (T, R)    reached (T, R)
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

from fffcpu.kernels.descent import MORE_ROWS, PRODUCTS, RUN_ARRAYS, Runs, four_rows, new_runs
from fffcpu.kernels.jit import inner
from fffcpu.kernels.simd import (
    VECTOR_BYTES,
    lanes,
    load,
    load_partial,
    pointer,
    store,
    store_partial,
)
from fffcpu.kernels.sums import weighted_sums
from fffcpu.system.cpus import cache_bytes

__all__ = [
    "Paths",
    "Space",
    "copy_rows",
    "equal_blocks",
    "float_count",
    "integer_count",
    "most_rows",
    "new_space",
    "tree_outputs",
]

Array = NDArray[Any]
Pointer = Any

MAX_BLOCK_ROWS = 1024
"""Maximum number of rows per block, however narrow they are; places in a block take 16 bits."""

MIN_BLOCK_ROWS = 64
"""Minimum number of rows per block, however wide they are."""

CACHE_SHARE = 3 / 8
"""Share of the L2 cache that the rows of a block take at most. What is kept for their visits may
take as much again, and the rest is for weights. Counting both together was up to a fifth slower."""


class Paths(NamedTuple):
    """The paths of up to R rows through T trees, as pointers."""

    capacity: int
    """R."""
    rows: Pointer
    """Number of each row in the batch (R,)."""
    order: Pointer
    """Numbers of the rows among these, as sorted by each tree (T, R)."""
    reached: Pointer
    """Node that each sorted row has reached (T, R)."""
    visits: Pointer
    """One number for each visit of a node (R, T, L): logits, then activations."""


class Space(NamedTuple):
    """Memory for blocks of up to R rows, as pointers into arrays that the kernel keeps."""

    paths: Paths
    x: Pointer
    """Rows side by side (R, I)."""
    runs: Runs
    """Scratch of the descent."""
    products: Pointer
    """Scratch of the descent."""


def most_rows(widths: int, visits: int, trees: int, itemsize: int) -> int:
    """Return the maximum number of rows per block.

    Parameters
    ----------
    widths : int
        Numbers per row that stay in cache together: of x, or of y.
    visits : int
        Numbers per row for the visits of nodes.
    trees : int
        Number of orders of the rows.
    itemsize : int
        Size of these numbers.
    """
    integers = RUN_ARRAYS + 1 + 2 * trees
    row_bytes = max(widths * itemsize, visits * itemsize + 4 * integers)
    rows = int(CACHE_SHARE * cache_bytes()) // row_bytes
    return min(MAX_BLOCK_ROWS, max(MIN_BLOCK_ROWS, rows))


@inner
def equal_blocks(items: int, most: int) -> int:
    """Return the number of rows per block that divides ``items`` rows evenly; 1 for no rows."""
    blocks = max(1, (items + most - 1) // most)
    return max(1, (items + blocks - 1) // blocks)


@inner
def float_count(rows: int, width: int, visits: int) -> int:
    """Return the number of floats that `new_space` needs."""
    return rows * (width + visits) + PRODUCTS + VECTOR_BYTES // 4


@inner
def integer_count(rows: int, trees: int) -> int:
    """Return the number of int32 that `new_space` needs."""
    return RUN_ARRAYS * (rows + MORE_ROWS) + rows * (1 + 2 * trees)


@inner
def new_space(rows: int, width: int, trees: int, floats: Array, integers: Array) -> Any:
    """Lay out memory for blocks of up to ``rows`` rows."""
    x = -floats.ctypes.data % VECTOR_BYTES // floats.itemsize  # aligned to cache lines
    products = x + rows * width
    numbers = RUN_ARRAYS * (rows + MORE_ROWS)
    order = numbers + rows
    paths = Paths(
        rows,
        pointer(integers, numbers),
        pointer(integers, order),
        pointer(integers, order + trees * rows),
        pointer(floats, products + PRODUCTS),
    )
    runs = new_runs(pointer(integers, 0), rows)
    return Space(paths, pointer(floats, x), runs, pointer(floats, products))


@inner
def copy_rows(block_x: Pointer, x: Pointer, rows: Pointer, count: int, width: int) -> None:
    """Copy the rows of x with these numbers to a block, side by side."""
    step = lanes(x)
    whole = width - width % step
    for k in range(count):
        to, at = k * width, int(rows[k]) * width
        for column in range(0, whole, step):
            store(block_x, to + column, load(x, at + column))
        if whole < width:
            left = width - whole
            store_partial(block_x, to + whole, load_partial(x, at + whole, left), left)


@inner
def tree_outputs(
    y: Pointer,
    width: int,
    paths: Paths,
    slot: int,
    shape: tuple[int, int],
    weights_out: Pointer,
    sides: int,
    offsets: Pointer,
    count: int,
    onto: bool,
    streamed: bool,
) -> None:
    """Write the outputs of a tree for a block, or add them ``onto`` those of other trees.

    The weights have one row per node, or two per node, one for each of its ``sides``. ``offsets``
    is scratch of four numbers per level.
    """
    trees, levels = shape
    rows, visits = paths.rows, paths.visits
    order = pointer(paths.order, slot * paths.capacity)
    reached = pointer(paths.reached, slot * paths.capacity)
    for k in range(0, count, 4):
        row0, row1, row2, row3 = four_rows(order, k, count - 1)
        # Numbered from 1, the node at a level is a prefix of the one that the row has reached. So
        # is the child, which comes one level later and stands for the side of its parent.
        below0, below1, below2, below3 = four_rows(reached, k, count - 1)
        node0, node1, node2, node3 = below0 + 1, below1 + 1, below2 + 1, below3 + 1
        # Sorted rows share the nodes that the first and the last share.
        differ, shared = (node0 ^ node3) >> (2 - sides), levels
        while differ > 0:
            differ >>= 1
            shared -= 1
        for level in range(levels):
            offsets[level] = ((node0 >> (levels + 1 - sides - level)) - sides) * width
        for level in range(shared, levels):
            shift = levels + 1 - sides - level
            offsets[levels + level] = ((node1 >> shift) - sides) * width
            offsets[2 * levels + level] = ((node2 >> shift) - sides) * width
            offsets[3 * levels + level] = ((node3 >> shift) - sides) * width
        weighted_sums(
            y,
            (
                int(rows[row0]) * width,
                int(rows[row1]) * width,
                int(rows[row2]) * width,
                int(rows[row3]) * width,
            ),
            visits,
            (
                (row0 * trees + slot) * levels,
                (row1 * trees + slot) * levels,
                (row2 * trees + slot) * levels,
                (row3 * trees + slot) * levels,
            ),
            weights_out,
            offsets,
            shared,
            levels,
            width,
            onto,
            streamed,
        )
