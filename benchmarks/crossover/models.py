"""The models: their sizes, the settings that are tried, how each is trained and saved."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.crossover.sets import SOURCES, Rows, Source
from benchmarks.records import Record
from fffcpu.data import Table
from fffcpu.inference.predictor import Predictor
from fffcpu.recipes.fitting import FitSettings, evaluate_table, fit
from fffcpu.recipes.scaling import Scaling
from fffcpu.system.files import write_atomically
from fffcpu.system.terminal import print_status
from fffcpu.training.batches import split_rows

Array = np.ndarray

VALIDATION = 0.1
"""Fraction of the training rows that is held out."""

HAS_LIGHTGBM = importlib.util.find_spec("lightgbm") is not None
"""Whether LightGBM is installed."""


class Model(NamedTuple):
    """A model of a certain size."""

    family: str
    sizes: dict[str, Any]
    """Fields of a layer's `FitSettings`, arguments of scikit-learn's estimator, or parameters of
    LightGBM."""


FAST, TWO_SIDED = "FastFeedForward", "FastFeedForward, two-sided"
LEAF, DENSE = "LeafFeedForward", "dense"
MLP, TREES, LIGHTGBM = "MLPClassifier", "boosted trees", "LightGBM"
FFF = (FAST, TWO_SIDED, LEAF)
OTHERS = (MLP, TREES, LIGHTGBM)
"""Families of other libraries."""

FOREST_SIZES = ((1, 3), (1, 7), (2, 5), (2, 7), (4, 3), (4, 6), (8, 3), (8, 7), (16, 4))
"""Number and depth of the trees of FastFeedForward."""

BOOSTING_SIZES = tuple(itertools.product((20, 100), (8, 31)))
"""Iterations of boosting, and leaves per tree. With 100 iterations, training stops early."""

PATIENCE = 10
"""Iterations of boosting without an improvement after which training stops early, in LightGBM as by
default in scikit-learn."""


def fast(trees: int, depth: int, *, two_sided: bool) -> Model:
    """Return trees whose nodes have output weights for each side, or for both sides together."""
    sizes = {"layer": "fast", "trees": trees, "depth": depth, "two_sided": two_sided}
    return Model(TWO_SIDED if two_sided else FAST, sizes)


MODELS = {
    **{
        f"{name}-{trees}x{depth}": fast(trees, depth, two_sided=name == "two")
        for name, (trees, depth) in itertools.product(("fff", "two"), FOREST_SIZES)
    },
    **{
        # Batches of the size with which docs/benchmarks.md trains leaves.
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
        for count, leaves in BOOSTING_SIZES
    },
    **{
        f"lightgbm-{count}x{leaves}": Model(
            LIGHTGBM,
            {
                "num_iterations": count,
                "num_leaves": leaves,
                "early_stopping_round": PATIENCE if count > 20 else 0,
            },
        )
        for count, leaves in BOOSTING_SIZES
    },
}


def grid(**values: Sequence[float]) -> list[dict[str, float]]:
    """Return all combinations of the values."""
    return [dict(zip(values, some, strict=True)) for some in itertools.product(*values.values())]


LAYER_TRIES = grid(lr=(0.004, 0.02), weight_decay=(0.02, 0.2))
TRIES = {
    FAST: LAYER_TRIES,
    TWO_SIDED: LAYER_TRIES,
    LEAF: LAYER_TRIES,
    DENSE: LAYER_TRIES,
    MLP: grid(learning_rate_init=(0.001, 0.003), alpha=(1e-4, 1e-2)),
    TREES: grid(learning_rate=(0.1, 0.3), l2_regularization=(0.0, 1.0)),
    LIGHTGBM: grid(learning_rate=(0.1, 0.3), lambda_l2=(0.0, 1.0)),
}
"""Settings from which the held-out rows choose one."""


def installed(names: Collection[str]) -> list[str]:
    """Return the models whose library is installed. Progress names the library of the others."""
    found = [name for name in names if HAS_LIGHTGBM or MODELS[name].family != LIGHTGBM]
    if len(found) < len(names):
        print_status("LightGBM left out: pip install 'fffcpu[bench]'")
    return found


class Trained(NamedTuple):
    """A trained model and its figures."""

    model: Any
    validation: float
    """Accuracy on the held-out rows."""
    test: float
    """Accuracy on the test rows."""
    parameters: int
    operations: float
    """Multiply-adds per row, or comparisons of boosted trees."""


def train_layer(rows: Rows, source: Source, settings: Record, seed: int) -> Trained:
    """Train a layer of fffcpu."""
    classes = tuple(range(int(rows.y.max()) + 1))
    table = Table(rows.x, rows.y, classes=classes)
    test = Table(rows.test_x, rows.test_y, classes=classes)
    fitted = fit(table, FitSettings(validation=VALIDATION, seed=seed, **settings), progress=False)
    layer = fitted.predictor.layer
    return Trained(
        fitted.predictor,
        fitted.validation["accuracy"],
        evaluate_table(fitted.predictor, test)["accuracy"],
        sum(array.size for array in layer.params.values()),
        layer.config.multiply_adds,
    )


def train_mlp(rows: Rows, source: Source, settings: Record, seed: int) -> Trained:
    """Train scikit-learn's dense network."""
    from sklearn.neural_network import MLPClassifier

    scaling = Scaling.of(rows.x, np.arange(len(rows.x)), source.standardize)
    model = MLPClassifier(validation_fraction=VALIDATION, random_state=seed, **settings)
    model.fit(scaling.apply(rows.x, np.float32), rows.y)
    # The scaling moves into the first weights, so that the model takes rows as they are.
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
    """Return the number of nodes of a tree that compare, for an average training row."""
    inner = nodes["count"][nodes["is_leaf"] == 0]
    return float(inner.sum(dtype=np.int64) / nodes["count"][0])


