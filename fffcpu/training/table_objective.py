"""A layer trained on the rows of a table: what `fffcpu.training.Trainer` asks for, for one layer.

The layer is whatever has ``params``, ``forward`` and ``backward``; rows may lie in memory or in a
memory-mapped file, of which a batch reads its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fffcpu.errors import ArgumentError, ShapeError
from fffcpu.training.batches import BatchOrder
from fffcpu.training.losses import mean_squared_error, softmax_cross_entropy
from fffcpu.training.trainer import Moment, StepResult

__all__ = ["Scaling", "TableObjective", "deviations", "figures_of"]

Array = NDArray[Any]

EVALUATED_ROWS = 8192
"""Rows that an evaluation takes at a time."""


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
    """Of each column, float64 (I,)."""
    scale: Array
    """Of each column, float64 (I,), above 0."""

    @classmethod
    def of(cls, x: Array, rows: NDArray[np.int64], by: str) -> Scaling:
        """Find the scaling of some rows of a table.

        Parameters
        ----------
        x : array of shape (R, I)
            The table; blocks of it are read in turn.
        rows : int64 array
            Which rows count.
        by : {"columns", "table", "none"}
            Each column less its mean, over its own standard deviation, or over that of the whole
            table, as suits pixels; or x as it is.

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
        seen = 0
        for start in range(0, len(rows), EVALUATED_ROWS):
            block = x[rows[start : start + EVALUATED_ROWS]].astype(np.float64)
            seen += len(block)
            # Welford's update, a block at a time: a sum of squares would lose digits where the
            # mean is large beside the deviation.
            block_mean = block.mean(axis=0)
            off = block_mean - mean
            mean += off * (len(block) / seen)
            squares += np.square(block - block_mean).sum(axis=0)
            squares += np.square(off) * ((seen - len(block)) * len(block) / seen)
        if not np.isfinite(squares).all():
            column = int(np.flatnonzero(~np.isfinite(squares))[0])
            raise ArgumentError(f"column {column} of the rows to train on is not finite everywhere")
        variance = squares / max(1, seen)
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
    x : array of shape (R, I)
        The table, of any real dtype.
    y : array
        Class numbers, int64 (R,), or numbers to come near to, (R, O).
    order : BatchOrder
        Which of the rows make up the batches.
    validation : int64 array
        Which of the rows an evaluation looks at; may be empty.
    scaling : Scaling, optional
        Applied to the rows of each batch.
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
        x: Array,
        y: Array,
        order: BatchOrder,
        validation: NDArray[np.int64] | None = None,
        *,
        scaling: Scaling | None = None,
        forward_options: Callable[[Moment], dict[str, Any]] | None = None,
        backward_options: Callable[[Moment], dict[str, Any]] | None = None,
    ) -> None:
        if len(x) != len(y):
            raise ShapeError(f"argument 'y' must have {len(x)} rows, as x, got {len(y)}")
        self.layer = layer
        self._x, self._y = x, y
        self._order = order
        self._validation = np.empty(0, np.int64) if validation is None else validation
        self._scaling = scaling
        self._forward_options = forward_options or (lambda moment: {})
        self._backward_options = backward_options or (lambda moment: {})
        self._loss = softmax_cross_entropy if y.ndim == 1 else mean_squared_error

    @property
    def params(self) -> Mapping[str, Array]:
        """The layer's."""
        return self.layer.params

    def step(self, moment: Moment) -> StepResult:
        """Return the loss of a step's batch, and its gradients."""
        rows = self._order.rows(moment.step)
        outputs, cache = self.layer.forward(self._rows(rows), **self._forward_options(moment))
        loss, upstream = self._loss(outputs, self._y[rows])
        _, grads = self.layer.backward(upstream, cache, **self._backward_options(moment))
        return StepResult(loss, grads, len(rows), self.layer.usage(cache))

    def evaluate(self) -> dict[str, float]:
        """Return ``validation_loss`` and ``validation_accuracy`` or ``validation_r2``."""
        if not len(self._validation):
            return {}
        figures = figures_of(lambda rows: self.layer(self._rows(rows)), self._y, self._validation)
        return {f"validation_{name}": value for name, value in figures.items()}

    def _rows(self, rows: NDArray[np.int64]) -> Array:
        """Return rows of the table as the layer takes them."""
        block = self._x[rows]
        if self._scaling is None:
            return block
        return self._scaling.apply(block, next(iter(self.layer.params.values())).dtype)


def figures_of(
    outputs: Callable[[NDArray[np.int64]], Array], y: Array, rows: NDArray[np.int64]
) -> dict[str, float]:
    """Return how good outputs are: ``loss``, and ``accuracy`` or ``r2``.

    Parameters
    ----------
    outputs : callable
        From row numbers to the outputs for these rows.
    y : array
        Class numbers (R,), or numbers (R, O).
    rows : int64 array
        Which rows to look at, at least one.

    Returns
    -------
    dict of str to float
        The mean loss; the share of rows whose class was told, or the share of the variance of y
        that is explained (1 minus residual over total sum of squares, all outputs together; NaN if
        y never changes).
    """
    classes = y.ndim == 1
    loss = right = residual = 0.0
    for start in range(0, len(rows), EVALUATED_ROWS):
        block = rows[start : start + EVALUATED_ROWS]
        given, wanted = outputs(block), y[block]
        if classes:
            loss += softmax_cross_entropy(given, wanted)[0] * len(block)
            right += float((given.argmax(axis=1) == wanted).sum())
        else:
            residual += float(np.square(given.astype(np.float64) - wanted).sum())
    if classes:
        return {"loss": loss / len(rows), "accuracy": right / len(rows)}
    targets = y[rows].astype(np.float64)
    total = float(np.square(targets - targets.mean(axis=0)).sum())
    r2 = 1.0 - residual / total if total > 0.0 else float("nan")
    return {"loss": residual / targets.size, "r2": r2}
