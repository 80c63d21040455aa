"""What users pass in, turned into what kernels take: C-contiguous rows of the parameters' dtype.

Any real array-like is welcome: lists, Fortran order, negative strides, read-only and memory-mapped
arrays, half precision, integers. Rows that already have the right form are passed on uncopied.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError, describe

__all__ = ["as_real_array", "as_rows", "check_out"]


def as_real_array(value: Any, name: str) -> NDArray[Any]:
    """Return an array-like of real numbers as an array, of whatever real dtype it has.

    Raises
    ------
    ArgumentTypeError
        If it holds complex numbers, strings or objects.
    ShapeError
        If it is a ragged nesting of lists.
    """
    try:
        array = np.asarray(value)
    except ValueError:
        raise ShapeError(
            f"argument '{name}' must be rectangular, got {describe(value)}, whose parts differ "
            "in shape"
        ) from None
    if array.dtype.kind not in "fiub":
        came = describe(array if isinstance(value, np.ndarray) else value)
        raise ArgumentTypeError(f"argument '{name}' must hold real numbers, got {came}")
    return array


def as_rows(
    value: Any, name: str, width: int, dtype: np.dtype[Any]
) -> tuple[NDArray[Any], tuple[int, ...]]:
    """Return an array-like of shape (..., width) as rows, and its leading shape.

    Parameters
    ----------
    value : array_like of shape (..., width)
        Real numbers.
    name : str
        What errors call it.
    width : int
        The length its last axis must have.
    dtype : dtype
        Of the rows. Numbers too large for it become infinite.

    Returns
    -------
    rows : array of shape (B, width)
        C-contiguous; the same memory as ``value`` where that has the right form already.
    leading : tuple of int
        ``value.shape[:-1]``, whose product is B.

    Raises
    ------
    ArgumentTypeError, ShapeError
        If it is not such an array.
    """
    array = as_real_array(value, name)
    shape = array.shape
    if not shape or shape[-1] != width:
        raise ShapeError(f"argument '{name}' must have shape (..., {width}), got shape {shape}")
    if array.dtype != dtype:
        with np.errstate(over="ignore"):
            array = array.astype(dtype, order="C")
    return np.require(array.reshape(-1, width), requirements=["C", "A"]), shape[:-1]


def check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise unless ``out`` is a writable array of exactly this shape and dtype.

    Raises
    ------
    ArgumentTypeError
        If it is not an array, or of another dtype.
    ShapeError
        If it has another shape.
    ArgumentError
        If it is read-only.
    """
    if not isinstance(out, np.ndarray) or out.dtype != dtype:
        raise ArgumentTypeError(f"argument 'out' must be an array of {dtype}, got {describe(out)}")
    if out.shape != shape:
        raise ShapeError(f"argument 'out' must have shape {shape}, got shape {out.shape}")
    if not out.flags.writeable:
        raise ArgumentError("argument 'out' must be writable, got a read-only array")
