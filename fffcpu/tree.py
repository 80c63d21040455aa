r"""Arithmetic of the complete binary tree in heap order.

A tree of depth 2 has three levels and seven nodes::

    level 0              0               root
                       /   \
    level 1          1       2           left child of n: 2n + 1, right child: 2n + 2
                    / \     / \
    level 2        3   4   5   6         the path of a row: one node per level

In a layer of FastFeedForward every node is a neuron. In LeafFeedForward the upper ``depth`` levels
are gates, and the nodes of level ``depth``, counted from 0 at the left, are the leaves.
"""

from __future__ import annotations

__all__ = ["MAX_DEPTH", "depth_of", "gate_count", "leaf_count", "level_start", "node_count"]

MAX_DEPTH = 29
"""Depth of the deepest tree for which int32 holds all node numbers, and those of one more level."""


def node_count(depth: int) -> int:
    """Return the number of nodes N of a tree of this depth: ``2**(depth + 1) - 1``."""
    return int(2 ** (depth + 1) - 1)


def leaf_count(depth: int) -> int:
    """Return the number of leaves K of a tree of this depth: ``2**depth``."""
    return int(2**depth)


def gate_count(depth: int) -> int:
    """Return the number of inner nodes, the gates G of the leaf layer: ``2**depth - 1``."""
    return int(2**depth - 1)


def level_start(level: int) -> int:
    """Return the number of the leftmost node of a level: ``2**level - 1``."""
    return int(2**level - 1)


def depth_of(nodes: int) -> int:
    """Return the depth of the tree with this many nodes.

    Raises
    ------
    ValueError
        If no complete binary tree has that many nodes.
    """
    if nodes < 1 or (nodes + 1) & nodes:
        raise ValueError(f"no complete binary tree has {nodes} nodes")
    return (nodes + 1).bit_length() - 2
