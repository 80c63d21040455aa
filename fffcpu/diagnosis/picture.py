"""A tree drawn in characters: its upper levels, and each node's share of the rows.

::

    0 |                              100%                              |
    1 |              62%                              38%              |
    2 |      62%              x              12%             25%       |
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fffcpu.tree import depth_of, level_start

__all__ = ["draw_levels"]

PICTURE_WIDTH = 64
"""Width of the picture in characters. A level with more nodes is left out."""

NARROW = 8
"""A node with fewer characters shows a mark instead of a number."""

MARKS = ((0.25, "."), (1.0, "-"), (4.0, "+"), (math.inf, "#"))
"""Marks of narrow nodes, with upper limits of a node's share over the even share of its level."""


def draw_levels(visits: NDArray[np.int64]) -> str:
    """Return a picture of a tree's upper levels, one line per level.

    Parameters
    ----------
    visits : int64 array of shape (N,)
        Rows that visit each node, in heap order; at least one visits the root.
    """
    lines = []
    for level in range(min(depth_of(len(visits)), PICTURE_WIDTH.bit_length() - 1) + 1):
        shares = visits[level_start(level) : level_start(level + 1)] / visits[0]
        cells = [_cell(share, len(shares)) for share in shares]
        lines.append(f"{level:>3} |{''.join(cells)}|")
    return "\n".join(lines)


def _cell(share: float, nodes: int) -> str:
    """Return one of a level's nodes as it appears in the picture."""
    width = PICTURE_WIDTH // nodes
    if share == 0:
        mark = "x"
    elif width >= NARROW:
        return f"{share:.0%}".center(width)
    else:
        mark = next(mark for limit, mark in MARKS if share * nodes < limit)
    return mark.center(width) if width >= NARROW else mark * width
