"""EncoderLayer: attention, then a feedforward, each on normalized rows and added to its input.

``h = h + attention(norm1(h))``, then ``h = h + feedforward(norm2(h))``: "pre-norm"
(arXiv 2002.04745).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.config import (
    ArraysConfig,
    AttentionConfig,
    DenseFeedForwardConfig,
    FastFeedForwardConfig,
    QuantizedAttentionConfig,
    QuantizedDenseFeedForwardConfig,
    QuantizedFastFeedForwardConfig,
)
from fffcpu.config.fastbert import FastBertConfig
from fffcpu.layers import (
    Attention,
    AttentionCache,
    DenseFeedForward,
    DenseFeedForwardCache,
    Dropout,
    DropoutCache,
    FastFeedForward,
    LayerNorm,
    LayerNormCache,
    PathCache,
    QuantizedAttention,
    QuantizedDenseFeedForward,
    QuantizedFastFeedForward,
)
from fffcpu.parameters import Parameters

__all__ = [
    "LAYER_CLASSES",
    "EncoderLayer",
    "EncoderLayerCache",
    "feedforward_backward",
    "flattened",
    "layer_over",
    "module_of",
]

Array = NDArray[Any]

LAYER_CLASSES: Mapping[type[ArraysConfig], Any] = MappingProxyType(
    {
        AttentionConfig: Attention,
        QuantizedAttentionConfig: QuantizedAttention,
        DenseFeedForwardConfig: DenseFeedForward,
        QuantizedDenseFeedForwardConfig: QuantizedDenseFeedForward,
        FastFeedForwardConfig: FastFeedForward,
        QuantizedFastFeedForwardConfig: QuantizedFastFeedForward,
    }
)
"""Class of the attentions and feedforwards of encoders, by that of their config."""

Modules = Mapping[str, ArraysConfig]


class EncoderLayerCache(NamedTuple):
    """What `EncoderLayer.forward` keeps for `EncoderLayer.backward`.

    It holds ``8 D + A S`` numbers per position, and what the feedforward keeps besides its input:
    ``2 T L`` in a FastFeedForward, its neurons in a dense one.
    """

    norm1: LayerNormCache
    attention: AttentionCache
    dropped1: DropoutCache
    norm2: LayerNormCache
    feedforward: PathCache | DenseFeedForwardCache
    dropped2: DropoutCache


class EncoderLayer:
    """A layer of the encoder.

    Parameters
    ----------
    config : FastBertConfig
        Config of the model.
    number : int
        Number of the layer, from 0.
    params : Parameters
        Parameters of the model; the layer uses the same arrays.
    """

    def __init__(self, config: FastBertConfig, number: int, params: Parameters) -> None:
        modules = config.modules()
        own = functools.partial(module_of, modules, params)
        prefix = f"encoder.layers.{number}"
        self.norm1: LayerNorm = own(LayerNorm, f"{prefix}.norm1")
        self.attention: Attention = layer_over(modules, params, f"{prefix}.attention")
        self.norm2: LayerNorm = own(LayerNorm, f"{prefix}.norm2")
        self.feedforward: FastFeedForward | DenseFeedForward
        self.feedforward = layer_over(modules, params, f"{prefix}.feedforward")
        self._attention_dropout = config.attention_dropout
        self._drop = Dropout(config.dropout)

    def __call__(self, h: Array, mask: Any) -> Array:
        """Return the output (B, S, D), written over ``h``."""
        h += self.attention(self.norm1(h), mask)
        h += self.feedforward(self.norm2(h))
        return h

    def forward(
        self, h: Array, mask: Any, rng: np.random.Generator | None
    ) -> tuple[Array, EncoderLayerCache]:
        """Run the layer, with dropout if there is an ``rng``; ``h`` is not changed."""
        x, norm1 = self.norm1.forward(h)
        dropout = self._attention_dropout if rng is not None else 0.0
        y, attention = self.attention.forward(x, mask, dropout, rng)
        y, dropped1 = self._drop.forward(y, rng)
        y += h
        x, norm2 = self.norm2.forward(y)
        z, feedforward = self.feedforward.forward(x)
        z, dropped2 = self._drop.forward(z, rng)
        z += y
        return z, EncoderLayerCache(norm1, attention, dropped1, norm2, feedforward, dropped2)

    def backward(
        self, dh: Array, cache: EncoderLayerCache, row_sparse: bool, straight_through: bool
    ) -> tuple[Array, dict[str, Any]]:
        """Return the gradient of the input and those of the parameters, by the layer's names."""
        dy = self._drop.backward(dh, cache.dropped2)
        dx, feedforward = feedforward_backward(
            self.feedforward, dy, cache.feedforward, row_sparse, straight_through
        )
        dx, norm2 = self.norm2.backward(dx, cache.norm2)
        dx += dh
        dy = self._drop.backward(dx, cache.dropped1)
        dz, attention = self.attention.backward(dy, cache.attention)
        dz, norm1 = self.norm1.backward(dz, cache.norm1)
        dz += dx
        grads = {"norm1": norm1, "attention": attention, "norm2": norm2}
        return dz, flattened({**grads, "feedforward": feedforward})


def module_of(modules: Modules, params: Parameters, kind: Any, name: str) -> Any:
    """Return a module of a model, of class ``kind``, that uses the model's arrays."""
    own = modules[name]
    return kind._sharing(own, params.module(name, own.shapes()))


def layer_over(modules: Modules, params: Parameters, name: str) -> Any:
    """Return an attention or a feedforward of a model that uses the model's arrays.

    One with int8 weights has the methods of inference, and others that raise.
    """
    return module_of(modules, params, LAYER_CLASSES[type(modules[name])], name)


def feedforward_backward(
    feedforward: FastFeedForward | DenseFeedForward,
    dy: Array,
    cache: Any,
    row_sparse: bool,
    straight_through: bool,
) -> tuple[Array, dict[str, Any]]:
    """Return the gradients of a feedforward, which has these options if it has trees."""
    if isinstance(feedforward, FastFeedForward):
        return feedforward.backward(dy, cache, row_sparse, straight_through)
    return feedforward.backward(dy, cache)


def flattened(grads: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the gradients of modules, with names ``module.name``."""
    return {f"{module}.{name}": g for module, own in grads.items() for name, g in own.items()}
