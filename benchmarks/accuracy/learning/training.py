"""Training: every try once on every set, with one loop for all of them."""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from benchmarks.accuracy.learning.constraints import Constrained
from benchmarks.accuracy.learning.flips import Flipped
from benchmarks.accuracy.learning.recipes import UNIFORM, Recipe
from benchmarks.accuracy.learning.routes import Routed
from benchmarks.accuracy.learning.sets import Rows, read_rows, recipe_of, tries_of
from benchmarks.accuracy.learning.sides import WithConstants
from benchmarks.accuracy.learning.soft import Annealed
from benchmarks.accuracy.learning.starts import fit_start
from benchmarks.records import Record, append_records, read_records
from fffcpu import DenseFeedForward, FastFeedForward
from fffcpu.recipes.table_objective import tally_of
from fffcpu.system.terminal import print_status, progress_bar
from fffcpu.training import (
    AdamW,
    clip_gradients,
    cosine,
    mean_squared_error,
    softmax_cross_entropy,
)
from fffcpu.training.batches import BatchOrder

Array = np.ndarray

MAX_NORM = 1.0
"""Largest norm of the gradients."""

SCORED_ROWS = 20_000
"""Most training rows whose score is computed."""


class Model(Protocol):
    """A layer, and how it learns. ``fraction`` is the fraction of the steps that are done."""

    @property
    def params(self) -> Mapping[str, Array]:
        """The arrays that training changes."""
        ...

    def __call__(self, x: Array) -> Array:
        """Return the output (B, O)."""
        ...

    def forward(self, x: Array, fraction: float) -> tuple[Array, Any]:
        """Return the output, and what `backward` needs."""
        ...

    def backward(self, dy: Array, cache: Any, fraction: float) -> dict[str, Any]:
        """Return the gradients of the parameters."""
        ...


class Dense:
    """A dense layer."""

    def __init__(self, layer: DenseFeedForward) -> None:
        self.layer, self.params = layer, layer.params

    def __call__(self, x: Array) -> Array:
        """Return the output (B, O)."""
        return self.layer(x)

    def forward(self, x: Array, fraction: float) -> tuple[Array, Any]:
        """Return the output, and what `backward` needs."""
        return self.layer.forward(x)

    def backward(self, dy: Array, cache: Any, fraction: float) -> dict[str, Any]:
        """Return the gradients of the parameters."""
        return self.layer.backward(dy, cache)[1]


class Run(NamedTuple):
    """One training."""

    data: str
    name: str
    """Name of the try."""
    seed: int
    recipe: Recipe


def records_path(out: Path) -> Path:
    """Return the file of the records of runs."""
    return out / "runs.jsonl"


def train(options: argparse.Namespace) -> None:
    """Train a layer for every try, as far as that has not been done."""
    options.out.mkdir(parents=True, exist_ok=True)
    done = {run for run, _ in finished(options.out)}
    runs = [run for run in plan(options) if run not in done]
    with progress_bar(total=len(runs), unit="run", shown=True, kept=True) as bar:
        for data, group in itertools.groupby(runs, key=lambda run: run.data):
            own = list(group)
            try:
                rows = read_rows(data, options)
            except FileNotFoundError as error:
                print_status(f"{data} left out: no {error.filename}")
                bar.update(len(own))
                continue
            for run in own:
                bar.set_description(f"seed {run.seed}, {run.data}, {run.name}")
                append_records(records_path(options.out), [do(run, rows)])
                bar.update()


def plan(options: argparse.Namespace) -> Iterator[Run]:
    """Yield all runs, one seed after the other, so that whole tables are done first."""
    for seed, data in itertools.product(range(options.seeds), options.sets):
        for name in tries_of(data):
            if name in options.tries:
                yield Run(data, name, seed, recipe_of(data, name, options.quick))


def finished(out: Path) -> Iterator[tuple[Run, Record]]:
    """Yield the runs that have a record."""
    for record in read_records(records_path(out)):
        try:
            recipe = Recipe(**record["recipe"])
        except TypeError:  # a recipe with other fields than today's
            continue
        yield Run(record["set"], record["try"], record["seed"], recipe), record


def do(run: Run, rows: Rows) -> Record:
    """Train a layer, and return its record."""
    start = time.perf_counter()
    model = train_model(rows, run.recipe, run.seed)
    seconds = time.perf_counter() - start
    sample = np.random.default_rng(0).permutation(len(rows.x))[:SCORED_ROWS]
    return {
        "set": run.data,
        "try": run.name,
        "seed": run.seed,
        "score": score(model, rows.test_x, rows.test_y, np.arange(len(rows.test_x))),
        "train_score": score(model, rows.x, rows.y, sample),
        "seconds": seconds,
        "recipe": run.recipe._asdict(),
    }


