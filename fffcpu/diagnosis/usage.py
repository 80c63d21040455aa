"""How one tree is used: visits of its nodes, and the measures that follow from them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.diagnosis.picture import draw_levels
from fffcpu.tree import depth_of, gate_count, level_start, node_count

__all__ = ["DeadSubtree", "LevelUsage", "TreeUsage"]

Array = NDArray[Any]


class DeadSubtree(NamedTuple):
    """A subtree that no row enters, below a node that some row visits."""

    tree: int
    """Number of the tree."""
    node: int
    """Number of its root, in heap order."""
    size: int
    """Number of its nodes."""


class LevelUsage(NamedTuple):
    """How one level is used. The measures of decisions are None for the leaves."""

    nodes: int
    """Number of nodes."""
    reached: int
    """Number of nodes that a row visits."""
    balance: float | None
    """Mean entropy of the splits over log 2, weighted by visits; 1 if all splits are even."""
    choice_entropy: float | None
    """LeafFeedForward: mean entropy of sigmoid(logit), in nats: 0 is hard, log 2 undecided."""
    near_ties: float | None
    """Share of the decisions whose logit is nearer to 0 than the margin."""


@dataclasses.dataclass(frozen=True, eq=False)
class TreeUsage:
    """How one tree is used."""

    tree: int
    """Number of the tree in the layer."""
    visits: NDArray[np.int64]
    """Rows that visit each node (N,), in heap order: gates, then leaves from the left."""
    near_ties: NDArray[np.float64]
    """Share of rows whose logit is nearer to 0 than the margin, per level of gates (depth,)."""
    choice_entropies: NDArray[np.float64] | None
    """LeafFeedForward: mean entropy of sigmoid(logit) at each gate (G,) over the rows that visit
    it, in nats; NaN if no row does."""

    @property
    def depth(self) -> int:
        """Depth of the tree."""
        return depth_of(len(self.visits))

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.visits[0])

    @property
    def gate_visits(self) -> NDArray[np.int64]:
        """Rows that visit each gate (G,)."""
        return self.visits[: gate_count(self.depth)]

    @property
    def leaf_visits(self) -> NDArray[np.int64]:
        """Rows that reach each leaf (K,)."""
        return self.visits[gate_count(self.depth) :]

    @property
    def unreached_nodes(self) -> float:
        """Share of the nodes, leaves included, that no row visits."""
        return float(np.mean(self.visits == 0))

    @property
    def unreached_leaves(self) -> float:
        """Share of the leaves that no row reaches."""
        return float(np.mean(self.leaf_visits == 0))

    @property
    def dead_subtrees(self) -> tuple[DeadSubtree, ...]:
        """The maximal subtrees that no row enters, in heap order: the largest first."""
        visited = np.repeat(self.gate_visits > 0, 2)
        roots = 1 + np.flatnonzero(visited & (self.visits[1:] == 0))
        return tuple(DeadSubtree(self.tree, node, self._size(node)) for node in roots.tolist())

    def _size(self, node: int) -> int:
        """Return the number of nodes at and below a node."""
        level = (node + 1).bit_length() - 1
        return node_count(self.depth - level)

    @property
    def effective_leaves(self) -> float:
        """Number of leaves that, reached equally often, have the same entropy."""
        shares = self.leaf_visits[self.leaf_visits > 0] / self.rows
        return math.exp(-float(np.sum(shares * np.log(shares))))

    @property
    def balance(self) -> float:
        """Entropy of the leaves' visits divided by its maximum log K, from 0 to 1.

        It is the mean of the levels' balances. A single leaf has 1.
        """
        if self.depth == 0:
            return 1.0
        return _between_0_and_1(math.log(self.effective_leaves) / math.log(len(self.leaf_visits)))

    @property
    def largest_share(self) -> float:
        """Share of the rows that reach the most visited leaf."""
        return float(self.leaf_visits.max()) / self.rows

    @property
    def split_entropies(self) -> NDArray[np.float64]:
        """Entropy of each gate's split into left and right (G,), in nats; NaN without visits."""
        visits, right = self.gate_visits, self.visits[2::2]
        safe = np.maximum(visits, 1)
        terms = [
            part / safe * np.log(safe / np.maximum(part, 1)) for part in (right, visits - right)
        ]
        return np.where(visits > 0, terms[0] + terms[1], np.nan)

    @property
    def levels(self) -> tuple[LevelUsage, ...]:
        """The levels, from the root."""
        splits, choices = self.split_entropies, self.choice_entropies
        levels = []
        for level in range(self.depth + 1):
            span = slice(level_start(level), level_start(level + 1))
            visits = self.visits[span]
            decides = level < self.depth
            balance = self._mean(splits[span], visits) / math.log(2) if decides else None
            levels.append(
                LevelUsage(
                    nodes=len(visits),
                    reached=int(np.count_nonzero(visits)),
                    balance=balance if balance is None else _between_0_and_1(balance),
                    choice_entropy=(
                        None
                        if choices is None or not decides
                        else self._mean(choices[span], visits)
                    ),
                    near_ties=float(self.near_ties[level]) if decides else None,
                )
            )
        return tuple(levels)

    def _mean(self, values: Array, visits: Array) -> float:
        """Return the mean over all rows of the values of a level's nodes."""
        return float(np.sum(visits * np.where(visits > 0, values, 0)) / self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return all measures as JSON values; NaN becomes None."""
        choices = self.choice_entropies
        return {
            "tree": self.tree,
            "visits": self.visits.tolist(),
            "unreached_nodes": self.unreached_nodes,
            "unreached_leaves": self.unreached_leaves,
            "dead_subtrees": [dead._asdict() for dead in self.dead_subtrees],
            "balance": self.balance,
            "effective_leaves": self.effective_leaves,
            "largest_share": self.largest_share,
            "split_entropies": _plain(self.split_entropies),
            "choice_entropies": None if choices is None else _plain(choices),
            "levels": [level._asdict() for level in self.levels],
        }

    def draw(self) -> str:
        """Return a picture of the upper levels, with each node's share of the rows.

        A narrow node has a mark, which compares its share with an even share: ``x`` for no row,
        ``.`` for less than a quarter, ``-`` for less than 1 times, ``+`` for less than 4 times and
        ``#`` for at least 4 times as much.
        """
        return draw_levels(self.visits)


def _between_0_and_1(value: float) -> float:
    """Return a value clipped to its range, which only rounding can leave."""
    return min(max(0.0, value), 1.0)


def _plain(values: Array) -> list[float | None]:
    """Return numbers for JSON, with None for NaN."""
    return [None if math.isnan(value) else value for value in values.tolist()]
