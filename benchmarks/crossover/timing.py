"""Timing: all models of a set in one alternation, in each runtime that has them."""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import fffcpu
from benchmarks.crossover.models import LIGHTGBM, MODELS, TREES, installed, model_path
from benchmarks.crossover.sets import SOURCES, data_path
from benchmarks.crossover.training import chosen
from benchmarks.peers.layers import NumpyDense
from benchmarks.records import Record, append_records, read_records
from fffcpu.benchmarking.machine import describe_machine
from fffcpu.benchmarking.onnx_dense import onnx_dense
from fffcpu.benchmarking.timing import Contender, alternate, cycling
from fffcpu.benchmarking.verification import DISTINCT_ROWS, TOLERANCES, check_close
from fffcpu.errors import WrongOutputError
from fffcpu.inference.predictor import Predictor
from fffcpu.system.terminal import print_status, progress_bar

Array = np.ndarray


ONNXRUNTIME = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
"""Whether the dense layer can be timed in onnxruntime."""


class Runner(NamedTuple):
    """A model in one of the runtimes that have it."""

    model: str
    runtime: str
    call: Callable[[Array], Array]
    rows: Array
    """The test rows, in the type that the model computes with."""


def measure(options: argparse.Namespace) -> None:
    """Time the trained models of every set, unless all of them were timed together before."""
    if not ONNXRUNTIME:
        print_status("onnxruntime left out: pip install 'fffcpu[bench]'")
    fffcpu.set_num_threads(options.threads)
    everything = with_files(chosen(options.out), options.out)
    sets = [data for data in SOURCES if data in everything and data in options.data]
    times = last_times(options.out, options.threads)
    waiting = [
        data
        for data in sets
        if set(everything[data]) - set(times.get(data, {"batch": ()})["batch"])
    ]
    for data in progress_bar(waiting, "timing", unit="set", shown=True, kept=True):
        append_records(options.out / "times.jsonl", [time_set(data, everything[data], options)])


def with_files(
    everything: dict[str, dict[str, list[Record]]], out: Path
) -> dict[str, dict[str, list[Record]]]:
    """Return the sets and models whose files and libraries are there. Progress names the others."""
    names = installed(sorted({name for models in everything.values() for name in models}))
    found: dict[str, dict[str, list[Record]]] = {}
    for data, models in everything.items():
        for name, runs in models.items():
            if name not in names:
                continue
            files = (data_path(out, data), model_path(out, runs[0]))
            absent = next((path for path in files if not path.exists()), None)
            if absent is None:
                found.setdefault(data, {})[name] = runs
            else:
                print_status(f"{data} {name} left out: no {absent}; `train` makes it")
    return found


def last_times(out: Path, threads: int) -> dict[str, Record]:
    """Return the last times of each set."""
    records = read_records(out / "times.jsonl")
    return {record["data"]: record for record in records if record["threads"] == threads}


def time_set(data: str, records: dict[str, list[Record]], options: argparse.Namespace) -> Record:
    """Time all models of a set in one alternation for batches, and in one for rows alone."""
    from threadpoolctl import threadpool_limits

    with np.load(data_path(options.out, data)) as arrays:
        x, y = arrays["test_x"], arrays["test_y"]
    single, double = x.astype(np.float32), x.astype(np.float64)
    runners = []
    for name, runs in records.items():
        path = model_path(options.out, runs[0])
        rows = double if MODELS[name].family in (TREES, LIGHTGBM) else single
        for runtime, call in calls(path, options.threads, single[:100]):
            runners.append(Runner(name, runtime, call, rows))
            check_accuracy(runners[-1], y, runs[0]["test"])
    figures = {
        "data": data,
        "threads": options.threads,
        "test_rows": len(y),
        "load": os.getloadavg()[0],
        "machine": describe_machine(),
    }
    # The limit holds only for libraries that are loaded, so it comes after the models.
    with threadpool_limits(options.threads):
        batch, alone = (race(runners, rows, options) for rows in (len(y), 1))
    return figures | {"batch": batch, "alone": alone}


def calls(path: Path, threads: int, some: Array) -> list[tuple[str, Callable[[Array], Array]]]:
    """Return the runtimes of a saved model and their calls, after their outputs were checked."""
    if path.suffix == ".joblib":
        import joblib

        return [("scikit-learn", joblib.load(path).predict_proba)]
    if path.suffix == ".txt":
        import lightgbm

        # Options of a call are parsed at each call, so threads are limited from outside.
        model: Any = lightgbm.Booster(model_file=path)
        return [("LightGBM", functools.partial(model.predict, raw_score=True))]
    return runtimes(Predictor.load(path).layer, threads, some)


def runtimes(layer: Any, threads: int, some: Array) -> list[tuple[str, Callable[[Array], Array]]]:
    """Return the runtimes of a layer and their calls, after their outputs were checked."""
    if not isinstance(layer, fffcpu.DenseFeedForward):
        return [("fffcpu", layer)]
    params, activation = layer.params, layer.config.activation
    trees = {key: array[:, np.newaxis] for key, array in params.items()}
    numpy = NumpyDense(threads)
    numpy.prepare(params, activation)
    found: list[tuple[str, Any]] = [
        ("NumPy", numpy.run),
        ("fffcpu", layer),
        ("fffcpu trees", fffcpu.FastFeedForward.from_arrays(**trees, activation=activation)),
    ]
    if ONNXRUNTIME:
        found.append(("onnxruntime", onnx_dense(params, activation, threads)))
    for _, dense in found:
        check_close(dense(some), layer(some), TOLERANCES["float32"])
    return found


def check_accuracy(runner: Runner, y: Array, recorded: float) -> None:
    """Raise unless a model is as accurate as it was when it was trained."""
    accuracy = float((runner.call(runner.rows).argmax(axis=1) == y).mean())
    # Another runtime may round nearly equal scores of two rows differently.
    if abs(accuracy - recorded) * len(y) > 2.5:
        raise WrongOutputError(
            f"{runner.model} by {runner.runtime} must have the accuracy {recorded:.4f} of its "
            f"training, got {accuracy:.4f}"
        )


def race(runners: list[Runner], rows: int, options: argparse.Namespace) -> dict[str, Record]:
    """Return the time of each model in the fastest of its runtimes, for ``rows`` rows per call."""
    contenders = []
    for runner in runners:
        x = runner.rows
        turns = [x] if rows == len(x) else [x[i : i + 1] for i in range(min(len(x), DISTINCT_ROWS))]
        contenders.append(Contender(runner.model, cycling(runner.call, turns), rows))
    result: dict[str, Record] = {}
    timings = alternate(contenders, options.repeats, options.seconds)
    for runner, timing in zip(runners, timings, strict=True):
        own = {
            "microseconds": timing.microseconds,
            "spread": timing.spread,
            "runtime": runner.runtime,
        }
        best = result.setdefault(runner.model, own)
        if own["microseconds"] < best["microseconds"]:
            result[runner.model] = own
    return result
