"""Configs of layers and models, without parameters: frozen dataclasses that check themselves."""

from __future__ import annotations

from fffcpu.config.layers import (
    Activation,
    ArraysConfig,
    AttentionConfig,
    DenseConfig,
    DenseFeedForwardConfig,
    EmbeddingConfig,
    FastFeedForwardConfig,
    LayerConfig,
    LayerNormConfig,
    LeafFeedForwardConfig,
    LearnedEmbeddingConfig,
    QuantizedAttentionConfig,
    QuantizedDenseFeedForwardConfig,
    QuantizedFastFeedForwardConfig,
    QuantizedLeafFeedForwardConfig,
)

__all__ = [
    "Activation",
    "ArraysConfig",
    "AttentionConfig",
    "DenseConfig",
    "DenseFeedForwardConfig",
    "EmbeddingConfig",
    "FastFeedForwardConfig",
    "LayerConfig",
    "LayerNormConfig",
    "LeafFeedForwardConfig",
    "LearnedEmbeddingConfig",
    "QuantizedAttentionConfig",
    "QuantizedDenseFeedForwardConfig",
    "QuantizedFastFeedForwardConfig",
    "QuantizedLeafFeedForwardConfig",
]
