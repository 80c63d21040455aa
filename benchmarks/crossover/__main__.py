"""Where fast feedforward networks pay: accuracy against measured time, beside other classifiers.

    python -m benchmarks.crossover train DATA OUT
    python -m benchmarks.crossover time OUT          on an idle machine
    python -m benchmarks.crossover show OUT

trains all models on all sets (a JSON line a run in OUT/models.jsonl), times them (a line a set in
OUT/times.jsonl), and prints a table and the verdicts for each set. Three pictures go to OUT.

Sets: MNIST and FashionMNIST; letters, the last 4,000 rows to test with; satellite, 2,000 rows drawn
at random (seed 0); the digits that the package carries, 360 rows likewise; and glosses of WordNet,
whose TF-IDF features are reduced to 64 by a truncated SVD, 45 classes. A set whose files are not in
DATA is left out by name: ``mnist/``, ``fashion-mnist/``, ``letters.csv`` and ``satellite.csv`` are
what tables.py makes, ``glosses-training.jsonl`` and ``glosses-test.jsonl`` what texts.py does.

Each model is trained with four pairs of learning rate and regularization, and the rows held out, a
tenth, choose one of them; the test rows have no say. Layers are trained by
`fffcpu.recipes.fitting.fit` on the same number of rows for as many epochs.
MLPClassifier stops early by a tenth that it draws itself, on inputs that are scaled as the layers'
are, and has that scaling folded into its weights, as layers do. The boosted trees of a hundred
iterations stop early by the rows held out.

Times are of the whole test set as one batch and of one row a call, all models of a set in one
alternation. Layers give scores, whose largest is the class; scikit-learn's ``predict_proba``,
called as users do, ends in a softmax. It gets rows of the type that it computes with, so it need
not convert them. The dense layer is timed in NumPy, in fffcpu's kernels as a FastFeedForward whose
trees have one node each, which costs a row alone less, and in onnxruntime where it is installed;
the fastest counts. Costs that no clock tells are multiply-adds of a row, and for boosted trees
comparisons: the nodes that a row to train on visits, on average.

Everything goes on where it stopped. A chosen model whose line is there and whose file is not is
trained again: benchmarks/results/crossover_models.jsonl, copied to OUT/models.jsonl, spares the
search of settings. Two trainings may run at once on different sets (``--data``).
Needs scikit-learn 1.7 or newer, and Matplotlib for the pictures.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

import fffcpu
from benchmarks.data.tables import read_data
from fffcpu.benchmarking.machine import describe_machine
from fffcpu.benchmarking.onnx_dense import onnx_dense
from fffcpu.benchmarking.timing import Contender, alternate, cycling
from fffcpu.benchmarking.verification import DISTINCT_ROWS, TOLERANCES, check_close
from fffcpu.checkpoints.native import write_atomically
from fffcpu.data import Table, load_digits
from fffcpu.errors import WrongOutputError
from fffcpu.inference.predictor import Predictor
from fffcpu.recipes.fitting import FitSettings, evaluate, fit
from fffcpu.recipes.table_objective import Scaling
from fffcpu.training.batches import split_rows

Array = np.ndarray
Record = dict[str, Any]

VALIDATION = 0.1
"""Which part of the rows is held out."""

AS_FAST = 1.15
"""A model counts as fast as another up to so many times its time: medians are no more exact."""

QUICK_ROWS, QUICK_CLASSES = 200, 3


# --- Sets ----------------------------------------------------------------------------------------


class Rows(NamedTuple):
    """A set: rows (R, I) and their class numbers (R,), to train on and to test with."""

    x: Array
    y: Array
    test_x: Array
    test_y: Array


class Source(NamedTuple):
    """Where a set comes from, and how layers are trained on it."""

    load: Callable[[Path, bool], Rows]
    """From the folder DATA, and whether a few rows will do."""
    epochs: int
    standardize: str


def packaged(name: str) -> Callable[[Path, bool], Rows]:
    """Return what reads one of the tables that tables.py makes."""

    def load(folder: Path, quick: bool) -> Rows:
        training, test = read_data(folder, name)
        return Rows(training.x, training.y, test.x, test.y)

    return load


def digits(folder: Path, quick: bool) -> Rows:
    x, y = load_digits()
    return separate(x, y, drawn(len(x), 360))


def glosses(folder: Path, quick: bool) -> Rows:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline

    from fffcpu.text import read_labelled

    training = read_labelled(str(folder / "glosses-training.jsonl"))
    test = read_labelled(str(folder / "glosses-test.jsonl"), classes=training.classes)
    count = 2000 if quick else None
    features = make_pipeline(TfidfVectorizer(sublinear_tf=True), TruncatedSVD(64, random_state=0))
    x = features.fit_transform(training.texts[:count]).astype(np.float32)
    test_x = features.transform(test.texts[:count]).astype(np.float32)
    return Rows(x, training.labels[:count], test_x, test.labels[:count])


def drawn(rows: int, count: int) -> Array:
    """Return which rows to test with, drawn at random."""
    return np.random.default_rng(0).permutation(rows)[:count]


def separate(x: Array, y: Array, test: Array) -> Rows:
    """Split a table into rows to train on, in their order, and rows to test with."""
    others = np.setdiff1d(np.arange(len(x)), test)
    return Rows(x[others], y[others], x[test], y[test])


# Epochs give each set about a million rows to learn from, or what is enough for the smallest.
SOURCES = {
    "digits": Source(digits, 100, "table"),
    "satellite": Source(packaged("satellite"), 100, "columns"),
    "letters": Source(packaged("letters"), 60, "columns"),
    "glosses": Source(glosses, 10, "columns"),
    "mnist": Source(packaged("mnist"), 20, "table"),
    "fashion-mnist": Source(packaged("fashion-mnist"), 20, "table"),
}


def data_path(out: Path, data: str) -> Path:
    """Return where a set is, once it was made."""
    return out / "data" / f"{data}.npz"


def prepared(data: str, options: argparse.Namespace) -> Rows:
    """Return a set, as it was made at the first call."""
    path = data_path(options.out, data)
    if not path.exists():
        rows = SOURCES[data].load(options.folder, options.quick)
        if options.quick:
            rows = Rows(*a_few(rows.x, rows.y), *a_few(rows.test_x, rows.test_y))
        with write_atomically(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **rows._asdict())
    with np.load(path) as arrays:
        return Rows(**arrays)


def a_few(x: Array, y: Array) -> tuple[Array, Array]:
    """Return some rows of a few classes."""
    chosen = np.flatnonzero(y < QUICK_CLASSES)[:QUICK_ROWS]
    return x[chosen], y[chosen]


# --- Models --------------------------------------------------------------------------------------


class Model(NamedTuple):
    """What to train."""

    family: str
    sizes: dict[str, Any]
    """`FitSettings` of a layer, or arguments of scikit-learn's estimator."""


