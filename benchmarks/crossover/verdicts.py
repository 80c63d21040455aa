"""Fronts of cost and accuracy, and the stretches on which FFFs are the choice."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.crossover.models import FFF, MODELS
from benchmarks.records import Record

AS_FAST = 1.15
"""Largest ratio of two times that count as equal, since medians are no more exact."""


class Point(NamedTuple):
    """A model in a plane of cost and accuracy."""

    model: str
    family: str
    cost: float
    accuracy: float


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points that are more accurate than all cheaper and equally cheap ones."""
    result: list[Point] = []
    for point in sorted(points, key=lambda point: (point.cost, -point.accuracy)):
        if not result or point.accuracy > result[-1].accuracy:
            result.append(point)
    return result


def stretch(points: Sequence[Point], test_rows: int) -> list[tuple[Point, Point | None]]:
    """Return the FFFs on the front that noise does not explain, each with its best rival.

    Rivals are the models of other families that are as fast. There may be none.
    """
    result = []
    for point in front(points):
        if point.family not in FFF:
            continue
        rivals = [
            other
            for other in points
            if other.family not in FFF and other.cost <= AS_FAST * point.cost
        ]
        best = max(rivals, key=lambda rival: rival.accuracy, default=None)
        error = math.sqrt(point.accuracy * (1 - point.accuracy) / test_rows)
        if best is None or point.accuracy - best.accuracy > error:
            result.append((point, best))
    return result


def verdict(points: Sequence[Point], test_rows: int) -> str:
    """Return a sentence on whether FFFs are the choice on a stretch of the front."""
    found = stretch(points, test_rows)
    if not found:
        return "no FFF stretch"
    texts = []
    for point, rival in found:
        beside = (
            "nothing else is as fast"
            if rival is None
            else f"as fast: {rival.model}, {rival.accuracy:.2%}"
        )
        texts.append(f"{point.model}, {point.accuracy:.2%} at {point.cost:,.3g} us ({beside})")
    return "has an FFF stretch: " + "; ".join(texts)


KINDS = {"batch": "µs per row in a batch", "alone": "µs per row alone"}


def points_of(records: dict[str, list[Record]], costs: dict[str, float]) -> list[Point]:
    """Return the points of the models that have a cost. Accuracy is the mean over the seeds."""
    return [
        Point(name, MODELS[name].family, costs[name], mean(runs, "test"))
        for name, runs in records.items()
        if name in costs
    ]


def timed_points(records: dict[str, list[Record]], times: Record) -> dict[str, list[Point]]:
    """Return the points of a set by kind of call."""
    return {
        kind: points_of(
            records, {name: found["microseconds"] for name, found in times[kind].items()}
        )
        for kind in KINDS
    }


def mean(records: Sequence[Record], key: str) -> float:
    """Return the mean of a figure over records."""
    return statistics.fmean(record[key] for record in records)
