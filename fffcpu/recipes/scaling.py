"""Scaling of inputs and of numbers to predict, such that a layer's dtype loses nothing.

A layer absorbs the scaling of its inputs and outputs in its parameters. It cannot do so where a
column is too large compared with its changes, such as a time in seconds: rounding to float32 loses
the changes. Such a scaling is applied in float64, before the layer and by the predictor that holds
it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fffcpu.columns.encoding import Encoding
from fffcpu.errors import ArgumentError

__all__ = [
    "EncodedRows",
    "Moments",
    "Scaling",
    "TargetScaling",
    "block_rows",
    "dense_rows",
    "deviations",
]

Array = NDArray[Any]

_ROUNDING = 2.0**-13
"""Largest rounding of an input, relative to its standard deviation: 0.012%."""

_WIDE = 2.0**60
"""Largest scale that a layer's weights absorb: they keep their digits, also in float32."""

_SMALLEST = 1e-300
"""Variances below this have lost digits, or vanish."""

_LOST = 2.0**20
"""Ratio of mean and deviation from which float32 leaves fewer than 16 steps per deviation."""

EVALUATED_ROWS = 8192
EVALUATED_NUMBERS = 1 << 23
"""Limits of an evaluation's blocks: number of rows, and of numbers in them (64 MiB)."""


