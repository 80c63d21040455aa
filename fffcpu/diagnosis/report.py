"""How all trees of a layer are used, as values and as a text for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.checks import check_integer
from fffcpu.diagnosis.usage import DeadSubtree, LevelUsage, TreeUsage

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
            f"{'tree':<8}{'leaves reached':>17}{'nodes reached':>17}{'balance':>9}"
            f"{'effective leaves':>18}{'largest share':>15}{'dead subtrees':>15}"
        )
        lines = [head]
        for tree in self.trees[:SHOWN_TREES]:
            leaves, nodes = (
                f"{np.count_nonzero(visits):,} of {len(visits):,}"
                for visits in (tree.leaf_visits, tree.visits)
            )
            lines.append(
                f"{tree.tree:<8}{leaves:>17}{nodes:>17}{tree.balance:>9.2f}"
                f"{tree.effective_leaves:>18,.1f}{tree.largest_share:>15.1%}"
                f"{len(tree.dead_subtrees):>15,}"
            )
        if len(self.trees) > SHOWN_TREES:
            lines.append(f"and {len(self.trees) - SHOWN_TREES:,} more")
        return "\n".join(lines)

    def _format_levels(self) -> str:
        """Return a line for each level, and the definition of near ties."""
        head = (
            f"{'level':<8}{'nodes reached':>17}{'balance of splits':>19}{'choice entropy':>16}"
            f"{'near ties':>11}"
        )
        lines = [head]
        for number, level in enumerate(self.levels):
            balance, entropy, ties = (
                "-" if value is None else format(value, form)
                for value, form in (
                    (level.balance, ".2f"),
                    (level.choice_entropy, ".3f"),
                    (level.near_ties, ".2%"),
                )
            )
            reached = f"{level.reached:,} of {level.nodes:,}"
            lines.append(f"{number:<8}{reached:>17}{balance:>19}{entropy:>16}{ties:>11}")
        lines.append(f"near ties are decisions with |logit| < {self.margin:g}")
        return "\n".join(lines)

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


def _count(number: int, one: str, many: str) -> str:
    """Return a number and its noun."""
    return f"{number:,} {one if number == 1 else many}"
