"""The layers, one per file: constructor, inference, forward, backward, initial values."""

from __future__ import annotations

import os
from typing import Any, TypeAlias, cast

from fffcpu.config import LayerConfig
from fffcpu.layers.attention import Attention, AttentionCache, QuantizedAttention
from fffcpu.layers.dense import Dense, DenseCache
from fffcpu.layers.dense_feed_forward import (
    DenseFeedForward,
    DenseFeedForwardCache,
    QuantizedDenseFeedForward,
)
from fffcpu.layers.dropout import Dropout, DropoutCache
from fffcpu.layers.embedding import (
    Embedding,
    EmbeddingCache,
    LearnedEmbedding,
    LearnedEmbeddingCache,
)
from fffcpu.layers.fast_feed_forward import (
    FastFeedForward,
    PathCache,
    QuantizedFastFeedForward,
    cmm,
)
from fffcpu.layers.layer import Layer
from fffcpu.layers.layer_norm import LayerNorm, LayerNormCache
from fffcpu.layers.leaf_feed_forward import LeafCache, LeafFeedForward, QuantizedLeafFeedForward

__all__ = [
    "LAYERS",
    "AnyLayer",
    "Attention",
    "AttentionCache",
    "Dense",
    "DenseCache",
    "DenseFeedForward",
    "DenseFeedForwardCache",
    "Dropout",
    "DropoutCache",
    "Embedding",
    "EmbeddingCache",
    "FastFeedForward",
    "Layer",
    "LayerNorm",
    "LayerNormCache",
    "LeafCache",
    "LeafFeedForward",
    "LearnedEmbedding",
    "LearnedEmbeddingCache",
    "PathCache",
    "QuantizedAttention",
    "QuantizedDenseFeedForward",
    "QuantizedFastFeedForward",
    "QuantizedLeafFeedForward",
    "cmm",
    "load",
]

AnyLayer: TypeAlias = (
    FastFeedForward
    | LeafFeedForward
    | DenseFeedForward
    | QuantizedDenseFeedForward
    | QuantizedFastFeedForward
    | QuantizedLeafFeedForward
)
"""The type of the layers that a file can hold. All are subclasses of `Layer`."""

LAYERS: dict[str, type[Layer[Any]]] = {
    layer.config_type.kind: layer
    for layer in (
        FastFeedForward,
        LeafFeedForward,
        DenseFeedForward,
        QuantizedDenseFeedForward,
        QuantizedFastFeedForward,
        QuantizedLeafFeedForward,
    )
}
"""The layers a file can hold, by the kind their config names."""


def layer_of(config: LayerConfig, rng: Any = None) -> AnyLayer:
    """Make an untrained layer of the class that a config belongs to.

    Parameters
    ----------
    config : FastFeedForwardConfig, LeafFeedForwardConfig or DenseFeedForwardConfig
        Config of the layer.
    rng : None, int or numpy.random.Generator
        Generator or seed of the initial values.
    """
    # A config has the fields that the constructor of its layer takes.
    make: Any = LAYERS[config.kind]
    return cast(AnyLayer, make(**config.to_dict(), rng=rng))


def load(path: str | os.PathLike[str]) -> AnyLayer:
    """Read a layer of any class from a file.

    Parameters
    ----------
    path : path
        A file that a layer's ``save`` wrote.

    Returns
    -------
    FastFeedForward, LeafFeedForward, DenseFeedForward or one of the quantized layers
        The layer in the file.

    Raises
    ------
    CheckpointError
        If the file is damaged, foreign or of another version.
    OSError
        If the file cannot be read.
    """
    from fffcpu.checkpoints import native

    config, arrays = native.load(path)
    return cast(AnyLayer, LAYERS[config.kind]._from(config, arrays))