NODE, LEAF, DENSE = "FastFeedForward", "LeafFeedForward", "dense"
MLP, TREES = "MLPClassifier", "boosted trees"
FFF = (NODE, LEAF)

MODELS = {
    **{
        f"fff-{trees}x{depth}": Model(NODE, {"layer": "node", "trees": trees, "depth": depth})
        for trees, depth in ((1, 3), (1, 7), (2, 5), (4, 3), (4, 6), (8, 3), (8, 7), (16, 4))
    },
    **{
        # The batches with which docs/benchmarks.md trains leaves.
        f"leaf-{depth}x{width}": Model(
            LEAF, {"layer": "leaf", "depth": depth, "leaf_width": width, "batch_size": 256}
        )
        for depth, width in ((2, 8), (4, 8), (4, 16), (3, 32), (5, 32))
    },
    **{
        f"dense-{width}": Model(DENSE, {"layer": "dense", "width": width})
        for width in (4, 8, 16, 32, 64, 128, 256, 512)
    },
    **{
        f"mlp-{width}": Model(MLP, {"hidden_layer_sizes": [width], "early_stopping": True})
        for width in (16, 64, 256)
    },
    **{
        f"boosting-{count}x{leaves}": Model(
            TREES, {"max_iter": count, "max_leaf_nodes": leaves, "early_stopping": count > 20}
        )
        for count, leaves in itertools.product((20, 100), (8, 31))
    },
}


def grid(**values: Sequence[float]) -> list[dict[str, float]]:
    """Return all combinations of the values."""
    return [dict(zip(values, some, strict=True)) for some in itertools.product(*values.values())]


