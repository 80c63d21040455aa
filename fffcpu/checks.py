"""Argument checks that more than one module uses, and the errors that they raise.

``check_*`` functions return a value after checking it. ``as_*`` functions convert any real
array-like to an array: lists, Fortran order, negative strides, read-only and memory-mapped arrays,
half precision, integers. An array that already has the right form is returned without a copy,
unless the function promises one.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError, describe
from fffcpu.lowbit import NARROW_TYPES

__all__ = [
    "IGNORED_LABEL",
    "MOST_AXES",
    "as_class_labels",
    "as_float_array",
    "as_number_labels",
    "as_probabilities",
    "as_real_array",
    "as_rows",
    "as_targets",
    "check_dtype",
    "check_elements",
    "check_flag",
    "check_indices",
    "check_integer",
    "check_nonnegative",
    "check_number",
    "check_out",
    "check_weights",
    "first_wrong",
    "is_possible_shape",
]

IGNORED_LABEL = -100
"""Label of a position that is ignored in the loss and its gradient."""

MOST_AXES = 32
"""Largest number of axes in NumPy 1."""


def check_integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """Return ``value`` as an int from ``low`` to ``high`` (inclusive), or raise an error.

    Raises
    ------
    ArgumentTypeError
        If the value is not an integer (a bool is not, a NumPy integer is).
    ArgumentError
        If the value is out of range.
    """
    span = f"an integer of at least {low}" if high is None else f"an integer from {low} to {high}"
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise ArgumentTypeError(
            f"argument '{name}' must be {span}, got {describe(value)}"
        ) from None
    if number < low or (high is not None and number > high):
        raise ArgumentError(f"argument '{name}' must be {span}, got {number}")
    return number


def check_number(name: str, value: Any, low: float, high: float | None = None) -> float:
    """Return ``value`` as a finite float from ``low`` to ``high`` (inclusive), or raise an error.

    Raises
    ------
    ArgumentTypeError
        If the value is not a real number.
    ArgumentError
        If the value is out of range, infinite or NaN.
    """
    span = f"a number of at least {low:g}" if high is None else f"a number from {low:g} to {high:g}"
    try:
        if isinstance(value, str | bytes | bool | np.bool_):
            raise TypeError
        number = float(value)
    except OverflowError:
        raise ArgumentError(f"argument '{name}' must be {span}, got {describe(value)}") from None
    except (TypeError, ValueError):
        raise ArgumentTypeError(
            f"argument '{name}' must be {span}, got {describe(value)}"
        ) from None
    if not low <= number <= (np.finfo(np.float64).max if high is None else high):
        raise ArgumentError(f"argument '{name}' must be {span}, got {number:g}")
    return number


def check_flag(name: str, value: Any) -> bool:
    """Return ``value`` if it is True or False, or raise ArgumentTypeError."""
    if not isinstance(value, bool | np.bool_):
        raise ArgumentTypeError(f"argument '{name}' must be True or False, got {describe(value)}")
    return bool(value)


def check_dtype(value: Any) -> str:
    """Return ``"float32"`` or ``"float64"``, or raise ArgumentError."""
    try:
        # NumPy takes None for float64.
        name = str(np.dtype(value)) if value is not None else None
    except (TypeError, SyntaxError, ValueError):
        name = None
    if name not in ("float32", "float64"):
        raise ArgumentError(f"argument 'dtype' must be float32 or float64, got {describe(value)}")
    return name


def check_weights(value: Any) -> str:
    """Return ``value`` if it is one of `NARROW_TYPES`, or raise ArgumentError."""
    if isinstance(value, str) and value in NARROW_TYPES:
        return value
    names = " or ".join(repr(name) for name in NARROW_TYPES)
    raise ArgumentError(f"argument 'weights' must be {names}, got {describe(value)}")


def is_possible_shape(shape: Sequence[int], itemsize: int) -> bool:
    """Return whether NumPy can make an array of these lengths, which a file gives.

    A length of 0 hides that the others are too large: such an array takes no memory, but NumPy
    refuses it.
    """
    small = math.prod(length for length in shape if length) * itemsize <= sys.maxsize
    return small and len(shape) <= MOST_AXES and all(0 <= n <= sys.maxsize for n in shape)


def as_real_array(value: Any, name: str) -> NDArray[Any]:
    """Return an array-like of real numbers as an array of the same dtype.

    Raises
    ------
    ArgumentTypeError
        If ``value`` holds complex numbers, strings or objects.
    ShapeError
        If ``value`` is a ragged nesting of lists.
    """
    try:
        array = np.asarray(value)
    except ValueError:
        raise ShapeError(
            f"argument '{name}' must be rectangular, got {describe(value)}, whose items differ "
            "in shape"
        ) from None
    if array.dtype.kind not in "fiub":
        came = describe(array if isinstance(value, np.ndarray) else value)
        raise ArgumentTypeError(f"argument '{name}' must hold real numbers, got {came}")
    return array


def as_float_array(value: Any, name: str) -> NDArray[Any]:
    """Return an array-like of real numbers as an array of floats; other dtypes become float64.

    Raises
    ------
    ArgumentTypeError, ShapeError
        If ``value`` is not such an array.
    """
    array = as_real_array(value, name)
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def as_rows(
    value: Any, name: str, width: int, dtype: np.dtype[Any]
) -> tuple[NDArray[Any], tuple[int, ...]]:
    """Return an array-like of shape (..., width) as rows, and its leading shape.

    Parameters
    ----------
    value : array_like of shape (..., width)
        Real numbers.
    name : str
        Name of the argument in errors.
    width : int
        Required length of the last axis.
    dtype : dtype
        dtype of the rows. Numbers too large for it become infinite.

    Returns
    -------
    rows : array of shape (B, width)
        The rows, C-contiguous; in the memory of ``value`` if that already has the right form.
    leading : tuple of int
        ``value.shape[:-1]``, whose product is B.

    Raises
    ------
    ArgumentTypeError, ShapeError
        If ``value`` is not such an array.
    """
    array = as_real_array(value, name)
    shape = array.shape
    if not shape or shape[-1] != width:
        raise ShapeError(f"argument '{name}' must have shape (..., {width}), got shape {shape}")
    if array.dtype != dtype:
        with np.errstate(over="ignore"):
            array = array.astype(dtype, order="C")
    rows = array.reshape(-1, width)
    if not (rows.flags.c_contiguous and rows.flags.aligned):
        rows = np.require(rows, requirements=["C", "A"])
    return rows, shape[:-1]


def check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise unless ``out`` is a writable array of exactly this shape and dtype.

    Raises
    ------
    ArgumentTypeError
        If ``out`` is not an array, or has another dtype.
    ShapeError
        If ``out`` has another shape.
    ArgumentError
        If ``out`` is read-only.
    """
    if not isinstance(out, np.ndarray) or out.dtype != dtype:
        raise ArgumentTypeError(f"argument 'out' must be an array of {dtype}, got {describe(out)}")
    if out.shape != shape:
        raise ShapeError(f"argument 'out' must have shape {shape}, got shape {out.shape}")
    if not out.flags.writeable:
        raise ArgumentError("argument 'out' must be writable, got a read-only array")


