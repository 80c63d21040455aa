"""Sums over evaluated rows, from which figures are made; those of several shards can be added.

A mean is a sum and a weight. The variance of targets, for R2, is merged by the formula of Chan,
Golub and LeVeque ("Algorithms for computing the sample variance", 1983), with weights w, means m
and variances v of two sets of rows::

    w = w1 + w2     m = m1 + (m2 - m1) w2 / w     v w = v1 w1 + v2 w2 + (m2 - m1)^2 w1 w2 / w
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Numbers", "Tally", "validation_figures"]

Array = NDArray[Any]


class Numbers(NamedTuple):
    """Errors and targets of a regression."""

    squares: Array
    """Sums (O,) of the squared errors."""
    mean: Array
    """Means (O,) of the targets."""
    variance: Array
    """Variances (O,) of the targets."""

    def plus(self, weight: float, other: Numbers, others_weight: float) -> Numbers:
        """Return those of the rows of both, given the weights of these rows."""
        total = weight + others_weight
        off = other.mean - self.mean
        spread = self.variance * weight + other.variance * others_weight
        spread += np.square(off) * (weight * others_weight / total)
        mean = self.mean + off * (others_weight / total)
        return Numbers(self.squares + other.squares, mean, spread / total)

    def r2(self, weight: float) -> float:
        """Return the explained share of the variance.

        It is 1 minus residual over total sum of squares, the mean over outputs that are not
        constant; NaN without any.
        """
        varied = self.variance > 0.0
        shares = 1.0 - self.squares[varied] / weight / self.variance[varied]
        return float(shares.mean()) if varied.any() else float("nan")


class Tally(NamedTuple):
    """Sums over rows, or over tokens."""

    weight: float
    """Sum of the weights of the rows; their number, if they have none."""
    loss: float
    """Sum of the losses."""
    right: float = 0.0
    """Weight of the rows whose class, or all labels, are predicted correctly."""
    numbers: Numbers | None = None
    """For a regression: what R2 is made of."""

    def plus(self, other: Tally) -> Tally:
        """Return the tally of the rows of both."""
        if not (self.weight and other.weight):
            return self if self.weight else other
        weight, loss = self.weight + other.weight, self.loss + other.loss
        if self.numbers is None or other.numbers is None:
            return Tally(weight, loss, self.right + other.right)
        return Tally(weight, loss, 0.0, self.numbers.plus(self.weight, other.numbers, other.weight))

    def figures(self) -> dict[str, float]:
        """Return ``loss``, the mean, and ``accuracy``, the share that is right, or ``r2``."""
        loss = self.loss / self.weight
        if self.numbers is None:
            return {"loss": loss, "accuracy": self.right / self.weight}
        return {"loss": loss, "r2": self.numbers.r2(self.weight)}


def validation_figures(tallies: Sequence[Tally]) -> dict[str, float]:
    """Return the figures of shards' tallies, added in their order; none if no row was evaluated."""
    total = functools.reduce(Tally.plus, tallies)
    if not total.weight:
        return {}
    return {f"validation_{name}": value for name, value in total.figures().items()}