LAYER_TRIES = grid(lr=(0.003, 0.008), weight_decay=(0.02, 0.2))
TRIES = {
    NODE: LAYER_TRIES,
    LEAF: LAYER_TRIES,
    DENSE: LAYER_TRIES,
    MLP: grid(learning_rate_init=(0.001, 0.003), alpha=(1e-4, 1e-2)),
    TREES: grid(learning_rate=(0.1, 0.3), l2_regularization=(0.0, 1.0)),
}
"""Settings of which the rows held out choose one."""


class Trained(NamedTuple):
    """A model, and what is known of it."""

    model: Any
    validation: float
    """Accuracy on the rows held out."""
    test: float
    """Accuracy on the test rows."""
    parameters: int
    operations: float
    """Multiply-adds of a row, or comparisons of boosted trees."""


def train_layer(rows: Rows, source: Source, settings: Record, seed: int) -> Trained:
    """Train a layer of fffcpu."""
    classes = tuple(range(int(rows.y.max()) + 1))
    table = Table(rows.x, rows.y, classes=classes)
    fitted = fit(table, FitSettings(validation=VALIDATION, seed=seed, **settings), progress=False)
    layer = fitted.predictor.layer
    return Trained(
        fitted.predictor,
        fitted.validation["accuracy"],
        evaluate(fitted.predictor, Table(rows.test_x, rows.test_y, classes=classes))["accuracy"],
        sum(array.size for array in layer.params.values()),
        multiply_adds(layer.config),
    )


def multiply_adds(config: Any) -> int:
    """Return the multiply-adds of a row at inference."""
    gates = config.depth * config.input_dim if config.kind == LEAF else 0
    return int(gates + config.active_neurons * (config.input_dim + config.output_dim))


def train_mlp(rows: Rows, source: Source, settings: Record, seed: int) -> Trained:
    """Train scikit-learn's dense network."""
    from sklearn.neural_network import MLPClassifier

    scaling = Scaling.of(rows.x, np.arange(len(rows.x)), source.standardize)
    model = MLPClassifier(validation_fraction=VALIDATION, random_state=seed, **settings)
    model.fit(scaling.apply(rows.x, np.float32), rows.y)
    # From here on the model takes rows as they are.
    first = model.coefs_[0] / scaling.scale[:, np.newaxis]
    model.intercepts_[0] -= (scaling.mean @ first).astype(np.float32)
    model.coefs_[0] = first.astype(np.float32)
    return Trained(
        model,
        model.best_validation_score_,
        model.score(rows.test_x.astype(np.float32), rows.test_y),
        sum(array.size for array in (*model.coefs_, *model.intercepts_)),
        sum(array.size for array in model.coefs_),
    )