def first_wrong(array: NDArray[Any], right: NDArray[np.bool_]) -> str:
    """Return the first element of an array that is not right, in the words of errors.

    Returns
    -------
    str
        The element and its index: ``"5 at index 3"`` or ``"5 at index (0, 3)"``.
    """
    place = tuple(int(index) for index in np.unravel_index(np.argmin(right), right.shape))
    if not place:
        return str(array[place])
    return f"{array[place]} at index {place[0] if len(place) == 1 else place}"


def check_elements(array: NDArray[Any], name: str, right: NDArray[np.bool_], expected: str) -> None:
    """Raise unless every element of an array is right; the error names the first wrong one.

    Parameters
    ----------
    array : array
        The argument.
    name : str
        Name of the argument in errors.
    right : array of bool, of the same shape
        Mask of the elements that are right.
    expected : str
        Description of right elements, such as ``"finite numbers"``.

    Raises
    ------
    ArgumentError
        If an element is wrong.
    """
    if not right.all():
        raise ArgumentError(
            f"argument '{name}' must hold {expected}, got {first_wrong(array, right)}"
        )


def check_nonnegative(array: NDArray[Any], name: str) -> None:
    """Raise unless an array of real numbers holds finite numbers of at least 0."""
    right = np.isfinite(array) & (array >= 0)
    check_elements(array, name, right, "finite numbers of at least 0")


