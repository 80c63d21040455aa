"""Optimizers walk arrays in blocks.

Every array is updated block by block, so that a parameter, its gradient, its moments and the
scratch of one block stay in cache during all operations, and memory is read and written once::

    param    |  block 0  |  block 1  |  block 2  | ...        each BLOCK numbers
    grad     |  block 0  |  block 1  |  block 2  | ...
    moments  |  block 0  |  block 1  |  block 2  | ...
    scratch  |  one block, used again and again  |

A block of a row-sparse gradient is some of its rows, fetched and put back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK", "blocks", "column", "row_blocks", "scratch_for", "sum_of_squares"]

BLOCK = 32768
"""Numbers per block: five float32 arrays of it are 640 KiB. More would not fit into a common L2
cache; with fewer, calls of NumPy would take longer than its work."""

_WALK: Final[list[Literal["external_loop", "buffered", "zerosize_ok"]]] = [
    "external_loop",
    "buffered",
    "zerosize_ok",
]


def scratch_for(param: NDArray[Any]) -> NDArray[Any]:
    """Return an array for a block of a parameter."""
    return np.empty(min(BLOCK, param.size), param.dtype)


def blocks(
    param: NDArray[Any], grad: NDArray[Any], moments: list[NDArray[Any]]
) -> Iterator[tuple[NDArray[Any], ...]]:
    """Walk arrays of one shape together, in flat pieces of at most BLOCK numbers.

    Pieces of contiguous arrays of the parameter's dtype are views. Arrays of another layout or
    dtype pass through a buffer of one block, which is written back if the array is to change.
    """
    arrays = [param, grad, *moments]
    access: list[list[Literal["readonly", "readwrite"]]] = [["readwrite"] for _ in arrays]
    access[1] = ["readonly"]
    dtypes = [param.dtype for _ in arrays]
    walk = np.nditer(arrays, _WALK, access, dtypes, casting="same_kind", buffersize=BLOCK)
    with walk:
        yield from walk


def row_blocks(
    rows: NDArray[Any], arrays: list[NDArray[Any]]
) -> Iterator[tuple[slice, list[NDArray[Any]]]]:
    """Walk the same rows of arrays (N, width), in blocks of about BLOCK numbers.

    Yields the indices of a block's rows, and copies of the rows, which are written back.
    """
    size = max(1, BLOCK // max(1, arrays[0].shape[1]))
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        block = [array[rows[part]] for array in arrays]
        yield part, block
        for array, changed in zip(arrays, block, strict=True):
            array[rows[part]] = changed


def column(factors: NDArray[Any], rows: NDArray[Any]) -> NDArray[Any]:
    """Return a factor for each of some rows, in their dtype."""
    factor: NDArray[Any] = factors.astype(rows.dtype)[:, np.newaxis]
    return factor


def sum_of_squares(array: NDArray[Any]) -> float:
    """Sum the squares in float64, in an order that depends only on the array's layout."""
    # BLAS would be a little faster, but its order of summation depends on the number of threads.
    total = 0.0
    walk = np.nditer(array, _WALK, op_dtypes=np.float64, buffersize=BLOCK)
    with np.errstate(over="ignore"), walk:
        for block in walk:
            total += float(np.square(block).sum())
    return total
