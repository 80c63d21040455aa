"""Classifiers: the encoder, and a head that classifies whole sequences.

``logits = head(tanh(pooler(pool(hidden))))``, with the pooling of `fffcpu.models.pooling` and two
projections. With several classes the loss is the mean cross-entropy, with classes or with their
probabilities. With a single output the model is a regression, and the loss is the mean squared
error.

Shapes: B sequences of S positions, D width, H width of the head, C classes.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu import kernels
from fffcpu.checks import as_class_labels, as_number_labels, as_probabilities, as_real_array
from fffcpu.config.bert import BertConfig
from fffcpu.config.fastbert import FastBertConfig
from fffcpu.errors import ArgumentError, ShapeError
from fffcpu.layers import Dense, DenseCache, Dropout, DropoutCache
from fffcpu.models.bert import BertEncoderCache
from fffcpu.models.data_parallel import ShardCaches
from fffcpu.models.encoder import EncoderCache
from fffcpu.models.encoder_layer import flattened, module_of
from fffcpu.models.head import BertWithHead, FastBertWithHead, ModelWithHead
from fffcpu.models.model import Config
from fffcpu.models.pooling import pool, pool_backward
from fffcpu.parameters import Parameters, generator

__all__ = [
    "BertForSequenceClassification",
    "ClassifierCache",
    "FastBertForSequenceClassification",
    "SequenceClassification",
    "SequenceClassificationCache",
]

Array = NDArray[Any]


class ClassifierCache(NamedTuple):
    """What `SequenceClassification.forward_head` keeps for `backward_head`."""

    hidden: Array
    """The hidden states (B, S, D)."""
    pooler: DenseCache
    """Cache of the pooler, whose input is the pooled vectors (B, D)."""
    active: Array
    """Output of tanh (B, H)."""
    dropped: DropoutCache
    """Cache of the dropout of that output."""
    head: DenseCache
    """Cache of the head."""
    d_logits: Array
    """The gradient of the logits (B, C)."""


class SequenceClassificationCache(NamedTuple):
    """What a classifier's forward keeps for its backward."""

    encoder: EncoderCache | BertEncoderCache
    """Cache of the encoder."""
    classifier: ClassifierCache
    """Cache of what follows the encoder."""


class SequenceClassification(ModelWithHead[Config]):
    """Base of the classifiers, and regressions: a pooler, tanh, and a projection to the classes."""

    _cache_type: ClassVar[type] = SequenceClassificationCache

    def _set_up(self, config: Config, params: Parameters) -> None:
        super()._set_up(config, params)
        own = functools.partial(module_of, config.modules(), params)
        self.pooler: Dense = own(Dense, "pooler")
        self.head: Dense = own(Dense, "head")
        self._drop = Dropout(config.classifier_dropout)

    @classmethod
    def _own(cls, config: Config) -> Config:
        if config.classes is None:
            raise ArgumentError(
                "argument 'classes' of a classifier's config must be an integer of at least 1, "
                "got None"
            )
        return config

    def __call__(
        self, input_ids: Any, attention_mask: Any = None, token_type_ids: Any = None
    ) -> Array:
        """Run the model.

        Parameters
        ----------
        input_ids : array_like of integers of shape (B, S)
            The tokens, S at most ``config.positions``.
        attention_mask : array_like of shape (B, S), optional
            1 for tokens, 0 for padding; by default all are tokens.
        token_type_ids : array_like of integers of shape (B, S), optional
            Types of the tokens of a BERT; 0 by default.

        Returns
        -------
        array of shape (B, C)
            Logits of the classes; with one output, the predicted numbers.

        Raises
        ------
        ValueError, TypeError
            If an argument is not such an array.
        """
        hidden = self.encoder(*self._inputs(input_ids, attention_mask, token_type_ids))
        return self.logits_of(hidden)

    def logits_of(self, hidden: Array) -> Array:
        """Return the logits (B, C) of hidden states (B, S, D), which `encoder` returned."""
        return self.head(np.tanh(self.pooler(pool(hidden, self.config.pooler))))

    def forward(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        *,
        labels: Any,
        rng: Any = None,
    ) -> tuple[float, SequenceClassificationCache | ShardCaches]:
        """Return the loss, and what `backward` needs.

        Parameters
        ----------
        input_ids, attention_mask, token_type_ids : array_like
            Same as for a call.
        labels : array_like of shape (B,) or (B, C)
            Classes, integers from 0 to C - 1, or the probabilities of all classes. With one output,
            the numbers to predict.
        rng : int or numpy.random.Generator, optional
            Generator or seed of dropout with the rates of the config; None means no dropout.

        Returns
        -------
        loss : float
            Mean cross-entropy, or mean squared error; 0 for an empty batch.
        cache : SequenceClassificationCache, or ShardCaches of several
            The cache that `backward` takes.
        """
        inputs = self._inputs(input_ids, attention_mask, token_type_ids)
        return self._loss_of(inputs, labels, rng)

    def _as_labels(self, labels: Any, shape: tuple[int, ...]) -> Array:
        classes = self.head.config.output_dim
        if classes == 1:
            return as_number_labels(labels, shape[:1])
        labels = as_real_array(labels, "labels")
        one, all_classes = shape[:1], (shape[0], classes)
        if labels.shape not in (one, all_classes):
            raise ShapeError(
                f"argument 'labels' must have shape {one}, or {all_classes} for probabilities, "
                f"got shape {labels.shape}"
            )
        if labels.ndim == 2:
            return as_probabilities(labels, all_classes)
        return as_class_labels(labels, one, classes, may_miss=False)

    @staticmethod
    def _count(cache: SequenceClassificationCache) -> int:
        return len(cache.classifier.d_logits)

    def _forward(self, *inputs_labels_rng: Any) -> tuple[float, SequenceClassificationCache]:
        *inputs, labels, rng = inputs_labels_rng
        rng = None if rng is None else generator(rng)
        hidden, encoder = self.encoder.forward(*inputs, rng)
        loss, classifier = self.forward_head(hidden, labels, rng)
        return loss, SequenceClassificationCache(encoder, classifier)

    def _backward(
        self, cache: SequenceClassificationCache, row_sparse: bool, straight_through: bool
    ) -> dict[str, Any]:
        d_hidden, own = self.backward_head(cache.classifier)
        grads = self.encoder.backward(
            d_hidden, cache.encoder, row_sparse=row_sparse, straight_through=straight_through
        )
        grads |= own
        return {name: grads[name] for name in self.params}

    def forward_head(
        self, hidden: Array, labels: Array, rng: np.random.Generator | None = None
    ) -> tuple[float, ClassifierCache]:
        """Return the loss of hidden states, and what `backward_head` needs.

        Parameters
        ----------
        hidden : array of shape (B, S, D)
            Hidden states, which ``encoder.forward`` returned.
        labels : array of shape (B,) or (B, C)
            Classes, probabilities or numbers, as of `forward`.
        rng : numpy.random.Generator, optional
            Generator of the dropout; None means no dropout.
        """
        projected, pooler = self.pooler.forward(pool(hidden, self.config.pooler))
        active = np.tanh(projected)
        kept, dropped = self._drop.forward(active, rng)
        logits, head = self.head.forward(kept)
        loss, d_logits = self._loss(logits, labels)
        return loss, ClassifierCache(hidden, pooler, active, dropped, head, d_logits)

    def backward_head(self, cache: ClassifierCache) -> tuple[Array, dict[str, Any]]:
        """Return the gradients of hidden states (B, S, D), and of pooler and head, by name."""
        d_kept, head = self.head.backward(cache.d_logits, cache.head)
        d_active = self._drop.backward(d_kept, cache.dropped)
        d_pooled, pooler = self.pooler.backward(d_active * (1 - cache.active**2), cache.pooler)
        d_hidden = pool_backward(d_pooled, cache.pooler.x, cache.hidden, self.config.pooler)
        return d_hidden, flattened({"pooler": pooler, "head": head})

    def _loss(self, logits: Array, labels: Array) -> tuple[float, Array]:
        """Return the loss and the gradient of the logits (B, C), maybe in the logits' memory."""
        batch, classes = logits.shape
        if labels.ndim == 2:
            return _soft_cross_entropy(logits, labels)
        if classes > 1:
            return kernels.selection().encoder.cross_entropy(logits, labels), logits
        differences = logits[:, 0] - labels
        loss = float(np.square(differences).mean()) if batch else 0.0
        d_logits = (2 / max(batch, 1)) * differences
        return loss, d_logits.astype(self._dtype)[:, np.newaxis]

    def _initialise(self, std: float, rng: np.random.Generator) -> None:
        for module in (self.encoder, self.pooler, self.head):
            module._initialise(std, rng)


