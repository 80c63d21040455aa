"""Masked language models: the encoder, and a decoder that predicts the token at a position.

``logits = hidden words^T``, with the words of the embedding ("tied", arXiv 1608.05859) and no bias,
in FastBertForMaskedLM. BertForMaskedLM transforms the hidden states first (arXiv 1810.04805)::

    logits = norm(activation(transform(hidden))) words^T + bias

The loss is the mean cross-entropy over the labelled positions. The decoder is computed only for
those positions.

Shapes: B sequences of S positions, M labelled ones in all, D width, V tokens.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu import kernels
from fffcpu.checks import IGNORED_LABEL, as_class_labels
from fffcpu.config.bert import BertConfig
from fffcpu.config.fastbert import FastBertConfig
from fffcpu.config.layers import Activation
from fffcpu.errors import ShapeError, describe
from fffcpu.layers import Dense, DenseCache, LayerNorm, LayerNormCache
from fffcpu.layers.layer import product
from fffcpu.models.bert import BertEncoderCache
from fffcpu.models.data_parallel import ShardCaches
from fffcpu.models.encoder import EncoderCache
from fffcpu.models.encoder_layer import flattened, module_of
from fffcpu.models.head import BertWithHead, FastBertWithHead, ModelWithHead
from fffcpu.models.model import Config
from fffcpu.parameters import Parameters

__all__ = ["BertForMaskedLM", "FastBertForMaskedLM", "MaskedLM", "MaskedLMCache", "TransformCache"]

Array = NDArray[Any]


class TransformCache(NamedTuple):
    """What the transform of a BERT's hidden states keeps for its backward."""

    dense: DenseCache
    projected: Array
    """Input of the activation (M, D)."""
    norm: LayerNormCache


class MaskedLMCache(NamedTuple):
    """What forward of a masked language model keeps for its backward."""

    encoder: EncoderCache | BertEncoderCache
    """Cache of the encoder."""
    positions: NDArray[np.intp]
    """Indices of the labelled positions among the B S positions (M,)."""
    hidden: Array
    """What the decoder multiplies of the labelled positions: hidden states (M, D), transformed in a
    BERT."""
    d_logits: Array
    """Gradient of their logits (M, V), in the memory of the logits."""
    transform: TransformCache | None = None
    """Cache of the transform of a BERT."""


class MaskedLM(ModelWithHead[Config]):
    """Base of the masked language models: a decoder with the weights of the words."""

    _cache_type: ClassVar[type] = MaskedLMCache

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
        array of shape (B, S, V)
            Logits of the tokens at all positions.

        Raises
        ------
        ValueError, TypeError
            If an argument is not such an array.
        """
        hidden = self.encoder(*self._inputs(input_ids, attention_mask, token_type_ids))
        logits = self._logits(hidden.reshape(-1, self.config.width))
        return logits.reshape(*hidden.shape[:2], self.config.vocabulary)

    def logits_at(
        self,
        input_ids: Any,
        wanted: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
    ) -> Array:
        """Run the model, with the decoder at some positions only.

        Parameters
        ----------
        input_ids : array_like of integers of shape (B, S)
            The tokens, same as for a call.
        wanted : array_like of bool of shape (B, S)
            Mask of the wanted positions, M in all.
        attention_mask, token_type_ids : array_like of shape (B, S), optional
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
        hidden = self.encoder(*self._inputs(input_ids, attention_mask, token_type_ids))
        chosen = np.asarray(wanted)
        if chosen.dtype != bool or chosen.shape != hidden.shape[:2]:
            raise ShapeError(
                f"argument 'wanted' must be of bool and of shape {hidden.shape[:2]}, "
                f"got {describe(chosen)}"
            )
        return self._logits(hidden[chosen])

    def forward(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        *,
        labels: Any,
        rng: Any = None,
    ) -> tuple[float, MaskedLMCache | ShardCaches]:
        """Return the loss, and what `backward` needs.

        Parameters
        ----------
        input_ids, attention_mask, token_type_ids : array_like
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
        inputs = self._inputs(input_ids, attention_mask, token_type_ids)
        return self._loss_of(inputs, labels, rng)

    def _as_labels(self, labels: Any, shape: tuple[int, ...]) -> Array:
        return as_class_labels(labels, shape, self.config.vocabulary)

    @staticmethod
    def _count(cache: MaskedLMCache) -> int:
        return len(cache.positions)

    def _forward(self, *inputs_labels_rng: Any) -> tuple[float, MaskedLMCache]:
        *inputs, labels, rng = inputs_labels_rng
        hidden, encoder = self.encoder.forward(*inputs, rng)
        wanted = labels.reshape(-1)
        positions = np.flatnonzero(wanted != IGNORED_LABEL)
        rows = hidden.reshape(-1, self.config.width)[positions]
        rows, transform = self._transform(rows)
        logits = self._products(rows)
        loss = kernels.selection().encoder.cross_entropy(logits, wanted[positions])
        return loss, MaskedLMCache(encoder, positions, rows, logits, transform)

    def _backward(
        self, cache: MaskedLMCache, row_sparse: bool, straight_through: bool
    ) -> dict[str, Any]:
        batch, length = cache.encoder.embedding.ids.shape
        d_hidden = np.zeros((batch * length, self.config.width), self._dtype)
        d_rows, own = self._transform_backward(product(cache.d_logits, self._words), cache)
        d_hidden[cache.positions] = d_rows
        grads = self.encoder.backward(
            d_hidden.reshape(batch, length, self.config.width),
            cache.encoder,
            d_words=product(cache.d_logits.T, cache.hidden),
            row_sparse=row_sparse,
            straight_through=straight_through,
        )
        grads |= own
        return {name: grads[name] for name in self.params}

    def _logits(self, hidden: Array) -> Array:
        """Return the logits (M, V) of hidden states (M, D)."""
        return self._products(self._transform(hidden)[0])

    def _products(self, rows: Array) -> Array:
        """Return the logits (M, V) of hidden states (M, D) that are transformed."""
        return product(rows, self._words.T)

    def _transform(self, hidden: Array) -> tuple[Array, TransformCache | None]:
        """Return what the decoder multiplies (M, D), given hidden states, and a cache."""
        return hidden, None

    def _transform_backward(self, d_rows: Array, cache: MaskedLMCache) -> tuple[Array, Any]:
        """Return the gradients of hidden states (M, D) and of the head's own parameters."""
        return d_rows, {}

    @property
    def _words(self) -> Array:
        """Return the decoder's weights (V, D)."""
        return self.params["encoder.embedding.words"]

    def _initialise(self, std: float, rng: np.random.Generator) -> None:
        self.encoder._initialise(std, rng)


