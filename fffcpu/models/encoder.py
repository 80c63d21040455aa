"""FastBertEncoder, and what it shares with other encoders.

It is the crammedBERT encoder with FastFeedForward layers, that of "Exponentially Faster Language
Modelling" (arXiv 2311.10770), after "Cramming" (arXiv 2212.14034)::

    h = norm(embedding(input_ids))
    for each layer:  h = h + attention(norm1(h));  h = h + feedforward(norm2(h))
    hidden = final_norm(h)

Shapes: B sequences of S positions, D width, A heads, V tokens; in the feedforward T trees of L
levels.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.checks import check_flag
from fffcpu.config.fastbert import FastBertConfig
from fffcpu.errors import ArgumentTypeError, describe
from fffcpu.layers import (
    Dropout,
    DropoutCache,
    Embedding,
    EmbeddingCache,
    LayerNorm,
    LayerNormCache,
)
from fffcpu.layers.attention import penalties_of
from fffcpu.layers.layer import Module
from fffcpu.models.data_parallel import call_in_shards, share_out
from fffcpu.models.encoder_layer import (
    EncoderLayer,
    EncoderLayerCache,
    flattened,
    module_of,
)
from fffcpu.models.model import Config, FastBertModel, Model
from fffcpu.parameters import Parameters, generator, normal

__all__ = ["Encoder", "EncoderCache", "FastBertEncoder"]

Array = NDArray[Any]


class EncoderCache(NamedTuple):
    """What `FastBertEncoder.forward` keeps for `FastBertEncoder.backward`."""

    embedding: EmbeddingCache
    norm: LayerNormCache
    dropped: DropoutCache
    layers: tuple[EncoderLayerCache, ...]
    final_norm: LayerNormCache


class Encoder(Model[Config]):
    """Base of the encoders: an embedding, a norm, a dropout, and layers that follow each other."""

    embedding: Any
    norm: LayerNorm
    layers: list[Any]
    _drop: Dropout

    _encoder_only = True

    def _hidden_states(self, *arrays: Any) -> Array:
        """Return what `_hidden` does of the arguments of a call, by sequences on several cores."""
        slices = share_out(self.config, *arrays)
        if slices:
            return np.concatenate(call_in_shards(self._hidden, slices, arrays))
        return self._hidden(*arrays)

    def _hidden(self, input_ids: Any, attention_mask: Any, *more: Any) -> Array:
        """Return the output of the layers for sequences that are not split further."""
        h = self.norm(self.embedding(input_ids, *more))
        penalties = penalties_of(attention_mask, h.shape[:2], self._dtype)
        for layer in self.layers:
            h = layer(h, penalties)
        return h

    def _forward_layers(
        self, rng: Any, input_ids: Any, attention_mask: Any, *more: Any
    ) -> tuple[Array, tuple[Any, LayerNormCache, DropoutCache, tuple[Any, ...]]]:
        """Return the output of the layers, and the first fields of the encoder's cache."""
        rng = None if rng is None else generator(rng)
        self._check_memory(getattr(input_ids, "shape", ()))
        h, embedding = self.embedding.forward(input_ids, *more)
        h, norm = self.norm.forward(h)
        h, dropped = self._drop.forward(h, rng)
        caches = []
        for layer in self.layers:
            h, cache = layer.forward(h, attention_mask, rng)
            caches.append(cache)
        return h, (embedding, norm, dropped, tuple(caches))

    def _check_backward(
        self, cache: Any, kind: type, row_sparse: bool, straight_through: bool
    ) -> None:
        """Raise unless backward has flags, and a cache of the class that forward returns."""
        check_flag("row_sparse", row_sparse)
        check_flag("straight_through", straight_through)
        if not isinstance(cache, kind):
            raise ArgumentTypeError(
                f"argument 'cache' must be the {kind.__name__} that forward of this encoder "
                f"returned, got {describe(cache)}"
            )

    def _backward_layers(
        self,
        dh: Array,
        cache: Any,
        d_words: Array | None,
        row_sparse: bool,
        straight_through: bool,
    ) -> dict[str, Any]:
        """Return the gradients of layers and embedding, given that of the layers' output."""
        grads: dict[str, Any] = {}
        for i in reversed(range(len(self.layers))):
            dh, own = self.layers[i].backward(dh, cache.layers[i], row_sparse, straight_through)
            grads |= flattened({f"encoder.layers.{i}": own})
        dh, own = self.norm.backward(self._drop.backward(dh, cache.dropped), cache.norm)
        grads |= flattened({"encoder.embedding.norm": own})
        own = self.embedding.backward(dh, cache.embedding, d_words)
        return grads | flattened({"encoder.embedding": own})

    def _initialise(self, std: float, rng: np.random.Generator) -> None:
        for module in self._modules():
            module._initialise(std, rng)
        for layer in self.layers:
            for name, array in layer.feedforward.params.items():
                if name == "bias_in":
                    array[...] = 0
                else:
                    normal(array, std, rng)

    def _modules(self) -> Iterator[Module[Any]]:
        """Yield all modules except the feedforwards."""
        raise NotImplementedError


