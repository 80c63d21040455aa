"""Figures, their goals and their table."""

from __future__ import annotations

import pytest

from benchmarks.speed.figures import Figure, figure_table
from fffcpu.benchmarking.timing import Timing


@pytest.mark.parametrize(
    ("goal", "at_least", "verdict"),
    [(None, True, "-"), (2.0, True, "reached"), (4.0, True, "missed"), (2.0, False, "missed")],
)
def test_the_verdict_depends_on_the_side_of_the_goal(goal, at_least, verdict):
    assert Figure("a", 3.0, 2.0, 4.0, "x", goal, at_least).verdict == verdict


def test_figures_are_medians_of_the_rounds():
    slow, fast = Timing("slow", 1, 1, (2.0, 9.0, 8.0)), Timing("fast", 1, 1, (1.0, 1.0, 2.0))
    assert Figure.times_faster("a", slow, fast, 3.0) == Figure("a", 4.0, 2.0, 9.0, "x", 3.0)
    found = Figure.at_most("b", [3.0, 1.0, 2.0], "s", 2.5)
    assert found == Figure("b", 2.0, 1.0, 3.0, "s", 2.5, False)
    assert figure_table([found]) == [
        "| figure | median | range | goal |  |",
        "| --- | --- | --- | --- | --- |",
        "| b | 2.00 s | 1.00 to 3.00 | at most 2.5 s | reached |",
    ]