class FastBertForMaskedLM(FastBertWithHead, MaskedLM[FastBertConfig]):
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

    @classmethod
    def _own(cls, config: FastBertConfig) -> FastBertConfig:
        return dataclasses.replace(config, classes=None)


class BertForMaskedLM(BertWithHead, MaskedLM[BertConfig]):
    """BERT with a masked language model's head: "BertForMaskedLM" of Hugging Face.

    Parameters
    ----------
    config : BertConfig
        Config of the model; ``classes`` is ignored.
    rng : None, int or numpy.random.Generator
        Generator or seed of the initial values; see `BertEncoder`. The bias of the logits is 0.

    Attributes
    ----------
    encoder : BertEncoder
        The encoder, with the same arrays.

    Notes
    -----
    The memory is that of `FastBertForMaskedLM`, and for the transform ``3 M D`` numbers. What a
    folder was pretrained with beside this head, the pooler and the next sentence's classifier of
    "BertForPreTraining", is ignored.

    Examples
    --------
    >>> from fffcpu.models import BertConfig, BertForMaskedLM
    >>> config = BertConfig(100, 16, 2, 2, feedforward_size=32, positions=8)
    >>> BertForMaskedLM(config, rng=0)([[5, 7, 9]]).shape
    (1, 3, 100)
    """

    def _set_up(self, config: BertConfig, params: Parameters) -> None:
        super()._set_up(config, params)
        own = functools.partial(module_of, config.modules(), params)
        self.transform: Dense = own(Dense, "decoder.transform")
        self.norm: LayerNorm = own(LayerNorm, "decoder.norm")
        self.bias = params["decoder.bias"]
        self._activation = int(Activation.parse(config.activation))

    @classmethod
    def _own(cls, config: BertConfig) -> BertConfig:
        return dataclasses.replace(config, classes=None, head="masked_lm")

    def _products(self, rows: Array) -> Array:
        return product(rows, self._words.T, self.bias)

    def _transform(self, hidden: Array) -> tuple[Array, TransformCache]:
        projected, dense = self.transform.forward(hidden)
        active = kernels.selection().encoder.activate(projected, self._activation)
        rows, norm = self.norm.forward(active)
        return rows, TransformCache(dense, projected, norm)

    def _transform_backward(self, d_rows: Array, cache: MaskedLMCache) -> tuple[Array, Any]:
        assert cache.transform is not None
        d_active, norm = self.norm.backward(d_rows, cache.transform.norm)
        kernels.selection().encoder.backpropagate(
            d_active, cache.transform.projected, self._activation
        )
        d_hidden, transform = self.transform.backward(d_active, cache.transform.dense)
        own = flattened({"decoder.transform": transform, "decoder.norm": norm})
        return d_hidden, {**own, "decoder.bias": cache.d_logits.sum(axis=0)}

    def _initialise(self, std: float, rng: np.random.Generator) -> None:
        super()._initialise(std, rng)
        for module in (self.transform, self.norm):
            module._initialise(std, rng)
        self.bias[...] = 0
