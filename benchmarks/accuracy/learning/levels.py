"""The levels of a tree as slices, for passes that compute all nodes of all trees at once.

Nodes are in heap order, so a level is a run of nodes, and its children are the next one, left and
right in turn::

    node    0 | 1 2 | 3 4 5 6 |
    level   0 |  1  |    2    |        of level 1: nodes 1:3, lefts 3:7:2, rights 4:7:2
"""

from __future__ import annotations

from typing import NamedTuple


class Level(NamedTuple):
    """The nodes of a level and their children."""

    nodes: slice
    lefts: slice
    rights: slice


def levels(count: int) -> list[Level]:
    """Return the levels of a tree of ``count`` nodes, the root first, without the last level."""
    found = []
    for level in range(count.bit_length() - 1):
        first, end = 2**level - 1, 2 ** (level + 1) - 1
        last = 2 * end + 1
        found.append(Level(slice(first, end), slice(end, last, 2), slice(end + 1, last, 2)))
    return found
