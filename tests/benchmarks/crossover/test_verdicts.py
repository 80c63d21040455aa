"""Fronts of cost and accuracy, and stretches of them."""

from __future__ import annotations

import pytest

from benchmarks.crossover import verdicts
from tests.benchmarks.crossover.support import DENSE, point


def test_the_front_is_what_nothing_cheaper_reaches():
    points = [*DENSE, point("fff-1x3", 4.0, 0.85), point("mlp-64", 20.0, 0.90)]
    assert [point.model for point in verdicts.front(points)] == ["dense-4", "dense-16"]


@pytest.mark.parametrize(
    ("cost", "accuracy", "rival"),
    [
        (2.0, 0.85, "dense-4"),
        (3.4, 0.85, "dense-4"),
        (3.6, 0.85, "no stretch"),  # dense-16 is as fast, but for noise
        (2.0, 0.803, "no stretch"),  # of 1,000 rows the standard error is 0.0126
        (5.0, 0.93, "dense-16"),
        (0.5, 0.3, None),
        (4.0, 0.90, "no stretch"),
    ],
)
@pytest.mark.parametrize("model", ["fff-4x3", "two-4x3", "leaf-4x8"])
def test_a_stretch_is_more_accurate_than_all_that_is_as_fast(model, cost, accuracy, rival):
    points = [*DENSE, point(model, cost, accuracy)]
    found = verdicts.stretch(points, 1000)
    assert [(own.model, other and other.model) for own, other in found] == (
        [] if rival == "no stretch" else [(model, rival)]
    )
    assert verdicts.verdict(points, 1000).startswith("no FFF" if not found else "has an FFF")


def test_dense_models_have_no_fff_stretch():
    assert verdicts.stretch(DENSE, 1000) == []
