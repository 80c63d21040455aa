"""From how many rows on grouped kernels are faster than row kernels, by measurements.

``python -m benchmarks.speed.backends`` prints them; docs/kernel_notes.md has the tables. Grouped
kernels share loads among the rows at one node, and pay for it by copying and sorting rows. So they
win with the number of rows per node, and the wider the rows, the sooner. What counts are the rows
of one thread.
"""

from __future__ import annotations

__all__ = ["FEWEST_ROWS", "groups_leaves", "groups_paths"]

FEWEST_ROWS = 16
"""Number of rows below which the row kernels are faster, whatever the layer."""

ROWS = 64
"""Number of rows from which the grouped kernels are faster, with the exceptions below."""

WIDE = 384
WIDE_LEVEL = 3072
"""Several trees of this width, with this many weights in their roots: they are faster from
`FEWEST_ROWS` per thread on, because the loads that these share are dear."""

NARROW = 256
NARROW_ROWS_PER_NODE = 1 / 2
"""Several trees of less than this width: they are faster from this many rows per node on."""

ROWS_PER_NODE = 1 / 8
ROWS_PER_NODE_AND_WIDTH = 8192
"""One tree: they are faster from an eighth of a row per node on, or ``8192 / width**2`` if less."""

LEAF_ROWS = 64
ROWS_PER_LEAF = 2
"""LeafFeedForward: they are faster from these numbers of rows on, in all and per leaf."""


def groups_paths(rows: int, threads: int, trees: int, nodes: int, width: int) -> bool:
    """Whether grouped kernels are faster for FastFeedForward: trees of this many nodes."""
    if rows < FEWEST_ROWS:
        return False
    own_rows = rows / threads
    if trees > 1 and width >= WIDE and trees * width >= WIDE_LEVEL and own_rows >= FEWEST_ROWS:
        return True
    if rows < ROWS:
        return False
    if trees == 1:
        return own_rows >= nodes * min(ROWS_PER_NODE, ROWS_PER_NODE_AND_WIDTH / width**2)
    return width >= NARROW or own_rows >= NARROW_ROWS_PER_NODE * nodes


def groups_leaves(rows: int, leaves: int) -> bool:
    """Whether grouped kernels are faster for LeafFeedForward with this many leaves."""
    return rows >= max(LEAF_ROWS, ROWS_PER_LEAF * leaves)
