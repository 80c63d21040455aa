"""FastBertForMaskedLM: the encoder, and a decoder that says which token a position held.

``logits = hidden words^T``, with the words of the embedding ("tied", arXiv 1608.05859) and no bias.
The loss is the mean cross-entropy over the labelled positions, and only for those is the decoder
computed.

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
    """What the encoder keeps."""
    positions: NDArray[np.intp]
    """Which of the B S positions are labelled (M,)."""
    hidden: Array
    """Their hidden states (M, D)."""
    d_logits: Array
    """The gradient of their logits (M, V), which takes the place of the logits."""


class FastBertForMaskedLM(ModelWithHead):
    """FastBERT with a masked language model's head.

    Parameters
    ----------
    config : FastBertConfig
        What the model is; ``classes`` does not matter.
    rng : None, int or numpy.random.Generator
        For the initial values; see `FastBertEncoder`.

    Attributes
    ----------
    encoder : FastBertEncoder
        The encoder, with the same arrays.

    Notes
    -----
    A training step keeps ``M V`` numbers beside those of the encoder, and takes ``V D`` for the
    gradient of the words. A call makes logits for all positions, ``B S V`` numbers. Where threads
    share a batch, each makes gradients of its own; see `fffcpu.models.data_parallel`.

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
            1 for tokens, 0 for padding; without it, all are tokens.

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
        """Run the model, and the decoder at some positions only.

        Parameters
        ----------
        input_ids : array_like of integers of shape (B, S)
            The tokens, as for a call.
        wanted : array_like of bool of shape (B, S)
            Which positions, M in all.
        attention_mask : array_like of shape (B, S), optional
            As for a call.

        Returns
        -------
        array of shape (M, V)
            Their logits, in the order of the sequences.

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
            As for a call.
        labels : array_like of integers of shape (B, S)
            The tokens that were there, or -100 where there is nothing to guess.
        rng : int or numpy.random.Generator, optional
            For dropout with the rates of the config; None drops nothing, as in pretraining.

        Returns
        -------
        loss : float
            Mean cross-entropy over the labelled positions; 0 if there are none.
        cache : MaskedLMCache, or ShardCaches of several
            For `backward`.
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

    def _backward(self, cache: MaskedLMCache, row_sparse: bool) -> dict[str, Any]:
        batch, length = cache.encoder.embedding.ids.shape
        d_hidden = np.zeros((batch * length, self.config.width), self._dtype)
        d_hidden[cache.positions] = cache.d_logits @ self._words
        return self.encoder.backward(
            d_hidden.reshape(batch, length, self.config.width),
            cache.encoder,
            d_words=cache.d_logits.T @ cache.hidden,
            row_sparse=row_sparse,
        )

    @property
    def _words(self) -> Array:
        """The decoder's weights (V, D)."""
        return self.params["encoder.embedding.words"]

    def _initialise(self, std: float, rng: np.random.Generator) -> None:
        self.encoder._initialise(std, rng)
