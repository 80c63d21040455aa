"""Losses: one number to make small, and its gradient with respect to what the model put out.

Shapes: ``(..., C)`` logits of C classes with labels ``(...)``, or predictions and targets of one
shape. Sums are taken in float64, so that the loss of a long batch of float32 rows keeps its
digits; the gradient has the dtype of what it is the gradient of.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fffcpu.config import IGNORED_LABEL
from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError, describe
from fffcpu.inputs import as_real_array

__all__ = ["IGNORED_LABEL", "mean_squared_error", "softmax_cross_entropy"]


def softmax_cross_entropy(logits: ArrayLike, labels: ArrayLike) -> tuple[float, NDArray[Any]]:
    """Mean cross-entropy between softmax(logits) and integer labels, and its gradient.

    With ``p = softmax(z)`` of one row, its label ``c`` and M labelled rows, the loss is the mean of
    ``-log p_c`` and its gradient ``(p - onehot(c)) / M``.

    Parameters
    ----------
    logits : array of shape (..., C)
        Scores of C classes, of any real dtype.
    labels : array of integers of shape (...)
        From 0 to C - 1, or -100: such rows are not read, and their gradient is 0.

    Returns
    -------
    loss : float
        Mean over the labelled rows; 0 if there is none.
    dlogits : array of shape (..., C)
        Gradient of the loss, in the dtype of the logits (float64 for integers and lists).

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    ArgumentError
        If a label is out of range.
    ArgumentTypeError
        If the logits are not real numbers or the labels not integers.

    Notes
    -----
    Each row's largest logit is subtracted first, which changes nothing in exact arithmetic and
    keeps every exponential in [0, 1].
    """
    logits = _float_array("logits", logits)
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ShapeError(
            "argument 'logits' must be an array of shape (..., classes) with at least 1 class, "
            f"got {describe(logits)}"
        )
    labels = _label_array(labels, logits.shape)
    classes = logits.shape[-1]
    labelled = labels != IGNORED_LABEL
    dlogits = np.zeros(logits.shape, logits.dtype)
    if not labelled.any():
        return 0.0, dlogits
    loss, gradient = _cross_entropy_rows(
        logits.reshape(-1, classes)[labelled.reshape(-1)], labels[labelled].astype(np.intp)
    )
    dlogits[labelled] = gradient
    return loss, dlogits


def _cross_entropy_rows(rows: NDArray[Any], labels: NDArray[np.intp]) -> tuple[float, NDArray[Any]]:
    """Loss and gradient of labelled rows of shape (M, C); may work in the rows' memory."""
    # float16 could hold the result, but its exponentials would lose half of their few digits.
    rows = rows.astype(np.result_type(rows.dtype, np.float32), copy=False)
    picked = np.arange(len(rows)), labels
    rows -= rows.max(axis=1, keepdims=True)
    of_labels = rows[picked].astype(np.float64)
    np.exp(rows, out=rows)
    totals = rows.sum(axis=1, dtype=np.float64)
    loss = float(np.mean(np.log(totals) - of_labels))
    rows /= totals[:, np.newaxis].astype(rows.dtype)
    rows[picked] -= 1.0
    rows /= len(rows)
    return loss, rows


def mean_squared_error(predictions: ArrayLike, targets: ArrayLike) -> tuple[float, NDArray[Any]]:
    """Mean over all n elements of ``(predictions - targets)**2``, and its gradient.

    The gradient with respect to the predictions is ``2 (predictions - targets) / n``.

    Parameters
    ----------
    predictions : array
        Of any shape and real dtype.
    targets : array of the same shape
        Of any real dtype. There is no broadcasting, since ``(B,)`` against ``(B, 1)`` would give
        B * B differences without a word.

    Returns
    -------
    loss : float
        The mean; 0 if there are no elements.
    dpredictions : array of the same shape
        Gradient of the loss, in the dtype of the predictions (float64 for integers and lists).

    Raises
    ------
    ShapeError
        If the shapes differ.
    ArgumentTypeError
        If an argument does not hold real numbers.
    """
    predictions = _float_array("predictions", predictions)
    targets = _float_array("targets", targets)
    if targets.shape != predictions.shape:
        raise ShapeError(
            f"argument 'targets' must be an array of shape {predictions.shape}, as predictions, "
            f"got {describe(targets)}"
        )
    if predictions.size == 0:
        return 0.0, np.zeros(predictions.shape, predictions.dtype)
    differences = np.asarray(predictions - targets.astype(predictions.dtype, copy=False))
    loss = float(np.square(differences, dtype=np.float64).mean())
    differences *= 2.0 / differences.size
    return loss, differences


def _float_array(name: str, values: ArrayLike) -> NDArray[Any]:
    """Return real numbers as an array of floats; those that are none yet become float64."""
    array = as_real_array(values, name)
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def _label_array(labels: ArrayLike, logits_shape: tuple[int, ...]) -> NDArray[Any]:
    """Return labels as an array that fits the logits and holds only labels that exist."""
    array = as_real_array(labels, "labels")
    # NumPy takes an empty list for floats: where there is no label there is no wrong kind of one.
    if array.dtype.kind not in "iu" and array.size > 0:
        raise ArgumentTypeError(f"argument 'labels' must hold integers, got {describe(array)}")
    if array.shape != logits_shape[:-1]:
        raise ShapeError(
            f"argument 'labels' must be an array of shape {logits_shape[:-1]}, one label for each "
            f"row of logits {logits_shape}, got {describe(array)}"
        )
    wrong = (array != IGNORED_LABEL) & ((array < 0) | (array >= logits_shape[-1]))
    if wrong.any():
        place = tuple(int(index) for index in np.argwhere(wrong)[0])
        raise ArgumentError(
            f"argument 'labels' must hold integers from 0 to {logits_shape[-1] - 1}, or "
            f"{IGNORED_LABEL} where there is no label, got {array[place]} at index {place}"
        )
    return array
