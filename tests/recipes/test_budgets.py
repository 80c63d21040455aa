"""Budgets of trainings on texts: one at most, and how often a run evaluates."""

from __future__ import annotations

import dataclasses

import pytest

from fffcpu.errors import ArgumentError, ArgumentTypeError
from fffcpu.recipes.budgets import evaluate_every, note_every, settle_budget, spread

NAMES = ("epochs", "steps", "seconds")


@dataclasses.dataclass(frozen=True)
class Settings:
    epochs: float | None = None
    steps: int | None = None
    seconds: float | None = None

    def __post_init__(self):
        settle_budget(self, NAMES, 3.0)


def test_the_default_counts_only_without_a_budget():
    assert Settings() == Settings(epochs=3.0)
    assert dataclasses.astuple(Settings(steps=5)) == (None, 5, None)
    assert dataclasses.astuple(Settings(seconds=0.5)) == (None, None, 0.5)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"epochs": 1.0, "seconds": 1.0}, ArgumentError, "'epochs', 'steps' or 'seconds' must be"),
        ({"epochs": 0.0}, ArgumentError, "'epochs' must be above 0, got 0"),
        ({"seconds": -1.0}, ArgumentError, "'seconds'"),
        ({"steps": 0}, ArgumentError, "'steps'"),
        ({"steps": 1.5}, ArgumentTypeError, "'steps'"),
    ],
)
def test_wrong_budgets_are_errors(given, error, message):
    with pytest.raises(error, match=message):
        Settings(**given)


def test_long_runs_evaluate_as_often_as_short_ones():
    assert evaluate_every(1000) == 100
    assert evaluate_every(1000, 4) == 250
    assert evaluate_every(3) == note_every(3) == 1
    assert note_every(1000) == 5
    assert evaluate_every(None) > note_every(None)


def test_spread_numbers_reach_from_the_first_to_the_last():
    assert spread(9, 3).tolist() == [0, 4, 8]
    assert spread(2, 5).tolist() == [0, 1]
    assert spread(0, 5).tolist() == spread(5, 0).tolist() == []
