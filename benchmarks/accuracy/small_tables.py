"""How good the defaults are on small tables, beside a linear model and boosting.

    python -m benchmarks.accuracy.small_tables

The tables come with scikit-learn, or are made by it. A quarter of the rows is for the test, at
random, several times. The table has the mean of the test accuracy, or of R2, and its standard
error. All models have their defaults; the linear one is a logistic or ridge regression on
standardized columns. Nothing is timed.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fffcpu
from benchmarks.command import command_line, new_parser
from benchmarks.report import table
from fffcpu.data import Table
from fffcpu.errors import require_extra
from fffcpu.recipes.fitting import FitSettings, evaluate_table, fit

Array = NDArray[Any]
Rows = tuple[Array, Array]
Score = Callable[[Rows, Rows, int], float]

SPLITS, TEST_SHARE = 8, 0.25

NOISE_ROWS, NOISE_COLUMNS = 2000, 20


def main() -> None:
    options = parse()
    require_extra("sklearn", "sklearn")
    chosen = {name: data for name, data in tables().items() if not options.quick or name == "iris"}
    lines = []
    for name, (x, y) in chosen.items():
        models = classifiers() if y.dtype.kind == "i" else regressions()
        scores = [
            [score(*split(x, y, seed), seed) for seed in range(options.splits)]
            for score in models.values()
        ]
        lines.append((name, f"{len(x):,} x {x.shape[1]}", *map(describe, scores)))
    print(f"fffcpu {fffcpu.__version__}, NumPy {np.__version__}: `{command_line()}`\n")
    head = ("table", "rows x columns", "`fffcpu train`", "estimator", "linear", "boosting")
    print("\n".join(table(head, lines)))


def tables() -> Mapping[str, Rows]:
    """Return inputs and targets by name; those of classifications are integers."""
    from sklearn import datasets

    def loaded(name: str) -> Rows:
        return getattr(datasets, f"load_{name}")(return_X_y=True)

    rng = np.random.default_rng(0)
    x = rng.standard_normal((NOISE_ROWS, NOISE_COLUMNS))
    y = np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] + 0.5 * rng.standard_normal(NOISE_ROWS)
    return {
        **{name: loaded(name) for name in ("iris", "wine", "breast_cancer", "digits", "diabetes")},
        "friedman1": datasets.make_friedman1(500, noise=1.0, random_state=0),
        "products and noise": (x, y),
    }


def split(x: Array, y: Array, seed: int) -> tuple[Rows, Rows]:
    """Return the rows to train on, and those to test with."""
    order = np.random.default_rng(seed).permutation(len(x))
    count = round(TEST_SHARE * len(x))
    test, training = order[:count], order[count:]
    return (x[training], y[training]), (x[test], y[test])


def classifiers() -> Mapping[str, Score]:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression

    from fffcpu.sklearn import FFFClassifier

    linear = functools.partial(LogisticRegression, max_iter=1000)
    return {
        "train": score_train,
        "estimator": estimator(FFFClassifier),
        "linear": standardized(linear),
        "boosting": estimator(HistGradientBoostingClassifier),
    }


def regressions() -> Mapping[str, Score]:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import Ridge

    from fffcpu.sklearn import FFFRegressor

    return {
        "train": score_train,
        "estimator": estimator(FFFRegressor),
        "linear": standardized(Ridge),
        "boosting": estimator(HistGradientBoostingRegressor),
    }


def score_train(training: Rows, test: Rows, seed: int) -> float:
    """Return the score of what `fffcpu train` does with its defaults."""
    is_regression = training[1].dtype.kind != "i"
    classes = None if is_regression else tuple(range(int(training[1].max()) + 1))
    own, others = (
        Table(x, y[:, np.newaxis] if is_regression else y, classes=classes)
        for x, y in (training, test)
    )
    predictor = fit(own, FitSettings(seed=seed), progress=False).predictor
    return evaluate_table(predictor, others)["r2" if is_regression else "accuracy"]


def estimator(make: Callable[..., Any]) -> Score:
    """Return the score of an estimator of scikit-learn's interface."""

    def score(training: Rows, test: Rows, seed: int) -> float:
        return float(make(random_state=seed).fit(*training).score(*test))

    return score


def standardized(make: Callable[..., Any]) -> Score:
    """Return the score of an estimator behind a StandardScaler."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return estimator(lambda random_state: make_pipeline(StandardScaler(), make()))


def describe(scores: list[float]) -> str:
    """Return mean and standard error."""
    error = np.std(scores, ddof=1) / np.sqrt(len(scores)) if len(scores) > 1 else np.nan
    return f"{np.mean(scores):.3f} ± {error:.3f}"


def parse() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--splits", type=int, default=SPLITS, help=f"random splits ({SPLITS})")
    parser.add_argument("--quick", action="store_true", help="one table, to try the script")
    return parser.parse_args()


if __name__ == "__main__":
    main()