def train_trees(rows: Rows, source: Source, settings: Record, seed: int) -> Trained:
    """Train scikit-learn's boosted trees."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    training, validation = split_rows(len(rows.x), VALIDATION, seed)
    held_out = rows.x[validation], rows.y[validation]
    model = HistGradientBoostingClassifier(random_state=seed, **settings)
    watched = dict(zip(("X_val", "y_val"), held_out, strict=True))
    model.fit(rows.x[training], rows.y[training], **(watched if settings["early_stopping"] else {}))
    trees = [tree.nodes for trees in model._predictors for tree in trees]
    return Trained(
        model,
        model.score(*held_out),
        model.score(rows.test_x, rows.test_y),
        sum(map(len, trees)),  # thresholds and values
        sum(visits(nodes) for nodes in trees),
    )


def visits(nodes: Array) -> float:
    """Return how many nodes of a tree compare something, of a mean row to train on."""
    inner = nodes["count"][nodes["is_leaf"] == 0]
    return float(inner.sum(dtype=np.int64) / nodes["count"][0])


TRAIN = {
    NODE: train_layer,
    LEAF: train_layer,
    DENSE: train_layer,
    MLP: train_mlp,
    TREES: train_trees,
}


def settings_of(data: str, name: str, attempt: Record, quick: bool) -> Record:
    """Return what a model is trained with on a set."""
    settings = MODELS[name].sizes | attempt
    if MODELS[name].family in (MLP, TREES):
        return settings
    source = SOURCES[data]
    return {
        **settings,
        "epochs": 1 if quick else source.epochs,
        "standardize": source.standardize,
    }


def model_path(out: Path, record: Record) -> Path:
    """Return where the model of a run is, given its line."""
    family = MODELS[record["model"]].family
    ending = "joblib" if family in (MLP, TREES) else "safetensors"
    attempt = "-".join(f"{record['settings'][key]:g}" for key in TRIES[family][0])
    name = f"{record['data']}-{record['model']}-{attempt}-{record['seed']}"
    return out / "models" / f"{name}.{ending}"


def save(model: Any, path: Path) -> None:
    """Write a model to a file."""
    if isinstance(model, Predictor):
        model.save(path)
    else:
        import joblib

        with write_atomically(path) as temporary:
            joblib.dump(model, temporary)


# --- Lines of results ----------------------------------------------------------------------------


def read_lines(path: Path) -> list[Record]:
    """Return the JSON lines of a file; none if there is no file."""
    if not path.exists():
        return []
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def append_line(path: Path, record: Record) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def chosen(out: Path) -> dict[str, dict[str, list[Record]]]:
    """Return the run of each seed that the rows held out choose, by set and model.

    `tries` of a run says how many settings it was chosen from.
    """
    # A run that was done again has two lines, and its file is of the last.
    last = {model_path(out, record): record for record in read_lines(out / "models.jsonl")}
    runs: dict[tuple[str, str, int], list[Record]] = {}
    for record in last.values():
        runs.setdefault((record["data"], record["model"], record["seed"]), []).append(record)
    result: dict[str, dict[str, list[Record]]] = {}
    for (data, name, _), records in runs.items():
        best = max(records, key=lambda record: record["validation"])  # of equals the first
        result.setdefault(data, {}).setdefault(name, []).append(best | {"tries": len(records)})
    return result


# --- Training ------------------------------------------------------------------------------------


class Run(NamedTuple):
    """One training."""

    data: str
    model: str
    seed: int
    settings: Record


def train(options: argparse.Namespace) -> None:
    """Do all runs that have not been done."""
    for folder in ("data", "models"):
        (options.out / folder).mkdir(parents=True, exist_ok=True)
    present = [data for data in options.data if is_present(data, options)]
    # Once more, since a chosen run that is done again may no longer be the best of its settings.
    while runs := missing(present, options):
        with tqdm(total=len(runs), unit="run", file=sys.stderr) as bar:
            for data, own in itertools.groupby(runs, key=lambda run: run.data):
                rows = prepared(data, options)
                for run in own:
                    bar.set_description(f"{data} {run.model}")
                    do(run, rows, options.out)
                    bar.update()


def run_of(record: Record) -> Run:
    """Return the run of a line."""
    return Run(*(record[key] for key in Run._fields))


def missing(present: Sequence[str], options: argparse.Namespace) -> list[Run]:
    """Return the runs that have no line, or were chosen and have no file."""
    done = [run_of(record) for record in read_lines(options.out / "models.jsonl")]
    lost = [
        run_of(record)
        for models in chosen(options.out).values()
        for record in itertools.chain(*models.values())
        if not model_path(options.out, record).exists()
    ]
    return [run for run in plan(present, options) if run not in done or run in lost]


def plan(present: Sequence[str], options: argparse.Namespace) -> Iterator[Run]:
    """Yield all runs, a seed after the other, so that what is done first is a whole table."""
    for seed, data, name in itertools.product(range(options.seeds), present, options.models):
        for attempt in TRIES[MODELS[name].family]:
            yield Run(data, name, seed, settings_of(data, name, attempt, options.quick))


def is_present(data: str, options: argparse.Namespace) -> bool:
    """Make a set ready, or say that its files are not there."""
    try:
        prepared(data, options)
    except FileNotFoundError as error:
        print(f"{data} left out: no {error.filename}", file=sys.stderr)
        return False
    return True


def do(run: Run, rows: Rows, out: Path) -> None:
    """Train a model, save it, and write its line."""
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
    # The line first: a chosen run without its file is done again. An older file must not stay.
    path = model_path(out, record)
    path.unlink(missing_ok=True)
    append_line(out / "models.jsonl", record)
    save(trained.model, path)


# --- Timing --------------------------------------------------------------------------------------

ONNXRUNTIME = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
"""Whether the dense layer can be timed in onnxruntime, too."""


class Runner(NamedTuple):
    """A model that can be called, in one of the runtimes that have it."""

    model: str
    runtime: str
    call: Callable[[Array], Array]
    rows: Array
    """The test rows, of the type that it computes with."""


def measure(options: argparse.Namespace) -> None:
    """Time the sets whose models have not all been timed together."""
    if not ONNXRUNTIME:
        print("onnxruntime left out: pip install 'fffcpu[bench]'", file=sys.stderr)
    fffcpu.set_num_threads(options.threads)
    everything = with_files(chosen(options.out), options.out)
    sets = [data for data in SOURCES if data in everything and data in options.data]
    times = last_times(options.out, options.threads)
    waiting = [
        data
        for data in sets
        if set(everything[data]) - set(times.get(data, {"batch": ()})["batch"])
    ]
    for data in tqdm(waiting, "timing", unit="set", file=sys.stderr):
        append_line(options.out / "times.jsonl", time_set(data, everything[data], options))


def with_files(
    everything: dict[str, dict[str, list[Record]]], out: Path
) -> dict[str, dict[str, list[Record]]]:
    """Return the sets and models whose files are there, and name the others."""
    found: dict[str, dict[str, list[Record]]] = {}
    for data, models in everything.items():
        for name, runs in models.items():
            files = (data_path(out, data), model_path(out, runs[0]))
            absent = next((path for path in files if not path.exists()), None)
            if absent is None:
                found.setdefault(data, {})[name] = runs
            else:
                print(f"{data} {name} left out: no {absent}; `train` makes it", file=sys.stderr)
    return found


def last_times(out: Path, threads: int) -> dict[str, Record]:
    """Return the last times of each set."""
    lines = read_lines(out / "times.jsonl")
    return {line["data"]: line for line in lines if line["threads"] == threads}


def time_set(data: str, records: dict[str, list[Record]], options: argparse.Namespace) -> Record:
    """Time all models of a set in one alternation for batches, and in one for rows alone."""
    from threadpoolctl import threadpool_limits

    with np.load(data_path(options.out, data)) as arrays:
        x, y = arrays["test_x"], arrays["test_y"]
    single, double = x.astype(np.float32), x.astype(np.float64)
    runners = []
    for name, runs in records.items():
        path = model_path(options.out, runs[0])
        rows = double if MODELS[name].family == TREES else single
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
    # Only now that all models are loaded are all libraries with pools of threads.
    with threadpool_limits(options.threads):
        batch, alone = (race(runners, rows, options) for rows in (len(y), 1))
    return figures | {"batch": batch, "alone": alone}


def calls(path: Path, threads: int, some: Array) -> list[tuple[str, Callable[[Array], Array]]]:
    """Return the runtimes that can run a saved model, and how they do; outputs must agree."""
    if path.suffix == ".joblib":
        import joblib

        return [("scikit-learn", joblib.load(path).predict_proba)]
    layer = Predictor.load(path).layer
    if not isinstance(layer, fffcpu.DenseFeedForward):
        return [("fffcpu", layer)]
    params, activation = layer.params, layer.config.activation
    trees = {key: array[:, np.newaxis] for key, array in params.items()}
    found: list[tuple[str, Any]] = [
        ("NumPy", layer),
        ("fffcpu", fffcpu.FastFeedForward.from_arrays(**trees, activation=activation)),
    ]
    if ONNXRUNTIME:
        found.append(("onnxruntime", onnx_dense(params, activation, threads)))
    for _, dense in found:
        check_close(dense(some), layer(some), TOLERANCES["float32"])
    return found


def check_accuracy(runner: Runner, y: Array, recorded: float) -> None:
    """Raise unless a model is as accurate as it was when it was trained."""
    accuracy = float((runner.call(runner.rows).argmax(axis=1) == y).mean())
    # Another runtime may round two rows' nearly equal scores the other way.
    if abs(accuracy - recorded) * len(y) > 2.5:
        raise WrongOutputError(
            f"{runner.model} by {runner.runtime} has accuracy {accuracy:.4f} and had {recorded:.4f}"
        )


def race(runners: list[Runner], rows: int, options: argparse.Namespace) -> dict[str, Record]:
    """Return the time of each model by the fastest of its runtimes, calls having so many rows."""
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


# --- Fronts and verdicts -------------------------------------------------------------------------


class Point(NamedTuple):
    """A model in a plane of cost and accuracy."""

    model: str
    family: str
    cost: float
    accuracy: float


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no cheaper one, or equally cheap one, reaches in accuracy."""
    result: list[Point] = []
    for point in sorted(points, key=lambda point: (point.cost, -point.accuracy)):
        if not result or point.accuracy > result[-1].accuracy:
            result.append(point)
    return result


