"""A layer's arrays: named, shaped, and aligned to the 64 bytes of a cache line; row gradients.

The alignment is worth 10 to 20% of a kernel's time, since no vector load then straddles two lines;
NumPy's own arrays start 16 bytes into a page.

A `RowGradient` holds the rows of a gradient that are not 0, where most are::

    parameter (T, N, I)    rows    values (R, I)
    tree 0, node 0           0     |########|
            node 1                                 no row of the batch came here
            node 2           2     |########|
    tree 1, node 0         N + 0   |########|
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fffcpu.checks import check_indices
from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError, describe

__all__ = [
    "ALIGNED_ROWS",
    "ALIGNMENT",
    "Parameters",
    "RowGradient",
    "aligned_empty",
    "empty_output",
    "generator",
    "normal",
    "uniform",
]

ALIGNMENT = 64

ALIGNED_ROWS = 256
"""Rows from which on an output is aligned to cache lines, so that kernels may write whole ones.

To align it takes about 4 microseconds, a hundredth of what so many rows take at BERT's size."""


def aligned_empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return an uninitialised C-contiguous array whose data starts on a 64-byte boundary."""
    dtype = np.dtype(dtype)
    size = dtype.itemsize
    for length in shape:
        size *= length
    buffer = np.empty(size + ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    return buffer[start : start + size].view(dtype).reshape(shape)


def empty_output(rows: int, width: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return uninitialised memory for an output (rows, width)."""
    shape = (rows, width)
    return np.empty(shape, dtype) if rows < ALIGNED_ROWS else aligned_empty(shape, dtype)


def generator(rng: Any) -> np.random.Generator:
    """Return a NumPy generator from None, a seed or a generator.

    Raises
    ------
    ArgumentTypeError
        If ``rng`` is none of these.
    """
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError):
        raise ArgumentTypeError(
            "argument 'rng' must be None, a seed of at least 0 or a numpy.random.Generator, "
            f"got {describe(rng)}"
        ) from None


class Parameters(Mapping[str, NDArray[Any]]):
    """A fixed mapping from names to writable arrays.

    The names and the arrays stay; the numbers in the arrays are changed in place, as optimizers do:
    ``params["weights_in"][...] = 0``.

    Parameters
    ----------
    arrays : mapping of str to array
        Copied, each to 64-byte-aligned C-contiguous memory.
    dtype : dtype, or mapping of str to dtype
        Of the copies: one for all, or one for each name.
    """

    __slots__ = ("_arrays",)

    def __init__(
        self, arrays: Mapping[str, NDArray[Any]], dtype: DTypeLike | Mapping[str, DTypeLike]
    ) -> None:
        dtypes: Any = dtype if isinstance(dtype, Mapping) else dict.fromkeys(arrays, dtype)
        copies = {}
        for name, array in arrays.items():
            copies[name] = aligned_empty(array.shape, dtypes[name])
            copies[name][...] = array
        self._arrays: dict[str, NDArray[Any]] = copies

    @classmethod
    def empty(cls, shapes: Mapping[str, tuple[int, ...]], dtype: DTypeLike) -> Parameters:
        """Make uninitialised parameters of these shapes."""
        params = cls({}, dtype)
        params._arrays = {name: aligned_empty(shape, dtype) for name, shape in shapes.items()}
        return params

    @classmethod
    def sharing(cls, arrays: Mapping[str, NDArray[Any]]) -> Parameters:
        """Make parameters of just these arrays: writable, C-contiguous, and not copied."""
        params = cls({}, np.float32)
        params._arrays = dict(arrays)
        return params

    def module(self, prefix: str, names: Iterable[str]) -> Parameters:
        """Return the parameters of one module of a model, ``prefix.name`` under each name.

        The arrays are the same: what changes in one mapping changes in the other.
        """
        return self.sharing({name: self[f"{prefix}.{name}"] for name in names})

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    # By identity: arrays have no one truth value that a mapping's comparison could use.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in self.items())
        return f"Parameters({shapes})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Parameters, (self._arrays, {name: array.dtype for name, array in self.items()})

    @property
    def count(self) -> int:
        """How many numbers there are in all."""
        return sum(array.size for array in self.values())

    @property
    def nbytes(self) -> int:
        """How many bytes the arrays take."""
        return sum(array.nbytes for array in self.values())


