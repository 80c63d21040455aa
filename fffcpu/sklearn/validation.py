"""Checks and conversions of an estimator's arguments: tables, weights, classes and labels.

Shapes: R rows, I input width, C classes, O labels or numbers per row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.validation import column_or_1d, validate_data

from fffcpu.checks import as_real_array, check_elements, check_nonnegative
from fffcpu.errors import ArgumentError, ShapeError, describe

__all__ = [
    "balanced_weights",
    "check_prediction_rows",
    "check_sample_weight",
    "check_table",
    "class_factors",
    "class_numbers",
    "label_truth",
]

Array = NDArray[Any]

DTYPES = (np.float64, np.float32)
"""Rows of these dtypes are not converted; all others become float64."""

FEW_NUMBERS = 1 << 14
"""Most numbers of rows that are checked without scikit-learn."""


def check_table(
    estimator: Any, x: Any, y: Any, *, reset: bool, y_numeric: bool = False
) -> tuple[Any, Array]:
    """Return checked rows, dense or CSR, and dense targets.

    Parameters
    ----------
    estimator : estimator
        It learns the number and the names of the columns if ``reset``, and compares them otherwise.
    x : array_like, sparse matrix or data frame of shape (R, I)
        Rows.
    y : array_like or sparse matrix of shape (R,) or (R, O)
        Targets.
    reset : bool
        Whether training starts over.
    y_numeric : bool
        Whether the targets must be numbers.
    """
    x, y = validate_data(
        estimator,
        x,
        y,
        reset=reset,
        accept_sparse="csr",
        dtype=DTYPES,
        multi_output=True,
        y_numeric=y_numeric,
    )
    return x, y.toarray() if hasattr(y, "toarray") else y


def check_prediction_rows(estimator: Any, x: Any) -> Any:
    """Return checked rows to predict, dense or CSR.

    A few rows in an array of the right shape are checked here: scikit-learn's checks take many
    times as long as the prediction of one row.
    """
    if (
        type(x) is np.ndarray
        and x.dtype in DTYPES
        and x.ndim == 2
        and x.shape[1] == estimator.n_features_in_
        and 0 < x.size <= FEW_NUMBERS
        and "feature_names_in_" not in estimator.__dict__
        and np.isfinite(x).all()
    ):
        return x
    return validate_data(estimator, x, reset=False, accept_sparse="csr", dtype=DTYPES)


def check_sample_weight(sample_weight: Any, rows: int) -> NDArray[np.float64] | None:
    """Return the rows' weights (R,) as float64, or None if none are given."""
    if sample_weight is None:
        return None
    weights = as_real_array(sample_weight, "sample_weight").astype(np.float64)
    if weights.shape != (rows,):
        raise ShapeError(
            f"argument 'sample_weight' must have shape {(rows,)}, got shape {weights.shape}"
        )
    check_nonnegative(weights, "sample_weight")
    return weights


def label_truth(y: Array, labels: int) -> NDArray[np.bool_]:
    """Return which labels are true (R, O), from 0 and 1."""
    if y.shape[1] != labels or not ((y == 0) | (y == 1)).all():
        raise ArgumentError(
            f"argument 'y' must have 0 or 1 for each of {labels} labels, got {describe(y)}"
        )
    truth: NDArray[np.bool_] = y == 1
    return truth


def class_numbers(y: Array, classes: Array) -> NDArray[np.int64]:
    """Return the number of each row's class (R,), for sorted classes (C,)."""
    y = column_or_1d(y, warn=True)
    numbers = np.searchsorted(classes, y)
    numbers[numbers == len(classes)] = 0
    check_elements(y, "y", classes[numbers] == y, f"classes of {classes.tolist()}")
    return numbers


def class_factors(class_weight: Any, classes: Array) -> NDArray[np.float64]:
    """Return the factor of each class (C,), from a mapping of classes to factors."""
    # Each class occurs once in y, so that the mapping may name a class that no row has.
    factors: NDArray[np.float64] = compute_class_weight(class_weight, classes=classes, y=classes)
    if not (np.isfinite(factors) & (factors >= 0)).all():
        raise ArgumentError(
            "argument 'class_weight' must hold finite numbers of at least 0, "
            f"got {describe(class_weight)}"
        )
    return factors


def balanced_weights(weights: Array, numbers: NDArray[np.int64], classes: int) -> Array:
    """Return the rows' weights (R,), scaled so that those of each class add up to 1."""
    totals = np.bincount(numbers, weights, classes)
    totals[totals == 0] = 1.0  # a class whose rows have no weight
    return np.asarray(weights / totals[numbers], np.float64)