def stretch(points: Sequence[Point], test_rows: int) -> list[tuple[Point, Point | None]]:
    """Return the FFFs on the front that noise does not explain, each with its best rival.

    Rivals are the models of other kinds that are as fast; there may be none.
    """
    result = []
    for point in front(points):
        if point.family not in FFF:
            continue
        rivals = [
            other
            for other in points
            if other.family not in FFF and other.cost <= AS_FAST * point.cost
        ]
        best = max(rivals, key=lambda rival: rival.accuracy, default=None)
        error = math.sqrt(point.accuracy * (1 - point.accuracy) / test_rows)
        if best is None or point.accuracy - best.accuracy > error:
            result.append((point, best))
    return result


def verdict(points: Sequence[Point], test_rows: int) -> str:
    """Say whether a set has a stretch of the front where FFFs are the choice."""
    found = stretch(points, test_rows)
    if not found:
        return "no FFF stretch"
    parts = []
    for point, rival in found:
        beside = (
            "nothing else is as fast"
            if rival is None
            else f"as fast: {rival.model}, {rival.accuracy:.2%}"
        )
        parts.append(f"{point.model}, {point.accuracy:.2%} at {point.cost:,.3g} us ({beside})")
    return "has an FFF stretch: " + "; ".join(parts)


COLUMNS = ("model", "seeds", "test", "held out", "parameters", "multiply-adds", "training")
KINDS = {"batch": "us a row in a batch", "alone": "us a row alone"}