def check_indices(
    array: NDArray[Any], name: str, count: int, missing: int | None = None, meaning: str = ""
) -> None:
    """Raise unless an array holds integers from 0 to ``count - 1``.

    Parameters
    ----------
    array : array
        The argument. An empty array may have any dtype, because NumPy makes ``[]`` float64.
    name : str
        Name of the argument in errors.
    count : int
        Number of valid indices.
    missing : int, optional
        Another integer that is allowed.
    meaning : str
        Meaning of ``missing``, for errors.

    Raises
    ------
    ArgumentTypeError
        If the array does not hold integers.
    ArgumentError
        If an integer is out of range.
    """
    if array.dtype.kind not in "iu" and array.size:
        raise ArgumentTypeError(f"argument '{name}' must hold integers, got {describe(array)}")
    right = (array >= 0) & (array < count)
    expected = f"integers from 0 to {count - 1}"
    if missing is not None:
        right |= array == missing
        expected += f", or {missing} {meaning}"
    check_elements(array, name, right, expected)


def as_class_labels(
    labels: Any, shape: tuple[int, ...], classes: int, *, may_miss: bool = True
) -> NDArray[np.int64]:
    """Return class labels as an array.

    Parameters
    ----------
    labels : array_like of integers
        Labels from 0 to ``classes - 1``, or -100 for no label if ``may_miss``.
    shape : tuple of int
        Required shape.
    classes : int
        Number of classes.
    may_miss : bool
        Whether -100 is allowed.

    Returns
    -------
    int64 array
        A copy of the labels.

    Raises
    ------
    ArgumentTypeError, ShapeError, ArgumentError
        If ``labels`` is not such an array.
    """
    array = _shaped_labels(labels, shape)
    if may_miss:
        check_indices(array, "labels", classes, IGNORED_LABEL, "where there is no label")
    else:
        check_indices(array, "labels", classes)
    return array.astype(np.int64)


def as_number_labels(labels: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the labels of a regression, finite numbers, as an array.

    Returns
    -------
    float64 array
        A copy of the labels.

    Raises
    ------
    ArgumentTypeError, ShapeError, ArgumentError
        If ``labels`` does not hold finite numbers, or has another shape.
    """
    array = _shaped_labels(labels, shape).astype(np.float64)
    check_elements(array, "labels", np.isfinite(array), "finite numbers")
    return array


def as_probabilities(labels: Any, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return labels that are probabilities of classes (B, C), as an array.

    Returns
    -------
    float64 array
        A copy of the labels.

    Raises
    ------
    ArgumentTypeError, ShapeError, ArgumentError
        If ``labels`` has another shape, a number below 0, or a row whose sum is not 1, up to a
        thousandth.
    """
    array = _shaped_labels(labels, shape).astype(np.float64)
    check_nonnegative(array, "labels")
    sums = array.sum(axis=1)
    check_elements(sums, "labels", np.abs(sums - 1) < 1e-3, "rows of probabilities with sum 1")
    return array


def _shaped_labels(labels: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    array = as_real_array(labels, "labels")
    if array.shape != shape:
        raise ShapeError(f"argument 'labels' must have shape {shape}, got shape {array.shape}")
    return array


def as_targets(targets: Any, outputs: NDArray[Any], name: str) -> NDArray[Any]:
    """Return targets as an array with the shape and dtype of a model's outputs.

    Parameters
    ----------
    targets : array_like
        Real numbers. There is no broadcasting.
    outputs : array
        The outputs that the targets are compared with.
    name : str
        Name of the outputs in errors.

    Raises
    ------
    ArgumentTypeError, ShapeError
        If ``targets`` is not such an array.
    """
    array = as_real_array(targets, "targets")
    if array.shape != outputs.shape:
        raise ShapeError(
            f"argument 'targets' must be an array of shape {outputs.shape}, as {name}, "
            f"got {describe(array)}"
        )
    return array.astype(outputs.dtype, copy=False)
