"""Timing: all layers of a feedforward in one alternation, with the products of their neurons."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import threadpoolctl

import fffcpu
from benchmarks.accuracy.worth.models import QUICK_TOKENS, held_out_path, layer_path
from benchmarks.accuracy.worth.training import records_path, run_of
from benchmarks.crossover.timing import ONNXRUNTIME, runtimes
from benchmarks.records import Record, append_records, read_records
from benchmarks.speed.price import Products
from fffcpu.benchmarking.machine import describe_machine
from fffcpu.benchmarking.timing import Contender, Timing, alternate, cycling, inference, ratios
from fffcpu.benchmarking.verification import (
    DISTINCT_ROWS,
    check_close,
    check_dense,
    check_leaves,
    check_paths,
)
from fffcpu.data import Table
from fffcpu.errors import WrongOutputError
from fffcpu.inference.predictor import Predictor
from fffcpu.layers import QuantizedDenseFeedForward
from fffcpu.layers.layer import Layer
from fffcpu.recipes.fitting import evaluate_table
from fffcpu.system.terminal import print_status, with_progress

Array = np.ndarray

KINDS = {"batch": "batches", "single": "single rows"}

CHECKED_ROWS = 1024
"""Rows whose outputs are checked."""

CHECKED_DENSE_ROWS = 64
"""Rows of a dense layer that are checked, since its check is slow."""

INT8_TOLERANCE = 0.1
"""Largest error of an output of a dense layer of int8, relative to the largest output."""

R2_TOLERANCE = 1e-4
"""Largest difference between R2 of a saved layer and that of its training."""


class Runner(NamedTuple):
    """A layer in one of its runtimes, or the products of as many neurons."""

    used: int
    model: str
    """Its name; empty for the products."""
    runtime: str
    call: Callable[[Array], Any]


def times_path(out: Path) -> Path:
    """Return the file of the records of times."""
    return out / "times.jsonl"


def measure(options: argparse.Namespace) -> None:
    """Time the layers of every feedforward, unless all of them were timed together before."""
    if not ONNXRUNTIME:
        print_status("onnxruntime left out: pip install 'fffcpu[bench]'")
    if options.quick:
        options.rows = min(options.rows, QUICK_TOKENS)
    found = saved(options)
    last = last_times(options.out)
    waiting = [
        (layer, kind)
        for layer, records in found.items()
        for kind in KINDS
        if not is_timed(last.get((layer, kind)), set(records), *call_of(kind, options))
    ]
    for layer, kind in with_progress(
        waiting, "alternation", lambda pair: f"feedforward {pair[0]}, {KINDS[pair[1]]}"
    ):
        record = time_feedforward(layer, kind, found[layer], options)
        append_records(times_path(options.out), [record])


def call_of(kind: str, options: argparse.Namespace) -> tuple[int, int]:
    """Return the rows and threads of a call."""
    return (options.rows, options.threads) if kind == "batch" else (1, 1)


def is_timed(record: Record | None, models: set[str], rows: int, threads: int) -> bool:
    """Whether a record has the times of these models in such a call."""
    return (
        record is not None
        and (record["rows"], record["threads"]) == (rows, threads)
        and models <= set(record["models"])
    )


def saved(options: argparse.Namespace) -> dict[int, dict[str, Record]]:
    """Return the records of the layers that have a file, by feedforward and model."""
    found: dict[int, dict[str, Record]] = {}
    for record in read_records(records_path(options.out)):
        layer, model, _ = run = run_of(record)
        wanted = model in options.models and (options.layers is None or layer in options.layers)
        if wanted and run.is_saved and layer_path(options.out, layer, model).exists():
            found.setdefault(layer, {})[model] = record
    return dict(sorted(found.items()))


def last_times(out: Path) -> dict[tuple[int, str], Record]:
    """Return the last times of each feedforward and kind of call."""
    records = read_records(times_path(out))
    return {(record["layer"], record["kind"]): record for record in records}


def time_feedforward(
    layer: int, kind: str, records: dict[str, Record], options: argparse.Namespace
) -> Record:
    """Time all layers of a feedforward in one alternation."""
    rows, threads = call_of(kind, options)
    with np.load(held_out_path(options.out, layer)) as arrays:
        held_out = Table(arrays["x"], arrays["y"])
    batches = batches_of(held_out.x, rows)
    before = fffcpu.get_num_threads()
    fffcpu.set_num_threads(threads)
    try:
        with threadpoolctl.threadpool_limits(threads, "blas"):
            runners = list(runners_of(records, layer, held_out, rows, threads, options.out))
            contenders = [contender(runner, batches) for runner in runners]
            load = os.getloadavg()[0]
            timings = alternate(contenders, options.repeats, options.seconds)
    finally:
        fffcpu.set_num_threads(before)
    products, models = summarize(runners, timings)
    return {
        "layer": layer,
        "kind": kind,
        "rows": rows,
        "threads": threads,
        "load": load,
        "machine": describe_machine(),
        "products": products,
        "models": models,
    }


def batches_of(x: Array, rows: int) -> list[Array]:
    """Return batches of the rows held out, which are repeated if there are too few.

    Single rows are distinct, as far as there are enough: `DISTINCT_ROWS` of them.
    """
    count = max(2, -(-DISTINCT_ROWS // rows))
    return list(np.resize(x, (count, rows, x.shape[1])))


def runners_of(
    records: dict[str, Record], layer: int, held_out: Table, rows: int, threads: int, out: Path
) -> Iterator[Runner]:
    """Yield the layers by their neurons used, each after the products of as many neurons."""
    assert held_out.y is not None
    inputs, outputs = held_out.x.shape[1], held_out.y.shape[1]
    last = 0
    for model, record in sorted(records.items(), key=lambda item: item[1]["used"]):
        used = record["used"]
        if used != last:
            yield Runner(used, "", "NumPy", Products(inputs, used, outputs, rows).run)
            last = used
        predictor = Predictor.load(layer_path(out, layer, model))
        check(predictor, held_out, record)
        for runtime, call in runtimes(predictor.layer, threads, held_out.x[:CHECKED_DENSE_ROWS]):
            yield Runner(used, model, runtime, call)


def check(predictor: Predictor, held_out: Table, record: Record) -> None:
    """Raise unless a layer computes correctly, and is as good as when it was trained."""
    layer: Any = predictor.layer
    if isinstance(layer, fffcpu.DenseFeedForward):
        x = held_out.x[:CHECKED_DENSE_ROWS]
        check_dense(layer, x, layer(x))
    elif isinstance(layer, QuantizedDenseFeedForward):
        x = held_out.x[:CHECKED_ROWS]
        check_close(layer(x), layer.dequantize()(x), INT8_TOLERANCE)
    else:
        x = held_out.x[:CHECKED_ROWS]
        checked = check_leaves if isinstance(layer, fffcpu.LeafFeedForward) else check_paths
        checked(layer, x, layer(x), layer.route(x))
    r2 = evaluate_table(predictor, held_out)["r2"]
    if not abs(r2 - record["r2"]) <= R2_TOLERANCE:
        raise WrongOutputError(
            f"{record['model']} must have the R2 {record['r2']:.4f} of its training, got {r2:.4f}"
        )


def contender(runner: Runner, batches: list[Array]) -> Contender:
    """Return a layer to be timed. Large outputs go to arrays that are reused, as for products."""
    ours = isinstance(runner.call, Layer)
    run = inference(runner.call, batches) if ours else cycling(runner.call, batches)
    return Contender(f"{runner.model} {runner.runtime}", run, len(batches[0]))


def summarize(
    runners: list[Runner], timings: list[Timing]
) -> tuple[dict[str, Record], dict[str, Record]]:
    """Return the times of the products by neurons, and those of the layers in their best runtime.

    The price is the median over the rounds of the ratio within a round; `low` and `high` are its
    extremes.
    """
    products: dict[int, Timing] = {}
    models: dict[str, Record] = {}
    for runner, timing in zip(runners, timings, strict=True):
        if not runner.model:
            products[runner.used] = timing
            continue
        found = sorted(ratios(timing, products[runner.used]))
        own = figures(timing) | {
            "runtime": runner.runtime,
            "price": float(np.median(found)),
            "low": found[0],
            "high": found[-1],
        }
        best = models.setdefault(runner.model, own)
        if own["microseconds"] < best["microseconds"]:
            models[runner.model] = own
    return {str(used): figures(timing) for used, timing in products.items()}, models


def figures(timing: Timing) -> Record:
    """Return the microseconds per row and their spread."""
    return {"microseconds": timing.microseconds, "spread": timing.spread}