@dataclass(frozen=True, eq=False)
class RowGradient:
    """The rows of a parameter's gradient that are not 0.

    Parameters
    ----------
    rows : int64 array of shape (R,)
        Which rows, in rising order: numbers of the parameter's leading axes, taken as one axis.
    values : array of shape (R, ...)
        Their numbers.
    shape : tuple of int
        The parameter's shape: leading axes, which ``rows`` counts, then those of a row.

    Raises
    ------
    ArgumentTypeError, ShapeError, ArgumentError
        If the arrays are of the wrong kind, do not fit together, or the rows do not rise.

    Examples
    --------
    >>> import numpy as np
    >>> from fffcpu.parameters import RowGradient
    >>> grad = RowGradient(np.array([0, 2]), np.array([[1.0, 1.0], [3.0, 3.0]]), (1, 3, 2))
    >>> grad.dense().tolist()
    [[[1.0, 1.0], [0.0, 0.0], [3.0, 3.0]]]
    """

    rows: NDArray[Any]
    values: NDArray[Any]
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        rows: Any = self.rows
        values: Any = self.values
        if not isinstance(rows, np.ndarray) or rows.dtype != np.int64 or rows.ndim != 1:
            raise ArgumentTypeError(
                f"argument 'rows' must be an int64 array of one axis, got {describe(rows)}"
            )
        if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
            raise ArgumentTypeError(
                f"argument 'values' must be an array of floats, got {describe(values)}"
            )
        expected = (len(rows), *self.shape[len(self.leading) :])
        if not 1 <= values.ndim <= len(self.shape) or values.shape != expected:
            raise ShapeError(
                f"argument 'values' must have a row for each of {len(rows)} rows of a parameter of "
                f"shape {self.shape}, got shape {values.shape}"
            )
        rises = np.diff(rows) > 0
        if not rises.all():
            place = int(np.argmin(rises)) + 1
            raise ArgumentError(
                f"argument 'rows' must rise, got {rows[place]} after {rows[place - 1]} at index "
                f"{place}"
            )
        count = math.prod(self.leading)
        if len(rows) and not (rows[0] >= 0 and rows[-1] < count):
            check_indices(rows, "rows", count)

    @property
    def leading(self) -> tuple[int, ...]:
        """The axes of the parameter that ``rows`` counts, such as (T, N)."""
        return self.shape[: len(self.shape) - self.values.ndim + 1]

    def dense(self) -> NDArray[Any]:
        """Return the whole gradient, an array of the parameter's shape."""
        whole = np.zeros(self.shape, self.values.dtype)
        whole[np.unravel_index(self.rows, self.leading)] = self.values
        return whole

    def plus(self, other: RowGradient) -> RowGradient:
        """Return the sum of two gradients of one parameter."""
        rows = np.union1d(self.rows, other.rows)
        values = np.zeros((len(rows), *self.values.shape[1:]), self.values.dtype)
        for grad in (self, other):
            values[np.searchsorted(rows, grad.rows)] += grad.values
        return RowGradient(rows, values, self.shape)


def uniform(array: NDArray[Any], bound: float, rng: np.random.Generator) -> None:
    """Fill an array with numbers uniform in ±bound, drawn in its own precision."""
    rng.random(out=array, dtype=array.dtype.type)
    array *= 2 * bound
    array -= bound


def normal(array: NDArray[Any], std: float, rng: np.random.Generator) -> None:
    """Fill an array with normal numbers of mean 0, drawn in its own precision."""
    rng.standard_normal(out=array, dtype=array.dtype.type)
    array *= std
