"""BertEncoder: the encoder of BERT, whose feedforwards may be trees.

Norms come after the sums ("post-norm", arXiv 1810.04805)::

    h = norm(embedding(input_ids, token_type_ids))
    for each layer:  h = norm1(h + attention(h));  h = norm2(h + feedforward(h) + bias_out)

Shapes: B sequences of S positions, D width, A heads, V tokens.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.checkpoints import bert
from fffcpu.config.bert import BertConfig
from fffcpu.layers import (
    Attention,
    AttentionCache,
    Dense,
    DenseFeedForward,
    DenseFeedForwardCache,
    Dropout,
    DropoutCache,
    FastFeedForward,
    LayerNorm,
    LayerNormCache,
    LearnedEmbedding,
    LearnedEmbeddingCache,
    PathCache,
)
from fffcpu.layers.layer import Module
from fffcpu.models.encoder import Encoder
from fffcpu.models.encoder_layer import (
    feedforward_backward,
    flattened,
    layer_over,
    module_of,
)
from fffcpu.models.model import BertModel
from fffcpu.parameters import Parameters

__all__ = ["BertEncoder", "BertEncoderCache"]

Array = NDArray[Any]


class BertLayerCache(NamedTuple):
    """What `BertLayer.forward` keeps for `BertLayer.backward`."""

    attention: AttentionCache
    dropped1: DropoutCache
    norm1: LayerNormCache
    feedforward: PathCache | DenseFeedForwardCache
    dropped2: DropoutCache
    norm2: LayerNormCache


class BertEncoderCache(NamedTuple):
    """What `BertEncoder.forward` keeps for `BertEncoder.backward`."""

    embedding: LearnedEmbeddingCache
    norm: LayerNormCache
    dropped: DropoutCache
    layers: tuple[BertLayerCache, ...]


class BertLayer:
    """A layer of the encoder.

    Parameters
    ----------
    config : BertConfig
        Config of the model.
    number : int
        Number of the layer, from 0.
    params : Parameters
        Parameters of the model; the layer uses the same arrays.
    """

    def __init__(self, config: BertConfig, number: int, params: Parameters) -> None:
        modules = config.modules()
        own = functools.partial(module_of, modules, params)
        prefix = f"encoder.layers.{number}"
        self.attention: Attention = layer_over(modules, params, f"{prefix}.attention")
        self.norm1: LayerNorm = own(LayerNorm, f"{prefix}.norm1")
        self.feedforward: FastFeedForward | DenseFeedForward
        self.feedforward = layer_over(modules, params, f"{prefix}.feedforward")
        self.norm2: LayerNorm = own(LayerNorm, f"{prefix}.norm2")
        self.bias_out = params[f"{prefix}.bias_out"]
        self._attention_dropout = config.attention_dropout
        self._drop = Dropout(config.dropout)

    def __call__(self, h: Array, mask: Any) -> Array:
        """Return the output (B, S, D); ``h`` is not changed."""
        h = self.norm1.of_sum(h, self.attention(h, mask))
        return self.norm2.of_sum(h, self.feedforward(h), self.bias_out)

    def forward(
        self, h: Array, mask: Any, rng: np.random.Generator | None
    ) -> tuple[Array, BertLayerCache]:
        """Run the layer, with dropout if there is an ``rng``; ``h`` is not changed."""
        dropout = self._attention_dropout if rng is not None else 0.0
        y, attention = self.attention.forward(h, mask, dropout, rng)
        y, dropped1 = self._drop.forward(y, rng)
        x, norm1 = self.norm1.forward(y + h)
        z, feedforward = self.feedforward.forward(x)
        z, dropped2 = self._drop.forward(z + self.bias_out, rng)
        output, norm2 = self.norm2.forward(z + x)
        return output, BertLayerCache(attention, dropped1, norm1, feedforward, dropped2, norm2)

    def backward(
        self, dh: Array, cache: BertLayerCache, row_sparse: bool, straight_through: bool
    ) -> tuple[Array, dict[str, Any]]:
        """Return the gradient of the input and those of the parameters, by the layer's names."""
        dx, norm2 = self.norm2.backward(dh, cache.norm2)
        dz = self._drop.backward(dx, cache.dropped2)
        bias_out = dz.reshape(-1, dz.shape[-1]).sum(axis=0)
        d_input, feedforward = feedforward_backward(
            self.feedforward, dz, cache.feedforward, row_sparse, straight_through
        )
        dy, norm1 = self.norm1.backward(dx + d_input, cache.norm1)
        d_attended, attention = self.attention.backward(
            self._drop.backward(dy, cache.dropped1), cache.attention
        )
        grads = {"attention": attention, "norm1": norm1, "feedforward": feedforward, "norm2": norm2}
        return dy + d_attended, {**flattened(grads), "bias_out": bias_out}


