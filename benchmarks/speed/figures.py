"""Figures with their goals: lines of one table."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from benchmarks.report import table
from fffcpu.benchmarking.timing import Timing, ratios
from fffcpu.system.terminal import format_number

__all__ = ["Figure", "figure_table"]


class Figure(NamedTuple):
    """A line of the table."""

    what: str
    value: float
    low: float
    high: float
    unit: str
    goal: float | None = None
    at_least: bool = True
    """Whether the goal is a lower limit. Otherwise it is an upper one."""

    @classmethod
    def at_most(
        cls, what: str, rounds: Sequence[float], unit: str, goal: float | None = None
    ) -> Figure:
        """Return a figure that should be small: the median of those of the rounds."""
        return cls(what, statistics.median(rounds), min(rounds), max(rounds), unit, goal, False)

    @classmethod
    def times_faster(
        cls, what: str, slow: Timing, fast: Timing, goal: float | None = None
    ) -> Figure:
        """Return the time of one contender over that of another as a figure."""
        rounds = ratios(slow, fast)
        return cls(what, statistics.median(rounds), min(rounds), max(rounds), "x", goal)

    @property
    def verdict(self) -> str:
        """Whether the goal was reached."""
        if self.goal is None:
            return "-"
        reached = self.value >= self.goal if self.at_least else self.value <= self.goal
        return "reached" if reached else "missed"

    @property
    def cells(self) -> tuple[str, ...]:
        """The figure as a row of the table."""
        goal = "-"
        if self.goal is not None:
            limit = "at least" if self.at_least else "at most"
            goal = f"{limit} {self.goal:.4g} {self.unit}"
        return (
            self.what,
            f"{format_number(self.value)} {self.unit}",
            f"{format_number(self.low)} to {format_number(self.high)}",
            goal,
            self.verdict,
        )


def figure_table(figures: Iterable[Figure]) -> list[str]:
    """Return the lines of the table."""
    return table(("figure", "median", "range", "goal", ""), (figure.cells for figure in figures))
