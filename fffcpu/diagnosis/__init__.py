r"""The usage of a layer's trees: the nodes that rows reach, and how even and firm the choices are.

Both layers are read as the same tree. Its upper ``depth`` levels are gates that decide, the first G
nodes from the root. The K nodes of its deepest level are the leaves. In a FastFeedForward, all
nodes are also neurons::

    visits of 8 rows     level 0          8           balance of its splits: (5, 3) of 8
                                        /   \
                         level 1       5     3        (5, 0) of 5 and (1, 2) of 3
                                      / \   / \
                         leaves      5   0 1   2      node 4 is dead: a subtree of size 1

docs/mathematics.md defines the measures. Shapes: B rows, I input width, T trees, G gates, K leaves,
N = G + K nodes of a tree.
"""

from __future__ import annotations

from fffcpu.diagnosis.measures import diagnose, leaf_means
from fffcpu.diagnosis.report import UsageReport
from fffcpu.diagnosis.routes import reached_leaves
from fffcpu.diagnosis.usage import DeadSubtree, LevelUsage, TreeUsage

__all__ = [
    "DeadSubtree",
    "LevelUsage",
    "TreeUsage",
    "UsageReport",
    "diagnose",
    "leaf_means",
    "reached_leaves",
]
