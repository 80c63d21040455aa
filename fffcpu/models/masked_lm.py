"""FastBertForMaskedLM: the encoder, and a decoder that predicts the token at a position.

``logits = hidden words^T``, with the words of the embedding ("tied", arXiv 1608.05859) and no bias.
The loss is the mean cross-entropy over the labelled positions. The decoder is computed only for
those positions.

Shapes: B sequences of S positions, M labelled ones in all, D width, V tokens.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu import kernels
from fffcpu.checks import IGNORED_LABEL, as_class_labels
from fffcpu.config.fastbert import FastBertConfig
from fffcpu.errors import ShapeError, describe
from fffcpu.models.data_parallel import ShardCaches
from fffcpu.models.encoder import EncoderCache, FastBertEncoder
from fffcpu.models.head import ModelWithHead
from fffcpu.parameters import Parameters

__all__ = ["FastBertForMaskedLM", "MaskedLMCache"]

Array = NDArray[Any]


class MaskedLMCache(NamedTuple):
    """What `FastBertForMaskedLM.forward` keeps for `FastBertForMaskedLM.backward`."""

    encoder: EncoderCache
    """Cache of the encoder."""
    positions: NDArray[np.intp]
    """Indices of the labelled positions among the B S positions (M,)."""
    hidden: Array
    """Hidden states of the labelled positions (M, D)."""
    d_logits: Array
    """Gradient of their logits (M, V), in the memory of the logits."""


class FastBertForMaskedLM(ModelWithHead):
    """FastBERT with a masked language model's head.

    Parameters
    ----------
    config : FastBertConfig
        Config of the model; ``classes`` is ignored.
    rng : None, int or numpy.random.Generator
        Generator or seed of the initial values; see `FastBertEncoder`.

    Attributes
    ----------
    encoder : FastBertEncoder
        The encoder, with the same arrays.

    Notes
    -----
    A training step keeps ``M V`` numbers in addition to those of the encoder, and allocates ``V D``
    for the gradient of the words. A call computes logits for all positions, ``B S V`` numbers. If
    threads share a batch, each allocates its own gradients; see `fffcpu.models.data_parallel`.

    Examples
    --------
    >>> from fffcpu.models import FastBertConfig, FastBertForMaskedLM
    >>> config = FastBertConfig(100, 16, 2, 2, feedforward_size=1, depth=3, positions=8)
    >>> model = FastBertForMaskedLM(config, rng=0)
    >>> model([[5, 7, 9]]).shape
    (1, 3, 100)
    >>> loss, cache = model.forward([[5, 3, 9]], labels=[[-100, 7, -100]])
    >>> sorted(model.backward(cache)) == sorted(model.params)
    True
    """

    _cache_type = MaskedLMCache

    def _set_up(self, config: FastBertConfig, params: Parameters) -> None:
        super()._set_up(config, params)
        self.encoder = FastBertEncoder._sharing(config, params)

    @classmethod
    def _own(cls, config: FastBertConfig) -> FastBertConfig:
        return dataclasses.replace(config, classes=None)

    def __call__(self, input_ids: Any, attention_mask: Any = None) -> Array:
        """Run the model.

        Parameters
        ----------
        input_ids : array_like of integers of shape (B, S)
            The tokens, S at most ``config.positions``.
        attention_mask : array_like of shape (B, S), optional
            1 for tokens, 0 for padding; by default all are tokens.

        Returns
        -------
        array of shape (B, S, V)
            Logits of the tokens at all positions.

        Raises
        ------
        ValueError, TypeError
            If an argument is not such an array.
        """
        hidden = self.encoder(input_ids, attention_mask)
        logits: Array = hidden.reshape(-1, self.config.width) @ self._words.T
        return logits.reshape(*hidden.shape[:2], self.config.vocabulary)

    def logits_at(self, input_ids: Any, wanted: Any, attention_mask: Any = None) -> Array:
        """Run the model, with the decoder at some positions only.

        Parameters
        ----------
        input_ids : array_like of integers of shape (B, S)
            The tokens, same as for a call.
        wanted : array_like of bool of shape (B, S)
            Mask of the wanted positions, M in all.
        attention_mask : array_like of shape (B, S), optional
            Same as for a call.

        Returns
        -------
        array of shape (M, V)
            Logits of these positions, in the order of the sequences.

        Raises
        ------
        ValueError, TypeError
            If an argument is not such an array.
        """
        hidden = self.encoder(input_ids, attention_mask)
        chosen = np.asarray(wanted)
        if chosen.dtype != bool or chosen.shape != hidden.shape[:2]:
            raise ShapeError(
                f"argument 'wanted' must be of bool and of shape {hidden.shape[:2]}, "
                f"got {describe(chosen)}"
            )
        logits: Array = hidden[chosen] @ self._words.T
        return logits

    def forward(
        self, input_ids: Any, attention_mask: Any = None, *, labels: Any, rng: Any = None
    ) -> tuple[float, MaskedLMCache | ShardCaches]:
        """Return the loss, and what `backward` needs.

        Parameters
        ----------
        input_ids, attention_mask : array_like
            Same as for a call.
        labels : array_like of integers of shape (B, S)
            Tokens to predict, or -100 for positions without a label.
        rng : int or numpy.random.Generator, optional
            Generator or seed of dropout with the rates of the config; None means no dropout, as in
            pretraining.

        Returns
        -------
        loss : float
            Mean cross-entropy over the labelled positions; 0 if there are none.
        cache : MaskedLMCache, or ShardCaches of several
            The cache that `backward` takes.
        """
        return self._loss_of(input_ids, attention_mask, labels, rng)

    def _as_labels(self, labels: Any, shape: tuple[int, ...]) -> Array:
        return as_class_labels(labels, shape, self.config.vocabulary)

    @staticmethod
    def _count(cache: MaskedLMCache) -> int:
        return len(cache.positions)

    def _forward(
        self, input_ids: Any, attention_mask: Any, labels: Any, rng: Any
    ) -> tuple[float, MaskedLMCache]:
        hidden, encoder = self.encoder.forward(input_ids, attention_mask, rng)
        wanted = labels.reshape(-1)
        positions = np.flatnonzero(wanted != IGNORED_LABEL)
        rows = hidden.reshape(-1, self.config.width)[positions]
        logits = rows @ self._words.T
        loss = kernels.selection().encoder.cross_entropy(logits, wanted[positions])
        return loss, MaskedLMCache(encoder, positions, rows, logits)

    def _backward(
        self, cache: MaskedLMCache, row_sparse: bool, straight_through: bool
    ) -> dict[str, Any]:
        batch, length = cache.encoder.embedding.ids.shape
        d_hidden = np.zeros((batch * length, self.config.width), self._dtype)
        d_hidden[cache.positions] = cache.d_logits @ self._words
        return self.encoder.backward(
            d_hidden.reshape(batch, length, self.config.width),
            cache.encoder,
            d_words=cache.d_logits.T @ cache.hidden,
            row_sparse=row_sparse,
            straight_through=straight_through,
        )

    @property
    def _words(self) -> Array:
        """Return the decoder's weights (V, D)."""
        return self.params["encoder.embedding.words"]

    def _initialise(self, std: float, rng: np.random.Generator) -> None:
        self.encoder._initialise(std, rng)