class FastBertForSequenceClassification(FastBertWithHead, SequenceClassification[FastBertConfig]):
    """FastBERT with a head for classification, or for regression with one class.

    Parameters
    ----------
    config : FastBertConfig
        Config of the model, with ``classes``.
    rng : None, int or numpy.random.Generator
        Generator or seed of the initial values; see `FastBertEncoder`. The head is initialized in
        the same way.

    Attributes
    ----------
    encoder : FastBertEncoder
        The encoder, with the same arrays.

    Examples
    --------
    A classifier that starts from a masked language model:

    >>> import dataclasses
    >>> from fffcpu.models import *
    >>> config = FastBertConfig(100, 16, 2, 2, feedforward_size=1, depth=3, positions=8)
    >>> pretrained = FastBertForMaskedLM(config, rng=0)
    >>> classifier = FastBertForSequenceClassification(
    ...     dataclasses.replace(config, classes=3), rng=0
    ... )
    >>> for name, array in pretrained.params.items():
    ...     classifier.params[name][...] = array
    >>> classifier([[5, 7, 9]]).shape
    (1, 3)
    """


class BertForSequenceClassification(BertWithHead, SequenceClassification[BertConfig]):
    """BERT with a head for classification, or for regression with one class.

    With the pooler ``"zero_index"`` it is "BertForSequenceClassification" of Hugging Face.

    Parameters
    ----------
    config : BertConfig
        Config of the model, with ``classes``.
    rng : None, int or numpy.random.Generator
        Generator or seed of the initial values; see `BertEncoder`. The head is initialized in the
        same way.

    Attributes
    ----------
    encoder : BertEncoder
        The encoder, with the same arrays.

    Examples
    --------
    >>> from fffcpu.models import BertConfig, BertForSequenceClassification
    >>> config = BertConfig(100, 16, 2, 2, feedforward_size=32, positions=8, classes=3)
    >>> BertForSequenceClassification(config, rng=0)([[5, 7, 9]]).shape
    (1, 3)
    """

    @classmethod
    def _own(cls, config: BertConfig) -> BertConfig:
        return dataclasses.replace(super()._own(config), head=None)


def _soft_cross_entropy(logits: Array, probabilities: Array) -> tuple[float, Array]:
    """Return the mean cross-entropy of logits (B, C) with probabilities, and their gradient."""
    from scipy.special import log_softmax

    if not len(logits):
        return 0.0, logits
    logarithms = log_softmax(logits.astype(np.float64), axis=1)
    loss = -float((probabilities * logarithms).sum(axis=1).mean())
    d_logits = (np.exp(logarithms) - probabilities) / len(logits)
    return loss, d_logits.astype(logits.dtype)