def train_lightgbm(rows: Rows, source: Source, settings: Record, seed: int) -> Trained:
    """Train LightGBM's boosted trees."""
    import lightgbm

    parameters = {
        **settings,
        "objective": "multiclass",
        "num_class": int(rows.y.max()) + 1,
        "seed": seed,
        "deterministic": True,
        "force_col_wise": True,  # by default a timing chooses the order of sums
        "verbosity": -1,
    }
    count = parameters.pop("num_iterations")
    training, validation = split_rows(len(rows.x), VALIDATION, seed)
    held_out = rows.x[validation], rows.y[validation]
    data = lightgbm.Dataset(rows.x[training], rows.y[training])
    watched = [data.create_valid(*held_out)] if settings["early_stopping_round"] else None
    fitted = lightgbm.train(parameters, data, count, valid_sets=watched)
    # The text of a model has the trees up to the best iteration.
    model = lightgbm.Booster(model_str=fitted.model_to_string())
    trees = model.dump_model()["tree_info"]
    return Trained(
        model,
        score(model, *held_out),
        score(model, rows.test_x, rows.test_y),
        sum(2 * tree["num_leaves"] - 1 for tree in trees),  # thresholds and values
        sum(comparisons(tree["tree_structure"]) for tree in trees),
    )


def score(model: Any, x: Array, y: Array) -> float:
    """Return the accuracy of a model of LightGBM."""
    return float((model.predict(x, raw_score=True).argmax(axis=1) == y).mean())


def comparisons(root: Record) -> float:
    """Return the number of nodes of LightGBM's tree that compare, for an average training row."""
    counts = list(inner_counts(root))
    return sum(counts) / counts[0] if counts else 0.0


def inner_counts(node: Record) -> Iterator[int]:
    """Yield the number of training rows of each inner node of LightGBM's tree, the root first."""
    if "internal_count" in node:
        yield node["internal_count"]
        for side in ("left_child", "right_child"):
            yield from inner_counts(node[side])


TRAIN = {
    FAST: train_layer,
    TWO_SIDED: train_layer,
    LEAF: train_layer,
    DENSE: train_layer,
    MLP: train_mlp,
    TREES: train_trees,
    LIGHTGBM: train_lightgbm,
}

ENDINGS = {MLP: "joblib", TREES: "joblib", LIGHTGBM: "txt"}
"""Endings of the files of models; those of layers are safetensors."""


def settings_of(data: str, name: str, attempt: Record, quick: bool) -> Record:
    """Return the settings of a model on a set."""
    settings = MODELS[name].sizes | attempt
    if MODELS[name].family in OTHERS:
        return settings
    source = SOURCES[data]
    return {
        **settings,
        "epochs": 1 if quick else source.epochs,
        "standardize": source.standardize,
    }


def attempt_of(record: Record) -> dict[str, float]:
    """Return the settings of a run that were tried, as in `TRIES`."""
    keys = TRIES[MODELS[record["model"]].family][0]
    return {key: record["settings"][key] for key in keys}


def model_path(out: Path, record: Record) -> Path:
    """Return the file of a run's model."""
    ending = ENDINGS.get(MODELS[record["model"]].family, "safetensors")
    attempt = "-".join(f"{value:g}" for value in attempt_of(record).values())
    name = f"{record['data']}-{record['model']}-{attempt}-{record['seed']}"
    return out / "models" / f"{name}.{ending}"


def save(model: Any, path: Path) -> None:
    """Write a model to a file."""
    if isinstance(model, Predictor):
        model.save(path)
        return
    with write_atomically(path) as temporary:
        if path.suffix == ".txt":
            model.save_model(temporary)
        else:
            import joblib

            joblib.dump(model, temporary)
