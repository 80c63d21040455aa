"""How good predictions are: figures of classes and of numbers, with those of a baseline.

The baseline always predicts the most frequent class of the data, or the mean of the training data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.data import Table
from fffcpu.errors import ArgumentError
from fffcpu.inference.predictor import Predictor, softmax
from fffcpu.recipes.scaling import block_rows

__all__ = ["check_targets", "classification_figures", "evaluate", "regression_figures"]

Array = NDArray[Any]


def evaluate(predictor: Predictor, table: Table) -> dict[str, Any]:
    """Return the figures of a predictor on a table.

    Parameters
    ----------
    predictor : Predictor
        A classification or a regression.
    table : Table
        A table with targets, read with the predictor's classes and encoding.

    Returns
    -------
    dict
        Those of `classification_figures` or `regression_figures`, and ``rows``.

    Raises
    ------
    ArgumentError
        If the table has no targets, or others than the predictor.
    """
    y = check_targets(predictor, table)
    step = block_rows(table.inputs)
    scores = np.concatenate(
        [
            predictor.table_scores(table.x[start : start + step])
            for start in range(0, len(table.x), step)
        ]
    ).astype(np.float64)
    if table.classes:
        figures = classification_figures(softmax(scores), y)
    else:
        mean = np.array(predictor.schema.offset or 0.0)
        figures = regression_figures(scores, y.astype(np.float64), mean, table.target)
    return {"rows": len(table.x), **figures}


def check_targets(predictor: Predictor, table: Table) -> Array:
    """Return the targets of a table that a predictor can be evaluated on.

    Raises
    ------
    ArgumentError
        If the table has no targets, or others than the predictor.
    """
    if table.y is None or (table.classes or ()) != predictor.schema.classes:
        raise ArgumentError(
            f"argument 'table' must have targets of the classes {predictor.schema.classes}, "
            f"got {table.classes}"
        )
    return table.y


def classification_figures(probabilities: Array, y: NDArray[np.int64]) -> dict[str, Any]:
    """Return figures of predicted probabilities.

    Parameters
    ----------
    probabilities : float64 array of shape (R, C)
        Probability of each class; the most probable one is predicted.
    y : int64 array of shape (R,)
        Number of each row's class.

    Returns
    -------
    dict
        ``accuracy``; ``f1``, the mean of the classes' harmonic means of precision and recall;
        ``auc``, the area under the receiver operating characteristic: of the second of two
        classes, else the mean of each class against the rest (None if only one class occurs);
        ``log_loss``; ``baseline``, the accuracy of always predicting the most frequent class; and
        ``confusion`` (C, C), the number of rows by true and predicted class.
    """
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (y, predicted), 1)
    right, true, named = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    occurring = true + named > 0
    f1 = 2.0 * right[occurring] / (true + named)[occurring]
    given = np.maximum(probabilities[np.arange(len(y)), y], np.finfo(np.float64).tiny)
    judged = [1] if classes == 2 else range(classes)
    areas = [_area(probabilities[:, label], y == label) for label in judged]
    known = [area for area in areas if area is not None]
    return {
        "accuracy": float(right.sum() / len(y)),
        "f1": float(f1.mean()),
        "auc": float(np.mean(known)) if known else None,
        "log_loss": float(-np.log(given).mean()),
        "baseline": float(true.max() / len(y)),
        "confusion": confusion.tolist(),
    }


def regression_figures(
    predicted: Array, y: Array, mean: Array, names: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return figures of predicted numbers.

    Parameters
    ----------
    predicted, y : float64 array of shape (R, O)
        Predicted and true numbers.
    mean : float64 array of shape (O,)
        The prediction of the baseline.
    names : sequence of str, optional
        Names of the numbers.

    Returns
    -------
    dict
        ``rmse`` and ``mae``, the root of the mean squared error and the mean absolute error;
        ``r2``, the explained share of the variance (None if y is constant); and ``baseline``, the
        root of the mean squared error of always predicting ``mean``. For several numbers per row,
        which may have different units: ``r2``, the mean over them, and ``targets`` with the figures
        of each, by the names in ``names`` or y0, y1 and so on.
    """
    if y.shape[1] == 1:
        return _figures(predicted[:, 0], y[:, 0], float(np.ravel(mean)[0]))
    means = np.broadcast_to(mean, y.shape[1:])
    known = names or [f"y{column}" for column in range(y.shape[1])]
    each = [_figures(predicted[:, k], y[:, k], float(means[k])) for k in range(y.shape[1])]
    defined = [figures["r2"] for figures in each if figures["r2"] is not None]
    return {
        "r2": float(np.mean(defined)) if defined else None,
        "targets": dict(zip(known, each, strict=True)),
    }


def _figures(predicted: Array, y: Array, mean: float) -> dict[str, Any]:
    """Return the figures of one number per row (R,)."""
    error = predicted - y
    squared, variance = float(np.square(error).mean()), float(y.var())
    return {
        "rmse": squared**0.5,
        "mae": float(np.abs(error).mean()),
        "r2": 1.0 - squared / variance if variance > 0.0 else None,
        "baseline": float(np.square(y - mean).mean()) ** 0.5,
    }


def _area(scores: Array, truth: NDArray[np.bool_]) -> float | None:
    """Return the share of pairs of a true and a false row that scores order rightly."""
    from scipy.stats import rankdata

    positive = int(truth.sum())
    negative = len(truth) - positive
    if not positive or not negative:
        return None
    ranks = rankdata(scores)
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * negative))
