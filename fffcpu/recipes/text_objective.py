"""The `Objective` of fine-tuning: a classifier of texts.

A batch of a step is padded to its longest text. Poolers other than ``zero_index`` pool over this
padding too, as in the published recipe. Evaluations take texts of about one length together, and
for such poolers of exactly one length: their figures do not depend on padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fffcpu.errors import ShapeError
from fffcpu.text.padding import PADDING, compute_by_length, padded
from fffcpu.training.batches import BatchOrder
from fffcpu.training.losses import softmax_cross_entropy
from fffcpu.training.trainer import Moment, StepResult

__all__ = ["TextObjective", "text_figures"]

Array = NDArray[Any]


class _Model(Protocol):
    """The interface of a model for `TextObjective`."""

    @property
    def config(self) -> Any: ...

    @property
    def params(self) -> Mapping[str, Array]: ...

    def __call__(self, input_ids: Any, attention_mask: Any) -> Array: ...

    def forward(
        self, input_ids: Any, attention_mask: Any, *, labels: Any, rng: Any
    ) -> tuple[float, Any]: ...

    def backward(
        self, cache: Any, *, row_sparse: bool, straight_through: bool
    ) -> dict[str, Any]: ...


class TextObjective:
    """Texts as tokens, and their labels for a model.

    Parameters
    ----------
    model : FastBertForSequenceClassification or BertForSequenceClassification
        The model to train.
    tokens : sequence of sequences of int
        The tokens of each text, markers included.
    labels : array of shape (R,)
        Class numbers, int64, or float64 numbers of a regression.
    order : BatchOrder
        The texts of each batch.
    validation : int64 array
        Numbers of the texts for evaluations; may be empty.
    padding_id : int
        The token to pad with.
    row_sparse : bool
        Whether gradients hold only the nodes that a batch visited.
    straight_through : bool
        Whether routes are trained as well; see `fffcpu.FastFeedForward.backward`.

    Raises
    ------
    ShapeError
        If the numbers of texts and labels differ.
    """

    def __init__(
        self,
        model: _Model,
        tokens: Sequence[Sequence[int]],
        labels: Array,
        order: BatchOrder,
        validation: NDArray[np.int64],
        *,
        padding_id: int,
        row_sparse: bool = False,
        straight_through: bool = False,
    ) -> None:
        if len(tokens) != len(labels):
            raise ShapeError(f"argument 'labels' must have {len(tokens)} rows, got {len(labels)}")
        self.model = model
        self._tokens, self._labels = tokens, labels
        self._order = order
        self._padding, self._row_sparse = padding_id, row_sparse
        self._straight_through = straight_through
        self._validation = validation

    @property
    def params(self) -> Mapping[str, Array]:
        """The model's parameters."""
        return self.model.params

    def step(self, moment: Moment) -> StepResult:
        """Return the loss of a step's texts, with dropout, and its gradients."""
        rows = self._order.rows(moment.step)
        ids, mask = self._batch(rows)
        loss, cache = self.model.forward(ids, mask, labels=self._labels[rows], rng=moment.rng)
        grads = self.model.backward(
            cache, row_sparse=self._row_sparse, straight_through=self._straight_through
        )
        return StepResult(loss, grads, len(rows), {})

    def evaluate(self) -> dict[str, float]:
        """Return ``validation_loss`` and, for a classifier, ``validation_accuracy``."""
        if not len(self._validation):
            return {}
        tokens = [self._tokens[row] for row in self._validation]
        figures = text_figures(self.model, tokens, self._labels[self._validation], self._padding)
        return {f"validation_{name}": value for name, value in figures.items()}

    def _batch(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        return padded([self._tokens[row] for row in rows], self._padding)


def text_figures(
    model: _Model,
    tokens: Sequence[Sequence[int]],
    labels: Array,
    padding_id: int,
) -> dict[str, float]:
    """Evaluate a model on texts: ``loss`` and, for a classifier, ``accuracy``.

    Parameters
    ----------
    model, tokens, labels, padding_id
        As for `TextObjective`; at least one text.
    """
    padding = 0 if model.config.pools_padding else PADDING
    outputs = np.stack(compute_by_length(tokens, padding_id, model, padding))
    if labels.dtype.kind == "f":
        return {"loss": float(np.square(outputs[:, 0] - labels).mean())}
    right = float((outputs.argmax(axis=1) == labels).mean())
    return {"loss": softmax_cross_entropy(outputs, labels)[0], "accuracy": right}
