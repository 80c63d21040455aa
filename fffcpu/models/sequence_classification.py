"""FastBertForSequenceClassification: the encoder, and a head that judges whole sequences.

``logits = head(tanh(pooler(pool(hidden))))``, with the pooling of `fffcpu.models.pooling` and two
projections. With several classes the loss is the mean cross-entropy; with a single output it is a
regression, and the loss the mean squared error.

Shapes: B sequences of S positions, D width, H width of the head, C classes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu import kernels
from fffcpu.config.fastbert import FastBertConfig
from fffcpu.errors import ArgumentError, ArgumentTypeError, describe
from fffcpu.layers import Dense, Dropout, DropoutCache, ProjectionCache
from fffcpu.models.data_parallel import (
    PartCaches,
    backward_in_parts,
    forward_in_parts,
    share_out,
)
from fffcpu.models.encoder import EncoderCache, FastBertEncoder
from fffcpu.models.encoder_layer import flattened
from fffcpu.models.model import Model
from fffcpu.models.pooling import pool, pool_backward
from fffcpu.models.targets import class_labels, number_labels
from fffcpu.parameters import Parameters, generator

__all__ = ["FastBertForSequenceClassification", "SequenceClassificationCache"]

Array = NDArray[Any]


class SequenceClassificationCache(NamedTuple):
    """What a classifier's forward keeps for its backward."""

    encoder: EncoderCache
    """What the encoder keeps."""
    hidden: Array
    """The hidden states (B, S, D)."""
    pooler: ProjectionCache
    """The pooled vectors (B, D)."""
    active: Array
    """What tanh gave (B, H)."""
    dropped: DropoutCache
    """Dropout of that."""
    head: ProjectionCache
    """What the head took."""
    d_logits: Array
    """The gradient of the logits (B, C)."""