class BertEncoder(BertModel, Encoder[BertConfig]):
    """Encoder of a BERT: the models of ``model_type`` "bert" of Hugging Face.

    Parameters
    ----------
    config : BertConfig
        Config of the encoder; ``classes`` is ignored, and the head of a masked language model.
    rng : None, int or numpy.random.Generator
        Generator or seed of the initial values: weights and vectors are normal with standard
        deviation ``config.initial_std``, including those of the feedforwards. Biases and the vector
        of the padding are 0, scales of norms 1.

    Notes
    -----
    The pooler of a folder, if there is one, is among ``params``, for a classifier that starts from
    this encoder. Hidden states do not depend on it, so its gradients are 0.

    Examples
    --------
    >>> from fffcpu.models import BertConfig, BertEncoder
    >>> config = BertConfig(100, 16, 2, 2, feedforward_size=32, positions=8)
    >>> BertEncoder(config, rng=0)([[5, 7, 9]]).shape
    (1, 3, 16)
    """

    def _set_up(self, config: BertConfig, params: Parameters) -> None:
        super()._set_up(config, params)
        own = functools.partial(module_of, config.modules(), params)
        self.embedding: LearnedEmbedding = own(LearnedEmbedding, "encoder.embedding")
        self.norm: LayerNorm = own(LayerNorm, "encoder.embedding.norm")
        self.layers = [BertLayer(config, i, params) for i in range(config.layers)]
        self._drop = Dropout(config.dropout)
        self._pooler: list[Dense] = [own(Dense, "pooler")] if config.head == "pooler" else []

    @classmethod
    def _own(cls, config: BertConfig) -> BertConfig:
        head = config.head if config.head == "pooler" else None
        return dataclasses.replace(config, classes=None, head=head)

    @classmethod
    def _completed(cls, config: BertConfig, names: Collection[str]) -> BertConfig:
        return dataclasses.replace(config, head="pooler" if bert.has_pooler(names) else None)

    def __call__(
        self, input_ids: Any, attention_mask: Any = None, token_type_ids: Any = None
    ) -> Array:
        """Run the encoder.

        Parameters
        ----------
        input_ids : array_like of integers of shape (B, S)
            The tokens, S at most ``config.positions``.
        attention_mask : array_like of shape (B, S), optional
            1 for tokens, 0 for padding; by default all are tokens.
        token_type_ids : array_like of integers of shape (B, S), optional
            Types of the tokens; 0 by default.

        Returns
        -------
        array of shape (B, S, D)
            The hidden states; those of padding positions have no meaning.

        Raises
        ------
        ValueError, TypeError
            If an argument is not such an array.
        """
        return self._hidden_states(input_ids, attention_mask, token_type_ids)

    def feedforwards(
        self, input_ids: Any, attention_mask: Any = None
    ) -> Iterator[tuple[Array, Array]]:
        """Run the encoder, and yield the input and the output of each layer's feedforward.

        Parameters
        ----------
        input_ids, attention_mask : array_like
            Same as for a call.

        Yields
        ------
        x, y : array of shape (B, S, D)
            The rows that the feedforward reads, and its output with ``bias_out``. They must not be
            changed.
        """
        h = self.norm(self.embedding(input_ids))
        for layer in self.layers:
            x = layer.norm1.of_sum(h, layer.attention(h, attention_mask))
            y = layer.feedforward(x) + layer.bias_out
            yield x, y
            h = layer.norm2(x + y)

    def forward(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        rng: Any = None,
    ) -> tuple[Array, BertEncoderCache]:
        """Run the encoder and keep what `backward` needs.

        Parameters
        ----------
        input_ids, attention_mask, token_type_ids : array_like
            Same as for a call.
        rng : int or numpy.random.Generator, optional
            Generator or seed of dropout with the rates of the config; None means no dropout.

        Returns
        -------
        hidden : array of shape (B, S, D)
        cache : BertEncoderCache
            The cache that `backward` takes.
        """
        h, caches = self._forward_layers(rng, input_ids, attention_mask, token_type_ids)
        return h, BertEncoderCache(*caches)

    def backward(
        self,
        d_hidden: Any,
        cache: BertEncoderCache,
        *,
        d_words: Array | None = None,
        row_sparse: bool = False,
        straight_through: bool = False,
    ) -> dict[str, Any]:
        """Return the gradients of a loss; the arguments are those of `FastBertEncoder.backward`."""
        self._check_backward(cache, BertEncoderCache, row_sparse, straight_through)
        shape = cache.embedding.ids.shape
        dh = self._upstream_rows(d_hidden, shape, self.config.width)
        dh = dh.reshape(*shape, self.config.width)
        grads = self._backward_layers(dh, cache, d_words, row_sparse, straight_through)
        for pooler in self._pooler:
            grads |= flattened({"pooler": {n: np.zeros_like(a) for n, a in pooler.params.items()}})
        return {name: grads[name] for name in self.params}

    def _initialise(self, std: float, rng: np.random.Generator) -> None:
        super()._initialise(std, rng)
        for layer in self.layers:
            layer.bias_out[...] = 0

    def _modules(self) -> Iterator[Module[Any]]:
        yield from (self.embedding, self.norm)
        yield from self._pooler
        for layer in self.layers:
            yield from (layer.attention, layer.norm1, layer.norm2)
