"""The results of a run, as tables and as JSON."""

from __future__ import annotations

import math
from typing import Any

from benchmarks.report import facts, table
from benchmarks.speed.figures import figure_table
from benchmarks.speed.layers.run import Race, Run
from fffcpu.benchmarking.roofline import format_rates
from fffcpu.system.terminal import format_number


def header(run: Run) -> dict[str, Any]:
    """Return the command, the machine, the versions and the options."""
    return {
        **run.header(("onnxruntime", "torch", "scikit-learn")),
        "onnxruntime spinning": "off" if run.options.no_spinning else "on (its default)",
    }


def format_report(run: Run) -> str:
    """Return all results as tables in Markdown."""
    values = header(run)
    lines = [
        f"`{values.pop('command')}`",
        "",
        f"{run.sizes.shape}, float32, unless a line names another layer.",
        f"{facts(values)}.",
        "",
        *figure_table(run.figures),
    ]
    for race in run.races:
        lines += ["", *format_race(race)]
    return "\n".join([*lines, "", *(f"- {note}" for note in run.notes)])


def format_race(race: Race) -> list[str]:
    """Return the table of an alternation."""
    copy = race.roofline.copy.gigabytes or math.nan
    gemm = race.roofline.gemm.gigaflops or math.nan
    rows = []
    for timing in race.timings:
        best = race.roofline.microseconds(timing)
        size, flops, fraction = format_rates(timing, race.roofline)
        rows.append(
            (
                timing.name,
                format_number(timing.microseconds),
                f"{100 * timing.spread:.0f} %",
                f"{timing.rows_per_second:,.0f}",
                size,
                flops,
                "-" if best is None else format_number(best),
                fraction,
            )
        )
    head = (
        *("contender", "us per row", "spread", "rows/s", "GB/s", "GFLOP/s"),
        *("roofline, us", "of roofline"),
    )
    return [
        f"{race.title}. The machine meanwhile: copy {copy:.1f} GB/s, GEMM {gemm:.0f} GFLOP/s.",
        "",
        *table(head, rows),
    ]


def report(run: Run) -> dict[str, Any]:
    """Return all results as JSON values."""
    return {
        **header(run),
        "figures": run.figures_as_json(),
        "races": [
            {
                "title": race.title,
                "copy_gigabytes_per_second": race.roofline.copy.gigabytes,
                "gemm_gigaflops": race.roofline.gemm.gigaflops,
                "timings": [
                    {
                        "name": timing.name,
                        "rows": timing.rows,
                        "microseconds_per_row": timing.microseconds,
                        "spread": timing.spread,
                        "gigabytes_per_second": timing.gigabytes,
                        "gigaflops": timing.gigaflops,
                        "roofline_microseconds_per_row": race.roofline.microseconds(timing),
                        "fraction_of_roofline": race.roofline.fraction(timing),
                        "seconds_per_call": list(timing.seconds),
                    }
                    for timing in race.timings
                ],
            }
            for race in run.races
        ],
        "notes": run.notes,
    }
