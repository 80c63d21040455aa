"""One table of quality and time, a row per encoder."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.accuracy.distillation.quality import KEYS, last_records, quality_path
from benchmarks.accuracy.distillation.timing import times_path
from benchmarks.records import Record, read_records
from benchmarks.report import facts, table

__all__ = ["show"]

FIGURES = {"similarity": "similarity", "neighbours": "neighbours", "cosine": "cosine"}
"""Figures of a record that are compared by kind of text, and their names in the table."""


def show(options: argparse.Namespace) -> None:
    """Print the table, and under which conditions the times were measured."""
    qualities, times = last_records(quality_path(options.out)), read_times(options.out)
    if not qualities and not times:
        raise SystemExit(f"no records in {options.out}; `quality` and `time` make them")
    print("\n".join([*describe(qualities, times), "", *conditions(times)]))


def read_times(out: Path) -> dict[str, Record]:
    """Return the last alternation of each shape."""
    return {record["shape"]: record for record in read_records(times_path(out))}


def describe(qualities: Mapping[tuple[Any, ...], Record], times: Mapping[str, Record]) -> list[str]:
    """Return the lines of the table."""
    kinds = names_in(qualities, "texts")
    probes = names_in(qualities, "probes")
    spent = {
        shape: {key_of(one): one["microseconds"] for one in record["encoders"]}
        for shape, record in times.items()
    }
    head = [
        "encoder",
        "runtime",
        *(f"{figure}, {kind}" for figure in FIGURES.values() for kind in kinds),
        *(f"probe, {probe}" for probe in probes),
        *(f"µs per token, {shape}" for shape in spent),
    ]
    keys = dict.fromkeys([*(key for own in spent.values() for key in own), *qualities])
    rows = []
    for key in keys:
        record = qualities.get(key) or qualities.get(same_numbers(key), {})
        figures = [
            *(record.get(name, {}).get(kind) for name in FIGURES for kind in kinds),
            *(record.get("probes", {}).get(probe) for probe in probes),
        ]
        rows.append([*key[:2], *map(decimals, figures), *times_of(key, spent)])
    return table(head, rows)


def key_of(record: Record) -> tuple[Any, ...]:
    """Return what says which encoder a record is about."""
    return tuple(record[name] for name in KEYS)


def same_numbers(key: Sequence[Any]) -> tuple[Any, ...]:
    """Return the key of the encoder in fffcpu that computes the same: float32 in onnxruntime."""
    model, runtime, weights = key
    return (model, runtime.replace("onnxruntime float32", "fffcpu float32"), weights)


def names_in(qualities: Mapping[tuple[Any, ...], Record], entry: str) -> list[str]:
    """Return the names in an entry of any record, in their order."""
    return list(dict.fromkeys(name for record in qualities.values() for name in record[entry]))


def decimals(value: float | None) -> str:
    """Return a figure, or a dash."""
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


def times_of(
    key: tuple[Any, ...], spent: Mapping[str, Mapping[tuple[Any, ...], float]]
) -> Iterator[str]:
    """Yield the times of an encoder, a dash where it was not timed."""
    for times in spent.values():
        yield f"{times[key]:.1f}" if key in times else "-"


def conditions(times: Mapping[str, Record]) -> list[str]:
    """Return the lines on how the times were measured."""
    return [
        f"{shape}: threads {record['threads']}, load before {record['load']:.2f}, largest spread "
        f"{max(one['spread'] for one in record['encoders']):.0%}; {facts(record['machine'])}"
        for shape, record in times.items()
    ]
