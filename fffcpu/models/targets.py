"""Labels that users pass in, checked before anything is computed with them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.checks import as_real_array
from fffcpu.config import IGNORED_LABEL
from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError, describe

__all__ = ["class_labels", "number_labels"]


def class_labels(
    labels: Any, shape: tuple[int, ...], classes: int, *, may_miss: bool = True
) -> NDArray[np.int64]:
    """Return labels of classes as an array.

    Parameters
    ----------
    labels : array_like of integers
        From 0 to ``classes - 1``, or -100 where there is none, if any ``may_miss``.
    shape : tuple of int
        What shape they must have.
    classes : int
        How many classes there are.
    may_miss : bool
        Whether -100 is allowed.

    Raises
    ------
    ArgumentTypeError, ShapeError, ArgumentError
        If they are no such labels.
    """
    array = _shaped(labels, shape)
    if array.dtype.kind not in "iu" and array.size:
        raise ArgumentTypeError(f"argument 'labels' must hold integers, got {describe(array)}")
    wrong = (array < 0) | (array >= classes)
    if may_miss:
        wrong &= array != IGNORED_LABEL
    if wrong.any():
        place = tuple(int(index) for index in np.argwhere(wrong)[0])
        or_none = f", or {IGNORED_LABEL} where there is no label" if may_miss else ""
        raise ArgumentError(
            f"argument 'labels' must hold integers from 0 to {classes - 1}{or_none}, "
            f"got {array[place]} at index {place}"
        )
    return array.astype(np.int64)


def number_labels(labels: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return labels of a regression, finite numbers, as an array.

    Raises
    ------
    ArgumentTypeError, ShapeError, ArgumentError
        If they are no such numbers, or of another shape.
    """
    array = _shaped(labels, shape).astype(np.float64)
    if not np.isfinite(array).all():
        raise ArgumentError("argument 'labels' must hold finite numbers, got others")
    return array


def _shaped(labels: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    array = as_real_array(labels, "labels")
    if array.shape != shape:
        raise ShapeError(f"argument 'labels' must have shape {shape}, got shape {array.shape}")
    return array
