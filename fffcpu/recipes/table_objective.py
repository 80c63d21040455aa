"""The `fffcpu.training.trainer.Objective` of a table: one layer that is trained on its rows.

The layer is any object with ``params``, ``forward`` and ``backward``. The rows are in memory, in a
memory-mapped file, from which a batch reads its own rows, or in a sparse matrix; then only the
batch becomes dense.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fffcpu.errors import ShapeError
from fffcpu.recipes.scaling import Scaling, block_rows, dense_rows
from fffcpu.recipes.shards import in_proportion
from fffcpu.recipes.tally import Numbers, Tally, validation_figures
from fffcpu.training.batches import BatchOrder
from fffcpu.training.losses import (
    mean_squared_error,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
)
from fffcpu.training.trainer import Moment, StepResult

__all__ = ["TableObjective", "tally_of"]

Array = NDArray[Any]


class _Layer(Protocol):
    """The interface of a layer for `TableObjective`."""

    @property
    def params(self) -> Mapping[str, Array]: ...

    def __call__(self, x: Any) -> Array: ...

    def forward(self, x: Any, **options: Any) -> tuple[Array, Any]: ...

    def backward(self, dy: Any, cache: Any, **options: Any) -> tuple[Array, dict[str, Any]]: ...

    def usage(self, cache: Any) -> dict[str, Array]: ...


class TableObjective:
    """The rows of a table and their targets for a layer.

    Parameters
    ----------
    layer : layer
        The layer to train.
    x : array, sparse matrix or EncodedRows of shape (R, I)
        The table, of any real dtype. A sparse matrix must support row indexing, like CSR.
    y : array
        Class numbers, int64 (R,); truth of each label, bool (R, O); or target numbers, (R, O).
    order : BatchOrder
        The rows of each batch. Rows with weights have one shard.
    validation : int64 array
        Numbers of the rows for evaluations; may be empty.
    scaling : Scaling, optional
        Scaling of the rows of each batch.
    weights : array of shape (R,), optional
        Weight of each row in a batch's loss and in the figures of an evaluation.
    forward_options, backward_options : callable, optional
        Map the `Moment` of a step to further arguments of the layer's ``forward`` and
        ``backward``, such as a LeafFeedForward's ``region_leak`` and ``hardening``.

    Raises
    ------
    ShapeError
        If x and y have different numbers of rows.
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
            raise ShapeError(f"argument 'y' must have {x.shape[0]} rows, like x, got {len(y)}")
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
        """The layer's parameters."""
        return self.layer.params

    def step(self, moment: Moment) -> StepResult:
        """Return the loss of a step's batch, and its gradients.

        Of a shard's batch they are what the shard adds to those of the batch of all shards.
        """
        rows = self._order.rows(moment.step)
        outputs, cache = self.layer.forward(self._rows(rows), **self._forward_options(moment))
        weights = None if self._weights is None else self._weights[rows]
        loss, upstream = self._loss(outputs, self._y[rows], weights)
        _, grads = self.layer.backward(upstream, cache, **self._backward_options(moment))
        result = StepResult(loss, grads, len(rows), self.layer.usage(cache))
        return in_proportion(result, self._order.batch_rows(moment.step))

    def evaluate(self) -> dict[str, float]:
        """Return ``validation_loss`` and ``validation_accuracy`` or ``validation_r2``."""
        return validation_figures([self.tally()])

    def tally(self) -> Tally:
        """Return what an evaluation counts."""
        return tally_of(
            lambda rows: self.layer(self._rows(rows)),
            self._y,
            self._validation,
            self._weights,
            self._x.shape[1],
        )

    def _rows(self, rows: NDArray[np.int64]) -> Array:
        """Return rows of the table, scaled for the layer."""
        block = dense_rows(self._x, rows)
        if self._scaling is None:
            return block
        return self._scaling.apply(block, next(iter(self.layer.params.values())).dtype)


def tally_of(
    outputs: Callable[[NDArray[np.int64]], Array],
    y: Array,
    rows: NDArray[np.int64],
    weights: Array | None = None,
    width: int = 1,
) -> Tally:
    """Evaluate outputs.

    Parameters
    ----------
    outputs : callable
        Maps row numbers to the outputs for these rows.
    y : array
        Class numbers (R,); truth of each label, bool (R, O); or numbers (R, O).
    rows : int64 array
        Numbers of the rows to evaluate on.
    weights : array of shape (R,), optional
        Weight of each row; above 0 for at least one of the rows.
    width : int
        Numbers per row. Wide tables are evaluated in smaller blocks.
    """
    loss_of = _loss_of(y)
    if not len(rows):
        return Tally(0.0, 0.0)
    loss = right = seen = 0.0
    squares: Any = 0.0
    step = block_rows(width)
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        given, wanted = outputs(block).astype(np.float64), y[block]
        counts = np.ones(len(block)) if weights is None else weights[block]
        loss += loss_of(given, wanted, counts)[0] * float(counts.sum())
        seen += float(counts.sum())
        if loss_of is mean_squared_error:
            squares = squares + counts @ np.square(given - wanted)
        elif loss_of is softmax_cross_entropy:
            right += float(counts @ (given.argmax(axis=1) == wanted))
        elif loss_of is sigmoid_cross_entropy:
            right += float(counts @ ((given > 0) == wanted).all(axis=1))
    if loss_of is not mean_squared_error:
        return Tally(seen, loss, right)
    targets = y[rows].astype(np.float64)
    counts = np.ones(len(rows)) if weights is None else weights[rows]
    mean = np.average(targets, axis=0, weights=counts)
    variance = np.average(np.square(targets - mean), axis=0, weights=counts)
    return Tally(seen, loss, 0.0, Numbers(squares, mean, variance))


def _loss_of(y: Array) -> Callable[..., tuple[float, Array]]:
    """Return the loss for these targets."""
    if y.ndim == 1:
        return softmax_cross_entropy
    return sigmoid_cross_entropy if y.dtype == np.bool_ else mean_squared_error
