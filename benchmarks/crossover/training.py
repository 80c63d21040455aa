"""Training: every run once, and the chosen run of each model."""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.crossover.models import (
    FAST,
    MODELS,
    TRAIN,
    TRIES,
    attempt_of,
    installed,
    model_path,
    save,
    settings_of,
)
from benchmarks.crossover.sets import SOURCES, Rows, prepared
from benchmarks.records import Record, append_records, read_records
from fffcpu.system.terminal import print_status, progress_bar


def chosen(out: Path) -> dict[str, dict[str, list[Record]]]:
    """Return the run of each seed that the held-out rows choose, by set and model.

    `tries` of a run is the number of settings that it was chosen from. Runs with settings that are
    no longer tried count only where a model has no others.
    """
    # A run that was done again has two records, and its file belongs to the last.
    last = {model_path(out, record): record for record in read_records(out / "models.jsonl")}
    runs: dict[tuple[str, str, int], list[Record]] = {}
    for record in last.values():
        runs.setdefault((record["data"], record["model"], record["seed"]), []).append(record)
    result: dict[str, dict[str, list[Record]]] = {}
    for (data, name, _), records in runs.items():
        present = [record for record in records if attempt_of(record) in tries_of(name)]
        records = present or records
        best = max(records, key=lambda record: record["validation"])  # of equals the first
        result.setdefault(data, {}).setdefault(name, []).append(best | {"tries": len(records)})
    return result


def tries_of(name: str) -> list[dict[str, float]]:
    """Return the settings that are tried for a model."""
    return TRIES[MODELS[name].family]


class Run(NamedTuple):
    """One training."""

    data: str
    model: str
    seed: int
    settings: Record


def train(options: argparse.Namespace) -> None:
    """Train every model on every set, as far as that has not been done."""
    options.models = installed(options.models)
    for folder in ("data", "models"):
        (options.out / folder).mkdir(parents=True, exist_ok=True)
    present = [data for data in options.data if is_present(data, options)]
    # Repeated, since a chosen run that is done again may no longer be the best of its settings.
    while runs := missing(present, options):
        with progress_bar(total=len(runs), unit="run", shown=True, kept=True) as bar:
            for data, own in itertools.groupby(runs, key=lambda run: run.data):
                rows = prepared(data, options)
                for run in own:
                    bar.set_description(f"{data} {run.model}")
                    do(run, rows, options.out)
                    bar.update()


def run_of(record: Record) -> Run:
    """Return the run of a record."""
    run = Run(*(record[key] for key in Run._fields))
    if MODELS[run.model].family != FAST:
        return run
    # Records that do not mention the sides are older than two-sided nodes.
    return run._replace(settings={"two_sided": False, **run.settings})


def missing(present: Sequence[str], options: argparse.Namespace) -> list[Run]:
    """Return the runs that have no record, and the chosen runs that have no file."""
    done = [run_of(record) for record in read_records(options.out / "models.jsonl")]
    lost = [
        run_of(record)
        for models in chosen(options.out).values()
        for record in itertools.chain(*models.values())
        if not model_path(options.out, record).exists()
    ]
    return [run for run in plan(present, options) if run not in done or run in lost]


def plan(present: Sequence[str], options: argparse.Namespace) -> Iterator[Run]:
    """Yield all runs, one seed after the other, so that a whole table is done first."""
    for seed, data, name in itertools.product(range(options.seeds), present, options.models):
        for attempt in tries_of(name):
            yield Run(data, name, seed, settings_of(data, name, attempt, options.quick))


def is_present(data: str, options: argparse.Namespace) -> bool:
    """Prepare a set, and return whether its files are there."""
    try:
        prepared(data, options)
    except FileNotFoundError as error:
        print_status(f"{data} left out: no {error.filename}")
        return False
    return True


def do(run: Run, rows: Rows, out: Path) -> None:
    """Train a model, save it, and append its record."""
    family = MODELS[run.model].family
    start = time.perf_counter()
    trained = TRAIN[family](rows, SOURCES[run.data], run.settings, run.seed)
    seconds = time.perf_counter() - start
    figures = {key: float(value) for key, value in trained._asdict().items() if key != "model"}
    record = {
        **run._asdict(),
        "family": family,
        **figures,
        "parameters": trained.parameters,
        "seconds": seconds,
    }
    # The record comes first: a chosen run without a file is done again. No older file may stay.
    path = model_path(out, record)
    path.unlink(missing_ok=True)
    append_records(out / "models.jsonl", [record])
    save(trained.model, path)
