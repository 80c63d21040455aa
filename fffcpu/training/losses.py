"""Losses: a number to minimize, and its gradient with respect to the model's outputs.

Shapes: ``(..., C)`` logits of C classes with labels ``(...)``, or predictions and targets of one
shape. Sums are computed in float64, so that the loss of a large batch of float32 rows keeps its
digits; the gradient has the dtype of the outputs.

Every loss is a mean over rows, and with ``weights`` a weighted mean: a row of weight 2 counts as
two rows, and one of weight 0 as none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fffcpu.checks import (
    IGNORED_LABEL,
    as_class_labels,
    as_float_array,
    as_real_array,
    as_targets,
    check_elements,
    check_nonnegative,
)
from fffcpu.errors import ShapeError, describe

__all__ = [
    "mean_squared_error",
    "sigmoid_cross_entropy",
    "softmax_cross_entropy",
]


def softmax_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None
) -> tuple[float, NDArray[Any]]:
    """Mean cross-entropy between softmax(logits) and integer labels, and its gradient.

    With ``p = softmax(z)`` of one row, its label ``c`` and M labelled rows, the loss is the mean of
    ``-log p_c`` and its gradient ``(p - onehot(c)) / M``. With weights ``w`` that add up to W over
    the labelled rows, the loss is the sum of ``-w log p_c / W`` and its gradient
    ``w (p - onehot(c)) / W``.

    Parameters
    ----------
    logits : array of shape (..., C)
        Scores of C classes, of any real dtype.
    labels : array of integers of shape (...)
        From 0 to C - 1, or -100: such rows are not read, and their gradient is 0.
    weights : array of shape (...), optional
        Weights of the rows, at least 0.

    Returns
    -------
    loss : float
        Mean over the labelled rows; 0 if there is none, or none of weight.
    dlogits : array of shape (..., C)
        Gradient of the loss, in the dtype of the logits (float64 for integers and lists).

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    ArgumentError
        If a label or a weight is out of range.
    ArgumentTypeError
        If logits or weights are not real numbers or the labels not integers.

    Notes
    -----
    Each row's largest logit is subtracted first, which changes nothing in exact arithmetic and
    keeps every exponential in [0, 1].
    """
    logits = as_float_array(logits, "logits")
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ShapeError(
            "argument 'logits' must be an array of shape (..., classes) with at least 1 class, "
            f"got {describe(logits)}"
        )
    classes = logits.shape[-1]
    labels = as_class_labels(labels, logits.shape[:-1], classes)
    labelled = labels != IGNORED_LABEL
    shares = None
    if weights is not None:
        shares = _shares(weights, labelled)
        labelled, shares = shares > 0, shares[shares > 0]
    dlogits = np.zeros(logits.shape, logits.dtype)
    if not labelled.any():
        return 0.0, dlogits
    loss, gradient = _cross_entropy_rows(
        logits.reshape(-1, classes)[labelled.reshape(-1)], labels[labelled], shares
    )
    dlogits[labelled] = gradient
    return loss, dlogits


def _cross_entropy_rows(
    rows: NDArray[Any], labels: NDArray[np.int64], shares: NDArray[np.float64] | None
) -> tuple[float, NDArray[Any]]:
    """Return loss and gradient of labelled rows of shape (M, C); may overwrite the rows."""
    # float16 could hold the result, but its exponentials would lose half of their few digits.
    rows = rows.astype(np.result_type(rows.dtype, np.float32), copy=False)
    picked = np.arange(len(rows)), labels
    rows -= rows.max(axis=1, keepdims=True)
    of_labels = rows[picked].astype(np.float64)
    np.exp(rows, out=rows)
    totals = rows.sum(axis=1, dtype=np.float64)
    losses = np.log(totals) - of_labels
    rows /= totals[:, np.newaxis].astype(rows.dtype)
    rows[picked] -= 1.0
    if shares is None:
        rows /= len(rows)
        return float(np.mean(losses)), rows
    rows *= shares[:, np.newaxis].astype(rows.dtype)
    return float((losses * shares).sum()), rows


def sigmoid_cross_entropy(
    logits: ArrayLike, targets: ArrayLike, weights: ArrayLike | None = None
) -> tuple[float, NDArray[Any]]:
    """Mean cross-entropy between sigmoid(logits) and the truth of each label, and its gradient.

    The loss for several labels per row, any number of which are true. With ``p = sigmoid(z)`` of
    one element, its target ``t`` and n elements, the loss is the mean of
    ``-t log p - (1 - t) log(1 - p)`` and its gradient ``(p - t) / n``.

    Parameters
    ----------
    logits : array of shape (..., O)
        Scores of O labels, of any real dtype.
    targets : array of the same shape
        True or False, or numbers from 0 to 1.
    weights : array of shape (...), optional
        Weights of the rows, at least 0; a mean over elements is then the weighted mean over rows of
        their own means.

    Returns
    -------
    loss : float
        The mean; 0 if there are no elements, or none of weight.
    dlogits : array of shape (..., O)
        Gradient of the loss, in the dtype of the logits (float64 for integers and lists).

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    ArgumentError
        If a target or a weight is out of range.
    ArgumentTypeError
        If an argument does not hold real numbers.

    Notes
    -----
    The loss of an element is ``max(z, 0) - t z + log(1 + exp(-|z|))``, whose exponential is in
    [0, 1].
    """
    logits = as_float_array(logits, "logits")
    truth = as_targets(targets, logits, "logits")
    check_elements(truth, "targets", (truth >= 0) & (truth <= 1), "numbers from 0 to 1")
    shares = _row_shares(weights, logits)
    # float16 could hold the result, but its exponentials would lose half of their few digits.
    scores = logits.astype(np.result_type(logits.dtype, np.float32), copy=False)
    small = np.exp(-np.abs(scores))
    losses = np.maximum(scores, 0) - scores * truth + np.log1p(small)
    gradient = np.where(scores >= 0, 1, small) / (1 + small) - truth
    return _mean_over_rows(losses, gradient.astype(logits.dtype, copy=False), shares)


def mean_squared_error(
    predictions: ArrayLike, targets: ArrayLike, weights: ArrayLike | None = None
) -> tuple[float, NDArray[Any]]:
    """Mean over all n elements of ``(predictions - targets)**2``, and its gradient.

    The gradient with respect to the predictions is ``2 (predictions - targets) / n``.

    Parameters
    ----------
    predictions : array
        Numbers of any shape and real dtype.
    targets : array of the same shape
        Numbers of any real dtype. There is no broadcasting, since ``(B,)`` against ``(B, 1)`` would
        give B * B differences without an error.
    weights : array of shape (...), optional
        Weights of the rows of predictions (..., O), at least 0; a mean over elements is then the
        weighted mean over rows of their own means.

    Returns
    -------
    loss : float
        The mean; 0 if there are no elements, or none of weight.
    dpredictions : array of the same shape
        Gradient of the loss, in the dtype of the predictions (float64 for integers and lists).

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    ArgumentError
        If a weight is out of range.
    ArgumentTypeError
        If an argument does not hold real numbers.
    """
    predictions = as_float_array(predictions, "predictions")
    numbers = as_targets(targets, predictions, "predictions")
    shares = _row_shares(weights, predictions)
    differences = np.asarray(predictions - numbers)
    squares = np.square(differences, dtype=np.float64)
    return _mean_over_rows(squares, differences, shares, 2.0)


def _mean_over_rows(
    losses: NDArray[Any],
    gradient: NDArray[Any],
    shares: NDArray[np.float64] | None,
    factor: float = 1.0,
) -> tuple[float, NDArray[Any]]:
    """Return the mean of elements' losses (..., O), and its gradient.

    Parameters
    ----------
    losses : array of shape (..., O)
        Losses of the elements.
    gradient : array of shape (..., O)
        The gradient of each element's own loss, over ``factor``; overwritten.
    shares : float64 array of shape (...), optional
        Share of each row in the mean; by default all shares are equal.
    factor : float
        Factor of the gradient.
    """
    if losses.size == 0:
        return 0.0, gradient
    if shares is None:
        gradient *= factor / losses.size
        return float(losses.mean(dtype=np.float64)), gradient
    gradient *= (shares * (factor / losses.shape[-1]))[..., np.newaxis].astype(gradient.dtype)
    gradient[shares == 0] = 0  # products with infinity would be NaN
    means = losses.mean(axis=-1, dtype=np.float64)
    return float(np.sum(means * shares, where=shares > 0)), gradient


def _row_shares(weights: ArrayLike | None, outputs: NDArray[Any]) -> NDArray[np.float64] | None:
    """Return `_shares` of the rows of outputs (..., O), if there are weights."""
    if weights is None:
        return None
    if outputs.ndim == 0:
        raise ShapeError("argument 'weights' must be None for a single number, got weights")
    return _shares(weights, np.ones(outputs.shape[:-1], bool))


def _shares(weights: ArrayLike, counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return each row's share of the total weight; rows that are not counted have share 0.

    If no row has weight, all shares are 0.
    """
    array = as_real_array(weights, "weights")
    if array.shape != counted.shape:
        raise ShapeError(
            f"argument 'weights' must be an array of shape {counted.shape}, one weight for each "
            f"row, got {describe(array)}"
        )
    check_nonnegative(array, "weights")
    shares: NDArray[np.float64] = np.where(counted, array, 0).astype(np.float64)
    return shares / (shares.sum() or 1.0)