def points_of(records: dict[str, list[Record]], costs: dict[str, float]) -> list[Point]:
    """Return the points of a set's models that have a cost; accuracy is the mean of the seeds."""
    return [
        Point(name, MODELS[name].family, costs[name], mean(runs, "test"))
        for name, runs in records.items()
        if name in costs
    ]


def timed_points(records: dict[str, list[Record]], times: Record) -> dict[str, list[Point]]:
    """Return the points of a set by kind of call."""
    return {
        kind: points_of(
            records, {name: found["microseconds"] for name, found in times[kind].items()}
        )
        for kind in KINDS
    }


def mean(records: Sequence[Record], key: str) -> float:
    return statistics.fmean(record[key] for record in records)


# --- Tables and pictures -------------------------------------------------------------------------


def show(options: argparse.Namespace) -> None:
    """Print tables and verdicts, and draw."""
    everything = chosen(options.out)
    times = last_times(options.out, options.threads)
    sets = [data for data in SOURCES if data in everything and data in options.data]
    for data in sets:
        print("\n".join(describe(data, everything[data], times.get(data))), end="\n\n")
    planes = {
        "pareto-multiply-adds": (
            "multiply-adds a row (boosted trees: comparisons)",
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
    return points_of(records, {name: mean(runs, "operations") for name, runs in records.items()})


def describe(data: str, records: dict[str, list[Record]], times: Record | None) -> list[str]:
    """Return the lines of a set: its table, what it was timed on, its verdicts."""
    found = times or {kind: {} for kind in KINDS}
    points = timed_points(records, found)
    fronts = {kind: {point.model for point in front(points[kind])} for kind in KINDS}
    order = sorted(
        records, key=lambda name: found["batch"].get(name, {}).get("microseconds", math.inf)
    )
    head = [*COLUMNS, *KINDS.values(), "on the front"]
    lines = [f"### {data}", "", line(head), "|" + "---|" * len(head)]
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
        lines.append(line(cells))
    missing = [name for name in MODELS if name not in records]
    partly = [name for name, runs in records.items() if lacks_tries(name, runs)]
    for what, names in (("Not trained", missing), ("Not all settings tried", partly)):
        if names:
            lines += ["", f"{what}: {', '.join(names)}."]
    lines.append("")
    if times is None:
        return [*lines, f"{data}: not timed"]
    machine = ", ".join(f"{key} {value}" for key, value in times["machine"].items())
    lines += [f"{times['threads']} threads; load before {times['load']:.2f}; {machine}", ""]
    for kind in KINDS:
        lines.append(f"- **{data}, {kind}**: {verdict(points[kind], times['test_rows'])}")
    return lines


def lacks_tries(name: str, runs: Sequence[Record]) -> bool:
    return any(run["tries"] < len(TRIES[MODELS[name].family]) for run in runs)


def line(cells: Sequence[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def cost(timing: Record | None) -> str:
    if timing is None:
        return "-"
    own = {"fffcpu": "", "scikit-learn": ""}.get(timing["runtime"], f" {timing['runtime']}")
    return f"{timing['microseconds']:.3g} ± {timing['spread']:.0%}{own}"


STYLES = {
    NODE: ("o", "#542788"),
    LEAF: ("s", "#998ec3"),
    DENSE: ("D", "tab:orange"),
    MLP: ("^", "#8c510a"),
    TREES: ("P", "0.45"),
}
"""Marker and colour: purple for FFFs, as in `fffcpu.plots`."""


LEAST_ERROR = 1e-4
"""A model without a single error is drawn here."""

BEYOND = 10.0
"""Models that cost so many times more than the costliest layer are not drawn but counted."""


def draw(panels: dict[str, list[Point]], label: str, path: Path) -> None:
    """Draw a panel a set, with the front as a line of steps."""
    import matplotlib
    from matplotlib.figure import Figure

    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure((6.5 * columns, 4.2 * lines + 0.5), layout="constrained")
    for number, (data, points) in enumerate(panels.items(), start=1):
        draw_set(figure.add_subplot(lines, columns, number), data, points, label)
    figure.suptitle(
        "Test accuracy; where the line runs, nothing cheaper is as accurate", fontsize=11
    )
    # So that the same figures give the same file, and letters stay letters.
    with matplotlib.rc_context({"svg.hashsalt": "crossover", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})


def draw_set(axes: Any, data: str, points: list[Point], label: str) -> None:
    """Draw one panel: errors on a logarithmic axis, or the best models would lie on one another."""
    from matplotlib.ticker import LogLocator, NullFormatter

    def height(point: Point) -> float:
        return max(1 - point.accuracy, LEAST_ERROR)

    # The costliest cost so much that the others would lie on one another.
    layers = [point.cost for point in points if point.family not in (MLP, TREES)]
    limit = BEYOND * max(layers, default=math.inf)
    slow = [point for point in points if point.cost > limit]
    if slow:
        text = ", ".join(sorted({point.family for point in slow}))
        what = f"not drawn, {BEYOND:g} times beyond the layers: {len(slow)} of {text}"
        axes.set_title(what, loc="right", fontsize=8)
    points = [point for point in points if point.cost <= limit]
    edge = front(points)
    axes.step(
        [point.cost for point in edge],
        [height(point) for point in edge],
        where="post", color="black", linewidth=1, zorder=1,
    )  # fmt: skip
    for family, (marker, colour) in STYLES.items():
        own = [point for point in points if point.family == family]
        if own:
            place = ([point.cost for point in own], [height(point) for point in own])
            axes.scatter(*place, marker=marker, color=colour, label=family, zorder=2)
    for point in edge:
        axes.annotate(
            point.model, (point.cost, height(point)), xytext=(-4, 4),
            textcoords="offset points", ha="right", fontsize=7,
        )  # fmt: skip
    axes.margins(x=0.12, y=0.08)  # room for labels
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.invert_yaxis()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
        axis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * (1 - value):g}%")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.set_xlabel(label)
    axes.set_ylabel("test accuracy")
    axes.set_title(data, loc="left", fontweight="bold")
    axes.grid(which="major", alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")


# --- Command -------------------------------------------------------------------------------------


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for function, name, what in (
        (train, "train", "train every model on every set"),
        (measure, "time", "time the models that were trained"),
        (show, "show", "print tables and verdicts, and draw"),
    ):
        command = commands.add_parser(name, help=what, description=what)
        command.set_defaults(run=function)
        if function is train:
            command.add_argument("folder", type=Path, metavar="DATA", help="the files of the sets")
            command.add_argument("--seeds", type=int, default=1, help="how many (1)")
            command.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
        else:
            command.add_argument("--threads", type=int, default=1, help="of all models (1)")
        if function is measure:
            command.add_argument("--repeats", type=int, default=7, help="rounds (7)")
            command.add_argument(
                "--seconds", type=float, default=0.05, help="of a measurement, at least (0.05)"
            )
        command.add_argument("out", type=Path, metavar="OUT", help="the folder of the results")
        command.add_argument("--data", nargs="+", choices=SOURCES, default=list(SOURCES))
        command.add_argument(
            "--quick", action="store_true", help="a few rows, in OUT/quick, to see that it runs"
        )
    options = parser.parse_args()
    if options.quick:
        options.out /= "quick"
    return options


def main() -> None:
    options = parse()
    options.run(options)


if __name__ == "__main__":
    main()