class FastBertEncoder(FastBertModel, Encoder[FastBertConfig]):
    """Encoder of a FastBERT.

    Parameters
    ----------
    config : FastBertConfig
        Config of the encoder; ``classes`` is ignored.
    rng : None, int or numpy.random.Generator
        Generator or seed of the initial values: weights and token vectors are normal with standard
        deviation ``config.initial_std``, including those of the feedforwards. Biases and the vector
        of the padding are 0, scales of norms 1, the scale of the positions is 1/sqrt(D).

    Notes
    -----
    Inference holds a few arrays (B, S, D). A training step keeps ``2 D`` numbers per position, and
    ``8 D + A S + 2 T L`` more per layer; with dropout, also one byte per number that may be
    dropped. The gradients take as much memory as the parameters.
    """

    def _set_up(self, config: FastBertConfig, params: Parameters) -> None:
        super()._set_up(config, params)
        own = functools.partial(module_of, config.modules(), params)
        self.embedding: Embedding = own(Embedding, "encoder.embedding")
        self.norm: LayerNorm = own(LayerNorm, "encoder.embedding.norm")
        self.layers = [EncoderLayer(config, i, params) for i in range(config.layers)]
        self.final_norm: LayerNorm = own(LayerNorm, "encoder.final_norm")
        self._drop = Dropout(config.embedding_dropout)

    @classmethod
    def _own(cls, config: FastBertConfig) -> FastBertConfig:
        return dataclasses.replace(config, classes=None)

    def __call__(self, input_ids: Any, attention_mask: Any = None) -> Array:
        """Run the encoder.

        Parameters
        ----------
        input_ids : array_like of integers of shape (B, S)
            The tokens, S at most ``config.positions``.
        attention_mask : array_like of shape (B, S), optional
            1 for tokens, 0 for padding; by default all are tokens.

        Returns
        -------
        array of shape (B, S, D)
            The hidden states; those of padding positions have no meaning.

        Raises
        ------
        ValueError, TypeError
            If an argument is not such an array.
        """
        return self._hidden_states(input_ids, attention_mask)

    def _hidden(self, input_ids: Any, attention_mask: Any, *more: Any) -> Array:
        return self.final_norm(super()._hidden(input_ids, attention_mask, *more))

    def forward(
        self, input_ids: Any, attention_mask: Any = None, rng: Any = None
    ) -> tuple[Array, EncoderCache]:
        """Run the encoder and keep what `backward` needs.

        Parameters
        ----------
        input_ids, attention_mask : array_like
            Same as for a call.
        rng : int or numpy.random.Generator, optional
            Generator or seed of dropout with the rates of the config, as in fine-tuning; None means
            no dropout, as in pretraining.

        Returns
        -------
        hidden : array of shape (B, S, D)
        cache : EncoderCache
            The cache that `backward` takes.
        """
        h, caches = self._forward_layers(rng, input_ids, attention_mask)
        hidden, final_norm = self.final_norm.forward(h)
        return hidden, EncoderCache(*caches, final_norm)

    def backward(
        self,
        d_hidden: Any,
        cache: EncoderCache,
        *,
        d_words: Array | None = None,
        row_sparse: bool = False,
        straight_through: bool = False,
    ) -> dict[str, Any]:
        """Return the gradients of a loss.

        Parameters
        ----------
        d_hidden : array_like of shape (B, S, D)
            Gradient of the loss with respect to the hidden states.
        cache : EncoderCache
            Cache that `forward` returned.
        d_words : array of shape (V, D), optional
            Gradient of the word embedding to add to, in place; see `Embedding`.
        row_sparse : bool
            Whether gradients of FastFeedForward layers hold only the rows of visited nodes, as
            `fffcpu.parameters.RowGradient`.
        straight_through : bool
            Whether routes of FastFeedForward layers have a gradient; see
            `fffcpu.FastFeedForward.backward`. Otherwise they are held constant.

        Returns
        -------
        dict of str to array, or to RowGradient
            Gradients, with the names, order and shapes of ``params``.
        """
        self._check_backward(cache, EncoderCache, row_sparse, straight_through)
        dh, own = self.final_norm.backward(d_hidden, cache.final_norm)
        grads = flattened({"encoder.final_norm": own})
        grads |= self._backward_layers(dh, cache, d_words, row_sparse, straight_through)
        return {name: grads[name] for name in self.params}

    def _modules(self) -> Iterator[Module[Any]]:
        yield from (self.embedding, self.norm, self.final_norm)
        for layer in self.layers:
            yield from (layer.norm1, layer.attention, layer.norm2)
