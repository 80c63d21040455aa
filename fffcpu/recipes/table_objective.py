"""A layer trained on the rows of a table: what `fffcpu.training.Trainer` asks for, for one layer.

The layer is whatever has ``params``, ``forward`` and ``backward``; rows may lie in memory or in a
memory-mapped file, of which a batch reads its own, or in a sparse matrix, of which only the batch
becomes dense.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fffcpu.errors import ArgumentError, ShapeError
from fffcpu.training.batches import BatchOrder
from fffcpu.training.losses import (
    mean_squared_error,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
)
from fffcpu.training.trainer import Moment, StepResult

__all__ = [
    "Scaling",
    "TableObjective",
    "block_rows",
    "dense_rows",
    "deviations",
    "figures_of",
]

Array = NDArray[Any]

EVALUATED_ROWS = 8192
EVALUATED_NUMBERS = 1 << 23
"""Rows that an evaluation takes at a time, and how many numbers they may hold (64 MiB)."""


def block_rows(width: int) -> int:
    """Return how many rows of a table an evaluation takes at a time."""
    return max(1, min(EVALUATED_ROWS, EVALUATED_NUMBERS // max(1, width)))


def dense_rows(x: Any, rows: Any) -> Array:
    """Return rows of a table, dense also where the table is a sparse matrix."""
    block = x[rows]
    dense: Array = block.toarray() if hasattr(block, "toarray") else block
    return dense


class _Layer(Protocol):
    """What a `TableObjective` asks of a layer."""

    @property
    def params(self) -> Mapping[str, Array]: ...

    def __call__(self, x: Any) -> Array: ...

    def forward(self, x: Any, **options: Any) -> tuple[Array, Any]: ...

    def backward(self, dy: Any, cache: Any, **options: Any) -> tuple[Array, dict[str, Any]]: ...

    def usage(self, cache: Any) -> dict[str, Array]: ...


class Scaling(NamedTuple):
    """Columns shifted and scaled: ``(x - mean) / scale``."""

    mean: Array
    """The mean of each column, float64 (I,)."""
    scale: Array
    """The scale of each column, float64 (I,), above 0."""

    @classmethod
    def of(cls, x: Any, rows: NDArray[np.int64], by: str, weights: Array | None = None) -> Scaling:
        """Find the scaling of some rows of a table.

        Parameters
        ----------
        x : array or sparse matrix of shape (R, I)
            The table; blocks of it are read in turn.
        rows : int64 array
            Which rows count.
        by : {"columns", "table", "none"}
            Each column less its mean, over its own standard deviation, or over that of the whole
            table, as suits pixels; or x as it is.
        weights : array of shape (R,), optional
            How much each row counts, above 0.

        Raises
        ------
        ArgumentError
            If ``by`` is something else, or a number is not finite.
        """
        width = x.shape[1]
        if by not in ("columns", "table", "none"):
            raise ArgumentError(f"argument 'by' must be columns, table or none, got {by!r}")
        if by == "none":
            return cls(np.zeros(width), np.ones(width))
        mean, squares = np.zeros(width), np.zeros(width)
        seen = 0.0
        step = block_rows(width)
        for start in range(0, len(rows), step):
            numbers = rows[start : start + step]
            block = dense_rows(x, numbers).astype(np.float64)
            counts = np.ones(len(block)) if weights is None else weights[numbers]
            new = float(counts.sum())
            seen += new
            # Welford's update, a block at a time: a sum of squares would lose digits where the
            # mean is large beside the deviation.
            block_mean = np.average(block, axis=0, weights=counts)
            off = block_mean - mean
            mean += off * (new / seen)
            squares += counts @ np.square(block - block_mean)
            squares += np.square(off) * ((seen - new) * new / seen)
        if not np.isfinite(squares).all():
            column = int(np.flatnonzero(~np.isfinite(squares))[0])
            raise ArgumentError(f"column {column} of the rows to train on is not finite everywhere")
        variance = squares / (seen or 1.0)
        if by == "table":
            variance = np.full(width, variance.mean())
        return cls(mean, deviations(mean, variance))

    def apply(self, rows: Array, dtype: DTypeLike) -> Array:
        """Return scaled rows, of a layer's dtype."""
        scaled: Array = np.asarray(rows, dtype)
        scaled = scaled - self.mean.astype(dtype)
        scaled *= (1.0 / self.scale).astype(dtype)
        return scaled


def deviations(mean: Array, variance: Array) -> Array:
    """Return standard deviations to divide by: 1 where numbers never change.

    A column of one number may have a variance of a few roundings of its mean; so has one whose
    changes float32, in which layers compute, cannot tell apart.
    """
    scale: Array = np.sqrt(variance)
    scale[scale <= np.finfo(np.float32).eps * np.abs(mean)] = 1.0
    return scale


