"""Tables and verdicts of each set."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from benchmarks.crossover.models import MODELS
from benchmarks.crossover.pictures import draw
from benchmarks.crossover.sets import SOURCES
from benchmarks.crossover.timing import last_times
from benchmarks.crossover.training import chosen, tries_of
from benchmarks.crossover.verdicts import (
    KINDS,
    Point,
    front,
    mean,
    points_of,
    timed_points,
    verdict,
)
from benchmarks.records import Record
from benchmarks.report import facts, table

COLUMNS = ("model", "seeds", "test", "held out", "parameters", "multiply-adds", "training")

OWN_RUNTIMES = ("fffcpu", "fffcpu trees", "scikit-learn", "LightGBM")
"""Runtimes that the name of a model implies."""


def show(options: argparse.Namespace) -> None:
    """Print tables and verdicts, and draw."""
    everything = chosen(options.out)
    times = last_times(options.out, options.threads)
    sets = [data for data in SOURCES if data in everything and data in options.data]
    for data in sets:
        print("\n".join(describe(data, everything[data], times.get(data))), end="\n\n")
    planes = {
        "pareto-multiply-adds": (
            "multiply-adds per row (boosted trees: comparisons)",
            {data: operations_of(everything[data]) for data in sets},
        )
    }
    for kind, label in KINDS.items():
        panels = {
            data: timed_points(everything[data], times[data])[kind]
            for data in sets
            if data in times
        }
        planes["pareto" if kind == "batch" else f"pareto-{kind}"] = label, panels
    for name, (label, panels) in planes.items():
        if panels:
            draw(panels, label, options.out / f"{name}.svg")


def operations_of(records: dict[str, list[Record]]) -> list[Point]:
    """Return the points of a set with multiply-adds as the cost."""
    return points_of(records, {name: mean(runs, "operations") for name, runs in records.items()})


def describe(data: str, records: dict[str, list[Record]], times: Record | None) -> list[str]:
    """Return the lines of a set: its table, the machine of its times, its verdicts."""
    found = times or {kind: {} for kind in KINDS}
    points = timed_points(records, found)
    fronts = {kind: {point.model for point in front(points[kind])} for kind in KINDS}
    order = sorted(
        records, key=lambda name: found["batch"].get(name, {}).get("microseconds", math.inf)
    )
    rows = []
    for name in order:
        runs = records[name]
        on = [kind for kind in KINDS if name in fronts[kind]]
        cells = (
            name,
            len(runs),
            f"{mean(runs, 'test'):.2%}",
            f"{mean(runs, 'validation'):.2%}",
            f"{mean(runs, 'parameters'):,.0f}",
            f"{mean(runs, 'operations'):,.0f}",
            f"{mean(runs, 'seconds'):,.1f} s",
            *(cost(found[kind].get(name)) for kind in KINDS),
            ", ".join(on) or "-",
        )
        rows.append(cells)
    head = [*COLUMNS, *KINDS.values(), "on the front"]
    lines = [f"### {data}", "", *table(head, rows)]
    missing = [name for name in MODELS if name not in records]
    partly = [name for name, runs in records.items() if lacks_tries(name, runs)]
    for what, names in (("Not trained", missing), ("Not all settings tried", partly)):
        if names:
            lines += ["", f"{what}: {', '.join(names)}."]
    lines.append("")
    if times is None:
        return [*lines, f"{data}: not timed"]
    conditions = f"{times['threads']} threads; load before {times['load']:.2f}"
    lines += [f"{conditions}; {facts(times['machine'])}", ""]
    for kind in KINDS:
        lines.append(f"- **{data}, {kind}**: {verdict(points[kind], times['test_rows'])}")
    return lines


def lacks_tries(name: str, runs: Sequence[Record]) -> bool:
    """Whether a run was chosen from fewer settings than there are."""
    return any(run["tries"] < len(tries_of(name)) for run in runs)


def cost(timing: Record | None) -> str:
    """Return a time, its spread, and its runtime unless that is the model's own."""
    if timing is None:
        return "-"
    other = "" if timing["runtime"] in OWN_RUNTIMES else f" {timing['runtime']}"
    return f"{timing['microseconds']:.3g} ± {timing['spread']:.0%}{other}"