def block_rows(width: int) -> int:
    """Return the number of rows per block of an evaluation."""
    return max(1, min(EVALUATED_ROWS, EVALUATED_NUMBERS // max(1, width)))


def dense_rows(x: Any, rows: Any) -> Array:
    """Return rows of a table; they are dense also if the table is a sparse matrix."""
    block = x[rows]
    dense: Array = block.toarray() if hasattr(block, "toarray") else block
    return dense


class EncodedRows:
    """The rows of a table as inputs of a layer: rows that are asked for are encoded then.

    Parameters
    ----------
    x : array of shape (R, C)
        The table, as `fffcpu.data.Encoding` has it.
    encoding : Encoding
        How the columns become inputs.
    """

    def __init__(self, x: Array, encoding: Encoding) -> None:
        self._x, self._encoding = x, encoding
        self.shape = (len(x), encoding.width)

    def __getitem__(self, rows: Any) -> Array:
        return self._encoding.expand(self._x[rows])


class Moments(NamedTuple):
    """Mean, variance and range of each column over some rows; those of several shards add up."""

    seen: float
    """Weight of the rows."""
    mean: Array
    """float64 (I,)."""
    squares: Array
    """float64 (I,), sums of the squared differences from the mean."""
    low: Array
    high: Array
    """float64 (I,)."""

    @classmethod
    def of(cls, x: Any, rows: NDArray[np.int64], weights: Array | None = None) -> Moments:
        """Find the moments of some rows of a table.

        Parameters
        ----------
        x : array, sparse matrix or EncodedRows of shape (R, I)
            The table; blocks of it are read in turn.
        rows : int64 array
            Numbers of the rows to use.
        weights : array of shape (R,), optional
            Weight of each row, above 0.
        """
        width = x.shape[1]
        found = cls(
            0.0,
            np.zeros(width),
            np.zeros(width),
            np.full(width, np.inf),
            np.full(width, -np.inf),
        )
        step = block_rows(width)
        for start in range(0, len(rows), step):
            numbers = rows[start : start + step]
            block = dense_rows(x, numbers).astype(np.float64)
            counts = np.ones(len(block)) if weights is None else weights[numbers]
            with np.errstate(over="ignore", invalid="ignore"):
                mean = np.average(block, axis=0, weights=counts)
                squares = counts @ np.square(block - mean)
            low, high = block.min(axis=0), block.max(axis=0)
            found = found.plus(cls(float(counts.sum()), mean, squares, low, high))
        return found

    def plus(self, other: Moments) -> Moments:
        """Return the moments of the rows of both.

        By Welford's update: a sum of squares would lose digits where the mean is large compared
        with the deviation.
        """
        seen, new = self.seen + other.seen, other.seen
        if not new:
            return self
        with np.errstate(over="ignore", invalid="ignore"):
            off = other.mean - self.mean
            mean = self.mean + off * (new / seen)
            squares = self.squares + other.squares
            squares += np.square(off) * ((seen - new) * new / seen)
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        return Moments(seen, mean, squares, low, high)

    @property
    def variance(self) -> Array:
        """float64 (I,)."""
        with np.errstate(over="ignore", invalid="ignore"):
            return self.squares / (self.seen or 1.0)

    @property
    def spread(self) -> Array:
        """float64 (I,), the largest difference of two rows."""
        if not self.seen:
            return np.zeros(len(self.mean))
        with np.errstate(over="ignore", invalid="ignore"):
            return self.high - self.low


@dataclasses.dataclass(frozen=True, eq=False)
class Scaling:
    """Inputs shifted and scaled: ``(x - mean) / scale``.

    Parameters
    ----------
    mean : float64 array of shape (I,)
        The mean of each input.
    scale : float64 array of shape (I,)
        The scale of each input, above 0.
    """

    mean: Array
    scale: Array

    @classmethod
    def of(
        cls,
        x: Any,
        rows: NDArray[np.int64],
        by: str,
        weights: Array | None = None,
        names: Sequence[str] | None = None,
    ) -> Scaling:
        """Find the scaling of some rows of a table.

        Parameters
        ----------
        x, rows
            As for `Moments.of`.
        by
            As for `from_moments`.
        weights
            As for `Moments.of`.
        names
            As for `from_moments`.

        Raises
        ------
        ArgumentError
            As for `from_moments`.
        """
        return cls.from_moments(Moments.of(x, rows, weights), by, names)

    @classmethod
    def from_moments(cls, moments: Moments, by: str, names: Sequence[str] | None = None) -> Scaling:
        """Find the scaling of rows with these moments.

        Parameters
        ----------
        moments : Moments
            The moments of the rows to train on.
        by : {"columns", "table", "none"}
            Columns: each column is shifted by its mean and divided by its standard deviation.
            Table: it is divided by the deviation of the whole table, as suits pixels. None: x is
            not changed.
        names : sequence of str, optional
            Names of the inputs, for errors.

        Raises
        ------
        ArgumentError
            If ``by`` has another value, a number is not finite, or a column that is not scaled by
            its own deviation changes too little for float32, compared with its size.
        """
        if by not in ("columns", "table", "none"):
            raise ArgumentError(f"argument 'by' must be columns, table or none, got {by!r}")
        mean, variance, spread = moments.mean, moments.variance, moments.spread
        wrong = ~np.isfinite(variance) | ((spread > 0.0) & (variance < _SMALLEST))
        for column in np.flatnonzero(wrong)[:1] if by != "none" else ():
            raise ArgumentError(
                f"{_input(column, names)} of the rows to train on must hold finite numbers whose "
                f"differences can be squared in float64, got a mean of {mean[column]:g} and "
                f"differences up to {spread[column]:g}"
            )
        scale = deviations(mean, variance)
        if by == "columns":
            return cls(mean, scale)
        lost = (np.abs(mean) > _LOST * scale) & ~_is_constant(mean, np.sqrt(variance))
        for column in np.flatnonzero(lost)[:1]:
            raise ArgumentError(
                f"{_input(column, names)} changes too little for float32, compared with its size "
                f"(mean {mean[column]:g}, standard deviation {scale[column]:g}); "
                f"standardize must be columns, got {by}"
            )
        width = len(mean)
        if by == "none":
            return cls(np.zeros(width), np.ones(width))
        return cls(mean, deviations(mean, np.full(width, variance.mean())))

    @classmethod
    def none(cls, width: int) -> Scaling:
        """Return the scaling that changes nothing."""
        return cls(np.zeros(width), np.ones(width))

    def is_far(self, dtype: DTypeLike) -> NDArray[np.bool_]:
        """Return which inputs (I,) a layer of this dtype cannot scale itself.

        They are too large compared with their changes, so that rounding loses the changes, or their
        scale leaves the range in which the layer's weights can absorb it.
        """
        rounding = float(np.finfo(np.dtype(dtype)).eps) * np.abs(self.mean)
        far: NDArray[np.bool_] = rounding > _ROUNDING * self.scale
        return far | (self.scale < 1.0 / _WIDE) | (self.scale > _WIDE)

    def split(self, dtype: DTypeLike) -> tuple[Scaling, Scaling]:
        """Return the scaling that must be applied exactly, and that which a layer can absorb.

        One after the other they are this scaling.
        """
        far = self.is_far(dtype)
        exact = Scaling(np.where(far, self.mean, 0.0), np.where(far, self.scale, 1.0))
        rest = Scaling(np.where(far, 0.0, self.mean), np.where(far, 1.0, self.scale))
        return exact, rest

    @functools.cached_property
    def _needs_care(self) -> dict[str, bool]:
        """Whether rows must be scaled in float64, by dtype of the layer."""
        return {name: bool(self.is_far(name).any()) for name in ("float32", "float64")}

    def apply(self, rows: Array, dtype: DTypeLike) -> Array:
        """Return scaled rows, of a layer's dtype."""
        if self._needs_care[np.dtype(dtype).name]:
            exact = np.subtract(rows, self.mean, dtype=np.float64)
            exact *= 1.0 / self.scale
            return exact.astype(dtype)
        scaled: Array = np.asarray(rows, dtype)
        scaled = scaled - self.mean.astype(dtype)
        scaled *= (1.0 / self.scale).astype(dtype)
        return scaled


def _input(place: int, names: Sequence[str] | None) -> str:
    """Return the words of errors for an input."""
    return f"column {place} (counted from 0)" if names is None else f"column {names[place]!r}"


def deviations(mean: Array, variance: Array) -> Array:
    """Return standard deviations to divide by: 1 for constant columns.

    A constant column may have a variance of a few roundings of its mean.
    """
    scale: Array = np.sqrt(variance)
    scale[_is_constant(mean, scale)] = 1.0
    return scale


def _is_constant(mean: Array, deviation: Array) -> NDArray[np.bool_]:
    constant: NDArray[np.bool_] = deviation <= 64 * np.finfo(np.float64).eps * np.abs(mean)
    return constant


class TargetScaling(NamedTuple):
    """Numbers to predict, shifted and scaled: a layer predicts ``(y - offset) / unit``."""

    offset: Array
    """float64 (O,), which a predictor adds."""
    unit: Array
    """float64 (O,), above 0, which the layer's output weights absorb."""

    @classmethod
    def of(
        cls, y: Array, weights: Array | None = None, name: str = "argument 'y'"
    ) -> TargetScaling:
        """Find the scaling of numbers (R, O).

        Parameters
        ----------
        y : array of shape (R, O)
            Finite numbers.
        weights : array of shape (R,), optional
            Weight of each row.
        name : str
            The words of errors for y.

        Raises
        ------
        ArgumentError
            If the numbers spread wider than a layer's parameters can.
        """
        known = y.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            offset = np.average(known, axis=0, weights=weights)
            variance = np.average(np.square(known - offset), axis=0, weights=weights)
        return cls._checked(offset, variance, name)

    @classmethod
    def from_moments(cls, moments: Moments, name: str = "argument 'y'") -> TargetScaling:
        """Find the scaling of numbers with these moments; ``name`` and errors are those of `of`."""
        return cls._checked(moments.mean, moments.variance, name)

    @classmethod
    def _checked(cls, offset: Array, variance: Array, name: str) -> TargetScaling:
        """Return the scaling of numbers with this mean and variance, or raise."""
        unit = deviations(offset, variance)
        wrong = ~((unit >= 1.0 / _WIDE) & (unit <= _WIDE))
        for column in np.flatnonzero(wrong)[:1]:
            raise ArgumentError(
                f"{name} must hold numbers whose standard deviation is from {1.0 / _WIDE:.0e} to "
                f"{_WIDE:.0e}, got {unit[column]:g}; predict them in another unit"
            )
        return cls(offset, unit)

    def apply(self, y: Array, dtype: DTypeLike) -> Array:
        """Return scaled numbers."""
        scaled: Array = ((y - self.offset) / self.unit).astype(dtype)
        return scaled

    def is_far(self, dtype: DTypeLike) -> bool:
        """Whether adding the offset in this dtype would lose digits of predictions."""
        rounding = float(np.finfo(np.dtype(dtype)).eps) * np.abs(self.offset)
        return bool((rounding > _ROUNDING * self.unit).any())