class TableObjective:
    """The rows of a table and what a layer should make of them.

    Parameters
    ----------
    layer : layer
        What is trained.
    x : array or sparse matrix of shape (R, I)
        The table, of any real dtype. Sparse, it must give rows as a CSR matrix does.
    y : array
        Class numbers, int64 (R,); which labels are true, bool (R, O); or numbers to come near to,
        (R, O).
    order : BatchOrder
        Which of the rows make up the batches.
    validation : int64 array
        Which of the rows an evaluation looks at; may be empty.
    scaling : Scaling, optional
        Applied to the rows of each batch.
    weights : array of shape (R,), optional
        How much each row counts in a batch's loss and in the figures of an evaluation.
    forward_options, backward_options : callable, optional
        From the `Moment` of a step to further arguments of the layer's ``forward`` and
        ``backward``, such as a LeafFeedForward's ``region_leak`` and ``hardening``.

    Raises
    ------
    ShapeError
        If x and y have not the same number of rows.
    """

    def __init__(
        self,
        layer: _Layer,
        x: Any,
        y: Array,
        order: BatchOrder,
        validation: NDArray[np.int64] | None = None,
        *,
        scaling: Scaling | None = None,
        weights: Array | None = None,
        forward_options: Callable[[Moment], dict[str, Any]] | None = None,
        backward_options: Callable[[Moment], dict[str, Any]] | None = None,
    ) -> None:
        if x.shape[0] != len(y):
            raise ShapeError(f"argument 'y' must have {x.shape[0]} rows, as x, got {len(y)}")
        self.layer = layer
        self._x, self._y = x, y
        self._order = order
        self._validation = np.empty(0, np.int64) if validation is None else validation
        self._scaling = scaling
        self._weights = weights
        self._forward_options = forward_options or (lambda moment: {})
        self._backward_options = backward_options or (lambda moment: {})
        self._loss = _loss_of(y)

    @property
    def params(self) -> Mapping[str, Array]:
        """The layer's."""
        return self.layer.params

    def step(self, moment: Moment) -> StepResult:
        """Return the loss of a step's batch, and its gradients."""
        rows = self._order.rows(moment.step)
        outputs, cache = self.layer.forward(self._rows(rows), **self._forward_options(moment))
        weights = None if self._weights is None else self._weights[rows]
        loss, upstream = self._loss(outputs, self._y[rows], weights)
        _, grads = self.layer.backward(upstream, cache, **self._backward_options(moment))
        return StepResult(loss, grads, len(rows), self.layer.usage(cache))

    def evaluate(self) -> dict[str, float]:
        """Return ``validation_loss`` and ``validation_accuracy`` or ``validation_r2``."""
        if not len(self._validation):
            return {}
        figures = figures_of(
            lambda rows: self.layer(self._rows(rows)),
            self._y,
            self._validation,
            self._weights,
            self._x.shape[1],
        )
        return {f"validation_{name}": value for name, value in figures.items()}

    def _rows(self, rows: NDArray[np.int64]) -> Array:
        """Return rows of the table as the layer takes them."""
        block = dense_rows(self._x, rows)
        if self._scaling is None:
            return block
        return self._scaling.apply(block, next(iter(self.layer.params.values())).dtype)


def figures_of(
    outputs: Callable[[NDArray[np.int64]], Array],
    y: Array,
    rows: NDArray[np.int64],
    weights: Array | None = None,
    width: int = 1,
) -> dict[str, float]:
    """Return how good outputs are: ``loss``, and ``accuracy`` or ``r2``.

    Parameters
    ----------
    outputs : callable
        From row numbers to the outputs for these rows.
    y : array
        Class numbers (R,); which labels are true, bool (R, O); or numbers (R, O).
    rows : int64 array
        Which rows to look at, at least one.
    weights : array of shape (R,), optional
        How much each row counts; not 0 for all rows that are looked at.
    width : int
        How many numbers a row has, for wide tables: fewer of their rows are taken at a time.

    Returns
    -------
    dict of str to float
        The mean loss; the share of rows whose class, or all of whose labels, were told, or the
        share of the variance of y that is explained (1 minus residual over total sum of squares,
        all outputs together; NaN if y never changes).
    """
    loss_of = _loss_of(y)
    loss = right = seen = 0.0
    step = block_rows(width)
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        given, wanted = outputs(block).astype(np.float64), y[block]
        counts = np.ones(len(block)) if weights is None else weights[block]
        loss += loss_of(given, wanted, counts)[0] * float(counts.sum())
        seen += float(counts.sum())
        if loss_of is softmax_cross_entropy:
            right += float(counts @ (given.argmax(axis=1) == wanted))
        elif loss_of is sigmoid_cross_entropy:
            right += float(counts @ ((given > 0) == wanted).all(axis=1))
    loss /= seen
    if loss_of is not mean_squared_error:
        return {"loss": loss, "accuracy": right / seen}
    targets = y[rows].astype(np.float64)
    counts = np.ones(len(rows)) if weights is None else weights[rows]
    off = np.square(targets - np.average(targets, axis=0, weights=counts))
    variance = float(np.average(off.mean(axis=1), weights=counts))
    return {"loss": loss, "r2": 1.0 - loss / variance if variance > 0.0 else float("nan")}


def _loss_of(y: Array) -> Callable[..., tuple[float, Array]]:
    """Return the loss that targets call for."""
    if y.ndim == 1:
        return softmax_cross_entropy
    return sigmoid_cross_entropy if y.dtype == np.bool_ else mean_squared_error
