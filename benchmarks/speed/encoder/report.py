"""The results of a run, as tables and as JSON."""

from __future__ import annotations

import os
import statistics
from typing import Any

from benchmarks.report import facts, table
from benchmarks.speed.encoder.run import Run
from benchmarks.speed.figures import figure_table
from fffcpu.benchmarking.timing import Timing
from fffcpu.system import blas
from fffcpu.system.terminal import format_number


def header(run: Run) -> dict[str, Any]:
    """Return the command, the machine, the versions and the options."""
    return {**run.header(("onnxruntime", "torch")), blas.VARIABLE: spin()}


def spin() -> str:
    """Return how long idle threads of NumPy's BLAS spin, and who set it."""
    if blas.APPLIED:
        return f"{blas.SPIN}, by fffcpu"
    return os.environ.get(blas.VARIABLE, "not set")


def format_report(run: Run) -> str:
    """Return all results as tables in Markdown."""
    values = header(run)
    lines = [
        f"`{values.pop('command')}`",
        "",
        f"{facts(values)}.",
        "",
        *figure_table(run.figures),
    ]
    if run.counts:
        rows = [(what, format_count(value)) for what, value in run.counts.items()]
        lines += ["", *table(("predictions alone and in batches", ""), rows)]
    head = ("contender", "tokens/s", "ms per call", "spread")
    for title, timings in run.races:
        lines += ["", f"{title}.", "", *table(head, map(timing_cells, timings))]
    return "\n".join([*lines, "", *(f"- {note}" for note in run.notes)])


def format_count(value: float) -> str:
    """Return a count in full, or a measure with three digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def timing_cells(timing: Timing) -> tuple[str, ...]:
    """Return a timing as a row of a table."""
    return (
        timing.name,
        f"{timing.rows_per_second:,.0f}",
        format_number(1000 * statistics.median(timing.seconds)),
        f"{100 * timing.spread:.0f} %",
    )


def report(run: Run) -> dict[str, Any]:
    """Return all results as JSON values."""
    return {
        **header(run),
        "figures": run.figures_as_json(),
        "races": [
            {
                "title": title,
                "timings": [
                    {
                        "name": timing.name,
                        "tokens": timing.rows,
                        "tokens_per_second": timing.rows_per_second,
                        "spread": timing.spread,
                        "seconds_per_call": list(timing.seconds),
                    }
                    for timing in timings
                ],
            }
            for title, timings in run.races
        ],
        "alone": run.counts,
        "notes": run.notes,
    }
