"""A table of each set: the scores of all tries, and their differences to that of the base."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence

from benchmarks.accuracy.learning.recipes import BASE, Recipe
from benchmarks.accuracy.learning.sets import SOURCES, recipe_of, tries_of
from benchmarks.accuracy.learning.training import Run, finished, records_path
from benchmarks.records import Record
from benchmarks.report import facts, table

Runs = dict[int, Record]
"""The runs of a try by seed."""


def show(options: argparse.Namespace) -> None:
    """Print the tables."""
    found = read_runs(options)
    if not found:
        raise SystemExit(f"no runs in {records_path(options.out)}; `train` makes them")
    blocks = [describe(data, found[data], options.quick) for data in SOURCES if data in found]
    print("\n\n".join("\n".join(lines) for lines in blocks))


def read_runs(options: argparse.Namespace) -> dict[str, dict[str, Runs]]:
    """Return the runs of the chosen sets and tries whose recipes are those of today, by both."""
    found: dict[str, dict[str, Runs]] = {}
    for run, record in finished(options.out):
        chosen = run.data in options.sets and run.name in options.tries
        if chosen and run.recipe == today(run, options.quick):
            found.setdefault(run.data, {}).setdefault(run.name, {})[run.seed] = record
    return found


def today(run: Run, quick: bool) -> Recipe | None:
    """Return the recipe that a run's try has now, or None if there is no such try."""
    known = run.name in tries_of(run.data)
    return recipe_of(run.data, run.name, quick) if known else None


def describe(data: str, found: Mapping[str, Runs], quick: bool) -> list[str]:
    """Return the lines of a set: its base and its table, the best try first."""
    source = SOURCES[data]
    order = sorted(found, key=lambda name: -mean(found[name], "score"))
    rows = []
    for name in order:
        runs = found[name]
        rows.append(
            (
                name,
                len(runs),
                f"{mean(runs, 'score'):{source.form}}{spread(runs, source.form)}",
                difference(runs, found.get(BASE, {}), source.form),
                f"{mean(runs, 'train_score'):{source.form}}",
                f"{mean(runs, 'seconds'):,.0f} s",
            )
        )
    head = ("try", "seeds", source.score, "difference to base", "train", "training")
    base = recipe_of(data, BASE, quick)._asdict()
    own = {key: value for key, value in base.items() if value != Recipe._field_defaults.get(key)}
    return [f"### {data}", "", f"Base: {facts(own)}.", "", *table(head, rows)]


def mean(runs: Runs, key: str) -> float:
    """Return the mean of a figure over the seeds."""
    return statistics.fmean(record[key] for record in runs.values())


def spread(runs: Runs, form: str) -> str:
    """Return half of the range of the scores over the seeds, if there are several."""
    scores = [record["score"] for record in runs.values()]
    return f" ± {(max(scores) - min(scores)) / 2:{form}}" if len(scores) > 1 else ""


def difference(runs: Runs, base: Runs, form: str) -> str:
    """Return the mean difference to the base over the seeds that both have, or a dash."""
    shared: Sequence[int] = sorted(runs.keys() & base.keys())
    if not shared or runs is base:
        return "-"
    gain = statistics.fmean(runs[seed]["score"] - base[seed]["score"] for seed in shared)
    return f"{gain:+{form}}"
