"""Training: every layer fitted once to the inputs and outputs of every feedforward."""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.accuracy.worth.models import (
    LINEAR,
    MODELS,
    QUICK_TOKENS,
    held_out_path,
    layer_path,
    recipe_of,
)
from benchmarks.data.minilm import read_about, read_activations
from benchmarks.records import Record, append_records, read_records
from fffcpu.data import Table
from fffcpu.inference.predictor import Predictor
from fffcpu.recipes.fitting import FitSettings, evaluate_table, fit
from fffcpu.recipes.scaling import Scaling
from fffcpu.recipes.table_objective import tally_of
from fffcpu.system.files import write_atomically
from fffcpu.system.terminal import progress_bar

Array = np.ndarray


class Rows(NamedTuple):
    """Inputs (R, I) and outputs (R, O) of a feedforward, one row per token."""

    x: Array
    y: Array
    test_x: Array
    """Inputs of the tokens held out."""
    test_y: Array


class Run(NamedTuple):
    """One training."""

    layer: int
    model: str
    seed: int

    @property
    def is_saved(self) -> bool:
        """Whether the run leaves a file, to be timed."""
        return self.seed == 0 and MODELS[self.model].family != LINEAR

    @property
    def is_repeated(self) -> bool:
        """Whether the run is done with several seeds."""
        return MODELS[self.model].family != LINEAR and not MODELS[self.model].origin


def records_path(out: Path) -> Path:
    """Return the file of the records of runs."""
    return out / "models.jsonl"


def train(options: argparse.Namespace) -> None:
    """Fit every layer, as far as that has not been done."""
    for folder in ("data", "layers"):
        (options.out / folder).mkdir(parents=True, exist_ok=True)
    runs = missing(options)
    with progress_bar(total=len(runs), unit="run", shown=True, kept=True) as bar:
        for layer, own in itertools.groupby(runs, key=lambda run: run.layer):
            rows = read_rows(options, layer)
            write_held_out(held_out_path(options.out, layer), rows)
            for run in own:
                bar.set_description(f"seed {run.seed}, feedforward {layer}, {run.model}")
                do(run, rows, recipe_of(options), options.out)
                bar.update()


def missing(options: argparse.Namespace) -> list[Run]:
    """Return the runs without a record, and those whose file is missing.

    Raises
    ------
    SystemExit
        If the folder has runs of another recipe.
    """
    recipe, done = recipe_of(options), set()
    for record in read_records(records_path(options.out)):
        if record["recipe"] != recipe:
            raise SystemExit(
                f"{options.out} has runs of another recipe, {record['recipe']} instead of "
                f"{recipe}; choose another folder"
            )
        done.add(run_of(record))
    return [
        run
        for run in plan(options)
        if run not in done
        or (run.is_saved and not layer_path(options.out, run.layer, run.model).exists())
    ]


def run_of(record: Record) -> Run:
    """Return the run of a record."""
    return Run(*(record[key] for key in Run._fields))


def plan(options: argparse.Namespace) -> Iterator[Run]:
    """Yield all runs, one seed after the other, so that a whole table is done first."""
    layers = options.layers or range(read_about(options.folder)["layers"])
    models = [name for name in MODELS if name in options.models]  # fitted before quantized
    for seed, layer, model in itertools.product(range(options.seeds), layers, models):
        run = Run(layer, model, seed)
        if seed == 0 or run.is_repeated:
            yield run


def read_rows(options: argparse.Namespace, layer: int) -> Rows:
    """Return the rows of a feedforward."""
    counts = {
        "training": recipe_of(options)["tokens"],
        "held-out": QUICK_TOKENS if options.quick else None,
    }
    return Rows(
        *(
            np.array(side[:count])
            for split, count in counts.items()
            for side in read_activations(options.folder, layer, split)
        )
    )


def write_held_out(path: Path, rows: Rows) -> None:
    """Write the rows held out, unless the file is there."""
    if not path.exists():
        with write_atomically(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, x=rows.test_x, y=rows.test_y)


def do(run: Run, rows: Rows, recipe: Record, out: Path) -> None:
    """Fit a layer, save it, and append its record."""
    start = time.perf_counter()
    model = MODELS[run.model]
    if model.family == LINEAR:
        figures = fit_linear(rows)
    else:
        if model.origin:
            predictor = quantize(layer_path(out, run.layer, model.origin), model.weights)
        else:
            predictor = fit_layer(run, rows, recipe)
        figures = figures_of_layer(predictor, rows)
        if run.is_saved:
            predictor.save(layer_path(out, run.layer, run.model))
    record = {
        **run._asdict(),
        "family": model.family,
        "used": model.used,
        **figures,
        "seconds": time.perf_counter() - start,
        "settings": model.sizes,
        "recipe": recipe,
    }
    append_records(records_path(out), [record])


def fit_layer(run: Run, rows: Rows, recipe: Record) -> Predictor:
    """Train a layer of fffcpu. Inputs and outputs are standardized by column."""
    given = {name: value for name, value in recipe.items() if name != "tokens"}
    sizes = MODELS[run.model].sizes
    settings = FitSettings(validation=0.0, seed=run.seed, **given, **sizes)
    return fit(Table(rows.x, rows.y), settings, progress=False).predictor


def quantize(path: Path, weights: str) -> Predictor:
    """Return a fitted layer with weights of a narrower type.

    Raises
    ------
    SystemExit
        If the layer was not fitted.
    """
    if not path.exists():
        raise SystemExit(f"no {path}; fit that layer first")
    predictor = Predictor.load(path)
    return Predictor(predictor.layer.quantize(weights), predictor.schema)


def figures_of_layer(predictor: Predictor, rows: Rows) -> Record:
    """Return the size of a layer, and R2 on the tokens held out."""
    return {
        "held": predictor.layer.config.neurons,
        "parameters": sum(array.size for array in predictor.layer.params.values()),
        "r2": evaluate_table(predictor, Table(rows.test_x, rows.test_y))["r2"],
    }


def fit_linear(rows: Rows) -> Record:
    """Return the figures of the best linear map."""
    scaling = Scaling.of(rows.x, np.arange(len(rows.x)), "columns")

    def design(x: Array) -> Array:
        return np.column_stack((scaling.apply(x, np.float64), np.ones(len(x))))

    weights = np.linalg.lstsq(design(rows.x), rows.y.astype(np.float64), rcond=None)[0]
    found = tally_of(
        lambda block: design(rows.test_x[block]) @ weights,
        rows.test_y,
        np.arange(len(rows.test_y)),
    ).figures()
    return {"held": 0, "parameters": weights.size, "r2": found["r2"]}
