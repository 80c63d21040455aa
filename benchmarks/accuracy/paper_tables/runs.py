"""Runs: a cell trained with a seed is a record, and no run is done twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.paper_tables import methods
from benchmarks.accuracy.paper_tables.cells import Cell, tuned
from benchmarks.data.tables import read_data
from benchmarks.records import Record, append_records, read_records
from fffcpu.data import Table
from fffcpu.recipes.fitting import FitSettings, evaluate_table, fit
from fffcpu.recipes.table_objective import Scaling
from fffcpu.system.terminal import progress_bar
from fffcpu.training.batches import split_rows


def train(cell: Cell, seed: int, folder: Path) -> Record:
    """Train a layer and return its record."""
    training, test = read_data(folder, cell.data)
    settings = FitSettings(layer=cell.layer, seed=seed, **cell.sizes, **cell.settings)
    learned, _ = split_rows(len(training.x), settings.validation, seed)
    make_layer = maker(cell, training, learned) if cell.maker else None
    fitted = fit(training, settings, progress=False, make_layer=make_layer)
    config = fitted.predictor.layer.config
    record = {
        **cell.run(seed),
        "neurons": {"held": config.neurons, "used": config.active_neurons},
        "train": evaluate_table(fitted.predictor, training, learned)["accuracy"],
        "validation": fitted.validation["accuracy"],
        "test": evaluate_table(fitted.predictor, test)["accuracy"],
        "seconds": fitted.outcome.seconds,
    }
    if cell.layer == "fast":
        record["unused"] = methods.prune(fitted.predictor.layer, training.x[np.sort(learned)])
        record["pruned"] = evaluate_table(fitted.predictor, test)["accuracy"]
    return record


def maker(
    cell: Cell, table: Table, learned: NDArray[np.int64]
) -> Callable[[FitSettings, int, int], Any]:
    """Return the function that makes the layer of a method that the library does not have."""

    def make(settings: FitSettings, inputs: int, outputs: int) -> Any:
        scaling = Scaling.of(table.x, learned, settings.standardize)
        some = np.sort(np.random.default_rng(settings.seed).permutation(learned)[:SOME_ROWS])
        context = methods.Context(
            scaling.apply(table.x[some], np.float32),
            settings.epochs * -(-len(learned) // settings.batch_size),
            tuned(cell.data, "fast")["weight_decay"],
        )
        return methods.MAKERS[cell.maker](settings, inputs, outputs, context)

    return make


SOME_ROWS = 10_000
"""Most rows from which a method may make a layer."""


def key_of(run: Mapping[str, Any]) -> str:
    """Return the key of a run or of its record. Old records have no maker."""
    names = ("data", "layer", "sizes", "seed", "settings", "maker")
    return json.dumps([run.get(name, "") for name in names], sort_keys=True)


def by_key(records: Iterable[Record]) -> dict[str, Record]:
    """Return records by their keys."""
    return {key_of(record): record for record in records}


def carry_out(cells: Sequence[Cell], seeds: int, folder: Path, path: Path) -> None:
    """Do the runs that the file does not hold, seed by seed."""
    known = by_key(read_records(path))
    planned = {key_of(cell.run(seed)): (cell, seed) for seed in range(seeds) for cell in cells}
    missing = [run for key, run in planned.items() if key not in known]
    with runs_bar(len(planned), len(missing)) as bar:
        for cell, seed in missing:
            bar.set_description(f"seed {seed}, {cell.data}, {cell}")
            append_records(path, [train(cell, seed, folder)])
            bar.update()


def runs_bar(total: int, missing: int) -> Any:
    """Return a progress bar that also counts the runs of before."""
    return progress_bar(total=total, initial=total - missing, unit="run", kept=True)
