"""bfloat16 and int8: rounding weights to these types, and widening the rounded weights.

bfloat16 is the upper half of a float32: its sign, its exponent and 7 of its 23 fraction bits. NumPy
has no such type, so arrays of uint16 hold the bits::

    float32   s eeeeeeee fffffffffffffffffffffff
    bfloat16  s eeeeeeee fffffff                to nearest, ties to even: error of at most 2**-8

int8 is symmetric with one scale for each row of input or output weights: ``weight = scale * q``, q
from -127 to 127, where ``127 * scale`` is the row's largest weight. So the error of a weight is at
most half a scale.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NARROW_TYPES", "from_bfloat16", "from_int8", "numpy_dtype", "to_bfloat16", "to_int8"]

Array = NDArray[Any]

NARROW_TYPES = ("bfloat16", "int8")
"""Types of a quantized layer's weights."""

LARGEST = 127
"""The largest int8 used; -128 would have no counterpart."""


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return the NumPy dtype for a type; NumPy has no bfloat16, so uint16 holds its bits."""
    return np.dtype("uint16" if name == "bfloat16" else name)


def to_bfloat16(array: Array) -> Array:
    """Round numbers to bfloat16, to nearest and ties to even.

    Parameters
    ----------
    array : float array
        Numbers to round; float64 is rounded to float32 first. NaN stays NaN, infinities stay, and
        numbers of at least 3.396e38 become infinite.

    Returns
    -------
    uint16 array
        Bits of each number.
    """
    with np.errstate(over="ignore"):
        numbers = np.ascontiguousarray(array, np.float32)
    bits = numbers.view(np.uint32)
    # Half of the lost bits' unit, less one if the last kept bit is 0: ties then go to even.
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16
    # Rounding could turn a NaN into infinity, or overflow the largest integer to 0.
    rounded = np.where(np.isnan(numbers), (bits >> 16) | 0x40, rounded)
    result: Array = rounded.astype(np.uint16).reshape(array.shape)
    return result


def from_bfloat16(bits: Array) -> Array:
    """Return the float32 numbers that bfloat16 bits represent, exactly."""
    # NumPy 1 makes a signed scalar of an array without axes that is shifted by a plain 16.
    shifted = np.asarray(bits.astype(np.uint32) << np.uint32(16))
    result: Array = shifted.view(np.float32)
    return result


def to_int8(array: Array, axis: int) -> tuple[Array, Array]:
    """Round numbers to int8, with one scale per run along an axis.

    Parameters
    ----------
    array : float32 array
        Finite numbers.
    axis : int
        Axis along which numbers share a scale.

    Returns
    -------
    numbers : int8 array
        Rounded numbers of the array's shape, from -127 to 127.
    scales : float32 array
        Scales of that shape without the axis, all positive: for zeros, the smallest normal number.
    """
    largest = np.abs(array).max(axis=axis, keepdims=True)
    scales = np.maximum(largest / np.float32(LARGEST), np.finfo(np.float32).tiny)
    # A quotient exceeds 127 only by the rounding of the scale, so none is rounded to 128.
    return np.rint(array / scales).astype(np.int8), scales.squeeze(axis)


def from_int8(numbers: Array, scales: Array, axis: int) -> Array:
    """Return the float32 numbers that int8 numbers and the scales along an axis represent."""
    result: Array = numbers * np.expand_dims(scales, axis)
    return result
