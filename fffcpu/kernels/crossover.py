"""From how many rows on grouped kernels are faster than row kernels, by measurements.

``python -m benchmarks.speed.backends`` prints them; docs/kernel_notes.md has the tables. Grouped
kernels share loads among the rows at one node, and pay for it by copying and sorting rows. So they
win with the number of rows per node, and the wider the rows, the sooner. What counts are the rows
of one thread.
"""

from __future__ import annotations

__all__ = ["FEWEST_ROWS", "groups_leaves", "groups_paths"]

FEWEST_ROWS = 32
"""Number of rows below which the row kernels are faster, whatever the layer."""

PATH_ROWS = 64
"""FastFeedForward: number of rows from which the grouped kernels are faster, with exceptions."""

WIDE = 768
"""Width of several trees from which they are faster from `FEWEST_ROWS` on."""

NARROW = 256
"""Width of several trees below which their number of rows per node counts."""

NARROW_ROWS_PER_NODE = 1 / 2
"""Number of rows per node of such a tree below which they are slower."""

ROWS_PER_NODE = 1 / 8
"""Number of rows per node of a single tree below which they are slower."""

SERIAL_WORK = 1 << 19
"""Number of products of inputs and weights up to which one thread does the work. From about here on
`fffcpu.kernels.jit.launch` takes TBB's pool, for outputs as wide as inputs."""

LEAF_ROWS = 64
ROWS_PER_LEAF = 2
"""LeafFeedForward: they are faster from these numbers of rows on, in all and per leaf."""


def groups_paths(rows: int, threads: int, trees: int, nodes: int, width: int) -> bool:
    """Whether grouped kernels are faster for FastFeedForward: trees of this many nodes."""
    if rows < FEWEST_ROWS or nodes == 1:
        return False  # trees of one node share nothing
    if rows * trees * nodes.bit_length() * width >= SERIAL_WORK:
        rows = rows // threads
    if trees == 1:
        return rows >= max(PATH_ROWS, ROWS_PER_NODE * nodes)
    if width >= NARROW:
        return rows >= (FEWEST_ROWS if width >= WIDE else PATH_ROWS)
    return rows >= max(PATH_ROWS, NARROW_ROWS_PER_NODE * nodes)


def groups_leaves(rows: int, leaves: int) -> bool:
    """Whether grouped kernels are faster for LeafFeedForward with this many leaves."""
    return rows >= max(LEAF_ROWS, ROWS_PER_LEAF * leaves)
