"""A classifier of texts: what a `Trainer` asks for, for fine-tuning.

A batch is padded to its longest text. Evaluations take texts of about one length together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fffcpu.errors import ShapeError
from fffcpu.text.padding import padded
from fffcpu.training.batches import BatchOrder
from fffcpu.training.losses import softmax_cross_entropy
from fffcpu.training.trainer import Moment, StepResult

__all__ = ["TextObjective", "text_figures"]

Array = NDArray[Any]

TOGETHER = 64
"""Texts that an evaluation takes at a time."""


class _Model(Protocol):
    """What a `TextObjective` asks of a model."""

    @property
    def params(self) -> Mapping[str, Array]: ...

    def __call__(self, input_ids: Any, attention_mask: Any) -> Array: ...

    def forward(
        self, input_ids: Any, attention_mask: Any, *, labels: Any, rng: Any
    ) -> tuple[float, Any]: ...

    def backward(self, cache: Any, *, row_sparse: bool) -> dict[str, Any]: ...


class TextObjective:
    """Texts as tokens, and what a model is to say of them.

    Parameters
    ----------
    model : FastBertForSequenceClassification
        What is trained.
    tokens : sequence of sequences of int
        The tokens of each text, markers included.
    labels : array of shape (R,)
        Numbers of classes, int64, or float64 numbers of a regression.
    order : BatchOrder
        Which texts make up the batches.
    validation : int64 array
        Which texts an evaluation looks at; may be empty.
    padding_id : int
        The token that fills up sequences.
    row_sparse : bool
        Whether gradients hold only the nodes that a batch visited.

    Raises
    ------
    ShapeError
        If there is not a label for each text.
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
    ) -> None:
        if len(tokens) != len(labels):
            raise ShapeError(f"argument 'labels' must have {len(tokens)} rows, got {len(labels)}")
        self.model = model
        self._tokens, self._labels = tokens, labels
        self._order = order
        self._padding, self._row_sparse = padding_id, row_sparse
        self._validation = validation

    @property
    def params(self) -> Mapping[str, Array]:
        """The model's."""
        return self.model.params

    def step(self, moment: Moment) -> StepResult:
        """Return the loss of a step's texts, with dropout, and its gradients."""
        rows = self._order.rows(moment.step)
        ids, mask = self._batch(rows)
        loss, cache = self.model.forward(ids, mask, labels=self._labels[rows], rng=moment.rng)
        grads = self.model.backward(cache, row_sparse=self._row_sparse)
        return StepResult(loss, grads, len(rows), {})

    def evaluate(self) -> dict[str, float]:
        """Return ``validation_loss``, and of a classifier ``validation_accuracy``."""
        if not len(self._validation):
            return {}
        tokens = [self._tokens[row] for row in self._validation]
        figures = text_figures(self.model, tokens, self._labels[self._validation], self._padding)
        return {f"validation_{name}": value for name, value in figures.items()}

    def _batch(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        return padded([self._tokens[row] for row in rows], self._padding)


def text_figures(
    model: Callable[[Any, Any], Array],
    tokens: Sequence[Sequence[int]],
    labels: Array,
    padding_id: int,
) -> dict[str, float]:
    """Return how good a model is on texts: ``loss``, and of a classifier ``accuracy``.

    Parameters
    ----------
    model : callable
        From tokens and mask (B, S) to logits (B, C), or numbers (B, 1).
    tokens, labels, padding_id
        As of a `TextObjective`; at least one text.
    """
    order = np.argsort([len(row) for row in tokens], kind="stable")
    outputs = np.concatenate(
        [
            model(*padded([tokens[row] for row in order[start : start + TOGETHER]], padding_id))
            for start in range(0, len(order), TOGETHER)
        ]
    )
    wanted = labels[order]
    if wanted.dtype.kind == "f":
        return {"loss": float(np.square(outputs[:, 0] - wanted).mean())}
    right = float((outputs.argmax(axis=1) == wanted).mean())
    return {"loss": softmax_cross_entropy(outputs, wanted)[0], "accuracy": right}