def score(model: Model, x: Array, y: Array, rows: Array) -> float:
    """Return the accuracy on some rows, or R2 if the targets are numbers."""
    found = tally_of(lambda block: model(x[block]), y, rows, width=x.shape[1]).figures()
    return found["accuracy"] if y.ndim == 1 else found["r2"]


def new_model(rows: Rows, recipe: Recipe, seed: int) -> Model:
    """Return an untrained model."""
    width = rows.x.shape[1]
    if recipe.width:
        return Dense(
            DenseFeedForward(
                width, rows.outputs, recipe.width, activation=recipe.activation, rng=seed
            )
        )
    layer = FastFeedForward(
        width,
        rows.outputs,
        recipe.depth,
        recipe.trees,
        two_sided=recipe.two_sided,
        activation=recipe.activation,
        rng=seed,
    )
    layer.params["weights_in"][...] *= recipe.input_scale
    layer.params["weights_out"][...] *= recipe.output_scale
    if recipe.start != UNIFORM:
        fit_start(layer, rows, recipe.start, np.random.default_rng((seed, 1)))
    special = recipe.side_constants, recipe.flips, recipe.balancing + recipe.fixed_norms
    assert sum(map(bool, (*special, recipe.soft_share))) <= 1, "no model does both"
    if recipe.side_constants:
        return WithConstants(layer)
    if recipe.flips:
        return Flipped(layer, recipe, np.random.default_rng((seed, 3)))
    if recipe.balancing or recipe.fixed_norms:
        return Constrained(layer, recipe)
    return Annealed(layer, recipe) if recipe.soft_share else Routed(layer, recipe)


def train_model(rows: Rows, recipe: Recipe, seed: int) -> Model:
    """Train a model."""
    model = new_model(rows, recipe, seed)
    betas = 0.9, recipe.second_moment
    optimizer = AdamW(model.params, recipe.lr, betas, recipe.epsilon, recipe.weight_decay)
    factors = rate_factors(model.params, recipe)
    average = copies(model.params) if recipe.averaging else {}
    loss_of = softmax_cross_entropy if rows.y.ndim == 1 else mean_squared_error
    order = BatchOrder(len(rows.x), recipe.batch_size, seed)
    rng = np.random.default_rng((seed, 2))
    steps = recipe.epochs * order.steps_per_epoch
    for step in range(steps):
        batch, fraction = order.rows(step), step / steps
        x = rows.x[batch]
        if recipe.noise:
            x += np.float32(recipe.noise) * rng.standard_normal(x.shape, np.float32)
        y, cache = model.forward(x, fraction)
        _, dy = loss_of(y, rows.y[batch])
        grads = model.backward(dy, cache, fraction)
        clip_gradients(grads, MAX_NORM)
        before = copies(model.params, factors)
        optimizer.step(grads, recipe.lr * cosine(fraction))
        for name, factor in factors.items():
            param = model.params[name]
            param[...] = before[name] + factor * (param - before[name])
        for name, mean in average.items():
            mean += (1.0 - recipe.averaging) * (model.params[name] - mean)
    optimizer.bring_up_to_date()
    for name, mean in average.items():
        model.params[name][...] = mean
    return model


def copies(params: Mapping[str, Array], names: Iterable[str] | None = None) -> dict[str, Array]:
    """Return copies of all parameters, or of some."""
    return {name: params[name].copy() for name in (params if names is None else names)}


def rate_factors(params: Mapping[str, Array], recipe: Recipe) -> dict[str, Array]:
    """Return the factors of the steps of parameters whose learning rates differ from ``lr``.

    A step of AdamW is proportional to its learning rate, so a step with another rate is a multiple
    of the move. Along the levels, the geometric mean of the factors is 1.
    """
    if recipe.input_rate == recipe.level_rate == 1.0:
        return {}
    levels = np.repeat(np.arange(recipe.depth + 1), 2 ** np.arange(recipe.depth + 1))
    by_level = recipe.level_rate ** (levels - recipe.depth / 2)
    factors = {}
    for name, param in params.items():
        own = by_level * (recipe.input_rate if name in ("weights_in", "bias_in") else 1.0)
        factors[name] = own.reshape(-1, *[1] * (param.ndim - 2)).astype(param.dtype)
    return factors
