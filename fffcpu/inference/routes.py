"""Explanations of predictions by their routes: the training rows that ended in the same leaves.

A row follows one path in each tree, from the root to a leaf. The statistics count the training rows
that ended in the same leaf, and summarize their targets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.errors import CheckpointError, describe

__all__ = ["RouteCounts", "RouteStatistics", "count_routes", "final_nodes"]

Array = NDArray[Any]
RouteCounts = list[dict[int, Array]]

MOST_NUMBERS = 200_000
"""Most numbers that a file of a model stores for this purpose."""


def final_nodes(layer: Any, inputs: Any) -> NDArray[np.int64]:
    """Return the last node of each row in each tree, (R, T), for inputs (R, I)."""
    nodes = layer.route(inputs)
    last = nodes[..., -1] if nodes.ndim == 3 else nodes[:, np.newaxis]
    return np.asarray(last, np.int64)


@dataclasses.dataclass(frozen=True, eq=False)
class RouteStatistics:
    """What the training rows in each leaf were.

    Parameters
    ----------
    leaves : list of int64 arrays of shape (K,)
        For each tree: the leaves that training rows reached, in rising order.
    outcomes : list of float64 arrays of shape (K, C) or (K, 3)
        For each tree and leaf: the number of rows of each class; or the number of rows, the mean
        of their targets and the standard deviation.
    classes : int
        Number of classes; 0 for a regression.
    """

    leaves: list[NDArray[np.int64]]
    outcomes: list[Array]
    classes: int

    @classmethod
    def of(
        cls,
        nodes: Iterable[tuple[NDArray[np.int64], Array]],
        classes: int,
        shift: float = 0.0,
    ) -> RouteStatistics | None:
        """Count rows.

        Parameters
        ----------
        nodes, classes, shift
            As for `count_routes`.

        Returns
        -------
        RouteStatistics or None
            None if there are too many leaves for a file.
        """
        return cls.of_counts([count_routes(nodes, classes, shift)], classes, shift)

    @classmethod
    def of_counts(
        cls, parts: Sequence[RouteCounts | None], classes: int, shift: float = 0.0
    ) -> RouteStatistics | None:
        """Return the statistics of what `count_routes` counted in several parts of the rows."""
        width, counted = classes or 3, list[dict[int, Array]]()
        for part in parts:
            if part is None:
                return None
            counted = counted or [{} for _ in part]
            for totals, more in zip(counted, part, strict=bool(part)):
                for leaf, row in more.items():
                    totals[leaf] = totals[leaf] + row if leaf in totals else row
        if _are_too_many(counted, classes):
            return None
        leaves = [np.array(sorted(totals), np.int64) for totals in counted]
        outcomes = []
        for totals, present in zip(counted, leaves, strict=True):
            table = np.array([totals[leaf] for leaf in present.tolist()]).reshape(-1, width)
            outcomes.append(table if classes else _moments(table, shift))
        return cls(leaves, outcomes, classes)

    def explain(self, last: NDArray[np.int64]) -> list[Array]:
        """Return the outcomes (R, C) or (R, 3) of each tree for rows' last nodes (R, T).

        They are 0 for a leaf that no training row reached.
        """
        found = []
        for tree, (leaves, outcomes) in enumerate(zip(self.leaves, self.outcomes, strict=True)):
            place = np.minimum(np.searchsorted(leaves, last[:, tree]), len(leaves) - 1)
            known = leaves[place] == last[:, tree]
            found.append(np.where(known[:, np.newaxis], outcomes[place], 0.0))
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "classes": self.classes,
            "leaves": [leaves.tolist() for leaves in self.leaves],
            "outcomes": [outcomes.tolist() for outcomes in self.outcomes],
        }

    @classmethod
    def from_dict(cls, values: Any) -> RouteStatistics:
        """Return the statistics of JSON values that `to_dict` gave.

        Raises
        ------
        CheckpointError
            If the values are no statistics.
        """
        try:
            classes = values["classes"]
            leaves = [np.array(tree, np.int64) for tree in values["leaves"]]
            width = classes or 3
            outcomes = [
                np.array(tree, np.float64).reshape(-1, width) for tree in values["outcomes"]
            ]
            lengths = [len(tree) for tree in leaves]
            wrong = type(classes) is not int or lengths != [len(tree) for tree in outcomes]
            wrong = wrong or not all(lengths) or any((np.diff(tree) <= 0).any() for tree in leaves)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise CheckpointError(
                f"must be statistics of routes, got {describe(values)}"
            ) from error
        if wrong:
            raise CheckpointError(f"must be statistics of routes, got {describe(values)}")
        return cls(leaves, outcomes, classes)


def count_routes(
    nodes: Iterable[tuple[NDArray[np.int64], Array]], classes: int, shift: float = 0.0
) -> RouteCounts | None:
    """Count rows by leaf.

    Parameters
    ----------
    nodes : iterable of pairs
        Blocks of rows: the last nodes (R, T), and the targets, class numbers or numbers (R,).
    classes : int
        Number of classes; 0 for a regression.
    shift : float
        Regression: a number near the targets, subtracted before they are squared.

    Returns
    -------
    list of dict, or None
        For each tree, by leaf: the number of rows of each class (C,); or the number of rows, the
        sum of their shifted targets and of the squares (3,). None if there are too many leaves for
        a file.
    """
    counted: RouteCounts = []
    for last, targets in nodes:
        counted = counted or [{} for _ in range(last.shape[1])]
        for tree, totals in enumerate(counted):
            _add(totals, last[:, tree], targets if classes else targets - shift, classes)
        if _are_too_many(counted, classes):
            return None
    return counted


def _are_too_many(counted: RouteCounts, classes: int) -> bool:
    return sum(map(len, counted)) * (classes or 3) > MOST_NUMBERS


def _add(totals: dict[int, Array], leaves: NDArray[np.int64], targets: Array, classes: int) -> None:
    """Add rows to the totals of a tree."""
    present, numbers = np.unique(leaves, return_inverse=True)
    if classes:
        table = np.zeros((len(present), classes))
        np.add.at(table, (numbers, targets), 1.0)
    else:
        values = targets.astype(np.float64)
        powers: Sequence[Array] = (np.ones(len(values)), values, np.square(values))
        table = np.stack([np.bincount(numbers, power) for power in powers], axis=1)
    for leaf, row in zip(present.tolist(), table, strict=True):
        totals[leaf] = totals[leaf] + row if leaf in totals else row


def _moments(table: Array, shift: float) -> Array:
    """Return counts, means and deviations of counts, sums and sums of squares."""
    count, total, squares = table.T
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    return np.stack([count, mean + shift, deviation], axis=1)