class FastBertForSequenceClassification(Model):
    """FastBERT with a head for classification, or with one class for regression.

    Parameters
    ----------
    config : FastBertConfig
        What the model is, with ``classes``.
    rng : None, int or numpy.random.Generator
        For the initial values; see `FastBertEncoder`. The head's are of the same kind.

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

    encoder: FastBertEncoder

    def _set_up(self, config: FastBertConfig, params: Parameters) -> None:
        super()._set_up(config, params)
        parts = config.parts()
        own = FastBertEncoder._own(config)
        self.encoder = FastBertEncoder._sharing(
            own, Parameters.sharing({name: params[name] for name in own.shapes()})
        )
        self.pooler, self.head = (
            Dense._sharing(parts[name], params.part(name, parts[name].shapes()))
            for name in ("pooler", "head")
        )
        self._drop = Dropout(config.classifier_dropout)

    @classmethod
    def _own(cls, config: FastBertConfig) -> FastBertConfig:
        if config.classes is None:
            raise ArgumentError(
                "argument 'classes' of a classifier's config must be an integer of at least 1, "
                "got None"
            )
        return config

    def __call__(self, input_ids: Any, attention_mask: Any = None) -> Array:
        """Run the model.

        Parameters
        ----------
        input_ids : array_like of integers of shape (B, S)
            The tokens, S at most ``config.positions``.
        attention_mask : array_like of shape (B, S), optional
            1 for tokens, 0 for padding; without it, all are tokens.

        Returns
        -------
        array of shape (B, C)
            Logits of the classes, or with one output the predicted number.

        Raises
        ------
        ValueError, TypeError
            If an argument is not such an array.
        """
        pooled = pool(self.encoder(input_ids, attention_mask), self.config.pooler)
        return self.head(np.tanh(self.pooler(pooled)))

    def forward(
        self, input_ids: Any, attention_mask: Any = None, *, labels: Any, rng: Any = None
    ) -> tuple[float, SequenceClassificationCache | PartCaches]:
        """Return the loss, and what `backward` needs.

        Parameters
        ----------
        input_ids, attention_mask : array_like
            As for a call.
        labels : array_like of shape (B,)
            Classes, integers from 0 to C - 1; with one output, the numbers to predict.
        rng : int or numpy.random.Generator, optional
            For dropout with the rates of the config; None drops nothing.

        Returns
        -------
        loss : float
            Mean cross-entropy, or mean squared error; 0 for an empty batch.
        cache : SequenceClassificationCache, or PartCaches of several
            For `backward`.
        """
        arrays = (input_ids, attention_mask, labels)
        slices = share_out(self.config, *arrays, gradients=self.params.count)
        if slices:
            return forward_in_parts(
                self._forward, slices, arrays, rng, lambda cache: len(cache.d_logits)
            )
        return self._forward(*arrays, rng)

    def _forward(
        self, input_ids: Any, attention_mask: Any, labels: Any, rng: Any
    ) -> tuple[float, SequenceClassificationCache]:
        """Run sequences that stay together."""
        rng = None if rng is None else generator(rng)
        hidden, encoder = self.encoder.forward(input_ids, attention_mask, rng)
        projected, pooler = self.pooler.forward(pool(hidden, self.config.pooler))
        active = np.tanh(projected)
        kept, dropped = self._drop.forward(active, rng)
        logits, head = self.head.forward(kept)
        loss, d_logits = self._loss(logits, labels)
        return loss, SequenceClassificationCache(
            encoder, hidden, pooler, active, dropped, head, d_logits
        )

    def backward(
        self, cache: SequenceClassificationCache | PartCaches, *, row_sparse: bool = False
    ) -> dict[str, Any]:
        """Return the gradients of the loss, with the routes held constant.

        Parameters
        ----------
        cache : SequenceClassificationCache or PartCaches
            From `forward`.
        row_sparse : bool
            Whether gradients of FastFeedForward layers hold only the rows of visited nodes, as
            `fffcpu.parameters.RowGradient`.

        Returns
        -------
        dict of str to array, or to RowGradient
            By the names of ``params``, in their order and of their shapes.
        """
        if isinstance(cache, PartCaches):
            return backward_in_parts(self._backward, cache, row_sparse)
        return self._backward(cache, row_sparse)

    def _backward(self, cache: SequenceClassificationCache, row_sparse: bool) -> dict[str, Any]:
        """Return the gradients of sequences that stayed together."""
        if not isinstance(cache, SequenceClassificationCache):
            raise ArgumentTypeError(
                "argument 'cache' must be the SequenceClassificationCache that forward of this "
                f"model returned, got {describe(cache)}"
            )
        d_kept, head = self.head.backward(cache.d_logits, cache.head)
        d_active = self._drop.backward(d_kept, cache.dropped)
        d_pooled, pooler = self.pooler.backward(d_active * (1 - cache.active**2), cache.pooler)
        d_hidden = pool_backward(d_pooled, cache.pooler.x, cache.hidden, self.config.pooler)
        grads = self.encoder.backward(d_hidden, cache.encoder, row_sparse=row_sparse)
        return grads | flattened({"pooler": pooler, "head": head})

    def _loss(self, logits: Array, labels: Any) -> tuple[float, Array]:
        """Return the loss and the gradient of the logits (B, C), which may be their memory."""
        batch, classes = logits.shape
        if classes > 1:
            wanted = class_labels(labels, (batch,), classes, may_miss=False)
            return kernels.selection().encoder.cross_entropy(logits, wanted), logits
        differences = logits[:, 0] - number_labels(labels, (batch,))
        loss = float(np.square(differences).mean()) if batch else 0.0
        d_logits = (2 / max(batch, 1)) * differences
        return loss, d_logits.astype(self._dtype)[:, np.newaxis]

    def _initialise(self, std: float, rng: np.random.Generator) -> None:
        for part in (self.encoder, self.pooler, self.head):
            part._initialise(std, rng)
