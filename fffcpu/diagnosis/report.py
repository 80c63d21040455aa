"""How all trees of a layer are used, as values and as a text for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.checks import check_integer
from fffcpu.diagnosis.usage import DeadSubtree, LevelUsage, TreeUsage
from fffcpu.system.terminal import format_table

__all__ = ["UsageReport"]

SHOWN_TREES = 12
SHOWN_DEAD = 6
"""Numbers of trees and of dead subtrees that the text of a report shows."""


@dataclasses.dataclass(frozen=True, eq=False)
class UsageReport:
    """How the trees of a layer are used: a result of `diagnose`; ``str(report)`` is its text."""

    kind: str
    """Kind of the layer."""
    margin: float
    """Logits nearer to 0 than this are near ties."""
    trees: tuple[TreeUsage, ...]
    """The trees; a LeafFeedForward has one."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.trees[0].rows

    @property
    def visits(self) -> NDArray[np.int64]:
        """Rows that visit each node of each tree (T, N)."""
        return np.stack([tree.visits for tree in self.trees])

    @property
    def dead_subtrees(self) -> tuple[DeadSubtree, ...]:
        """The dead subtrees of all trees."""
        return tuple(dead for tree in self.trees for dead in tree.dead_subtrees)

    @property
    def levels(self) -> tuple[LevelUsage, ...]:
        """The levels of all trees together: sums of nodes, means of shares and entropies."""
        together = zip(*(tree.levels for tree in self.trees), strict=True)
        return tuple(
            LevelUsage(
                nodes=sum(level.nodes for level in levels),
                reached=sum(level.reached for level in levels),
                balance=_mean_of([level.balance for level in levels]),
                choice_entropy=_mean_of([level.choice_entropy for level in levels]),
                near_ties=_mean_of([level.near_ties for level in levels]),
            )
            for levels in together
        )

    def of_tree(self, tree: int) -> UsageReport:
        """Return the report of one of the trees.

        Raises
        ------
        ArgumentError, ArgumentTypeError
            If there is no tree of that number.
        """
        number = check_integer("tree", tree, 0, len(self.trees) - 1)
        return dataclasses.replace(self, trees=(self.trees[number],))

    def to_dict(self) -> dict[str, Any]:
        """Return all measures as JSON values."""
        return {
            "kind": self.kind,
            "rows": self.rows,
            "margin": self.margin,
            "levels": [level._asdict() for level in self.levels],
            "trees": [tree.to_dict() for tree in self.trees],
        }

    def __str__(self) -> str:
        first, count = self.trees[0], len(self.trees)
        what = f"tree {first.tree}" if count == 1 else f"{count:,} trees"
        sizes = f"{what} of depth {first.depth}, {_count(len(first.leaf_visits), 'leaf', 'leaves')}"
        parts = [
            f"{self.kind}: {sizes}, {_count(self.rows, 'row', 'rows')}",
            self._format_trees(),
            self._format_levels(),
            self._format_dead(),
        ]
        if count == 1:
            parts.append(f"share of the rows, by level:\n{first.draw()}")
        return "\n\n".join(parts)

    def _format_trees(self) -> str:
        """Return a line for each of the first trees."""
        head = (
            *("tree", "leaves reached", "nodes reached", "balance", "effective leaves"),
            *("largest share", "dead subtrees"),
        )
        rows = [
            (
                str(tree.tree),
                _reached(int(np.count_nonzero(tree.leaf_visits)), len(tree.leaf_visits)),
                _reached(int(np.count_nonzero(tree.visits)), len(tree.visits)),
                f"{tree.balance:.2f}",
                f"{tree.effective_leaves:,.1f}",
                f"{tree.largest_share:.1%}",
                f"{len(tree.dead_subtrees):,}",
            )
            for tree in self.trees[:SHOWN_TREES]
        ]
        left = len(self.trees) - SHOWN_TREES
        return format_table(head, rows) + (f"\nand {left:,} more" if left > 0 else "")

    def _format_levels(self) -> str:
        """Return a line for each level, and the definition of near ties."""
        head = ("level", "nodes reached", "balance of splits", "choice entropy", "near ties")
        rows = [
            (
                str(number),
                _reached(level.reached, level.nodes),
                _format(level.balance, ".2f"),
                _format(level.choice_entropy, ".3f"),
                _format(level.near_ties, ".2%"),
            )
            for number, level in enumerate(self.levels)
        ]
        ties = f"near ties are decisions with |logit| < {self.margin:g}"
        return f"{format_table(head, rows)}\n{ties}"

    def _format_dead(self) -> str:
        """Return a line that names the largest dead subtrees."""
        dead = sorted(self.dead_subtrees, key=lambda one: -one.size)
        if not dead:
            return "no dead subtrees: every node is reached"
        shown = [
            f"tree {one.tree} node {one.node} ({_count(one.size, 'node', 'nodes')})"
            for one in dead[:SHOWN_DEAD]
        ]
        if len(dead) > SHOWN_DEAD:
            shown.append(f"and {len(dead) - SHOWN_DEAD:,} more")
        return f"dead subtrees: {', '.join(shown)}"


def _mean_of(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are not None, or None if all are."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def _format(value: float | None, form: str) -> str:
    """Return a value as a cell of a table, or a dash for None."""
    return "-" if value is None else format(value, form)


def _reached(reached: int, nodes: int) -> str:
    """Return the number of reached nodes and that of all nodes."""
    return f"{reached:,} of {nodes:,}"


def _count(number: int, one: str, many: str) -> str:
    """Return a number and its noun."""
    return f"{number:,} {one if number == 1 else many}"
