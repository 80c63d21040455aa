"""What a layer or a model is, apart from its numbers: frozen dataclasses that check themselves."""

from __future__ import annotations

from fffcpu.config.layers import (
    Activation,
    ArraysConfig,
    DenseFeedForwardConfig,
    FastFeedForwardConfig,
    LayerConfig,
    LeafFeedForwardConfig,
    QuantizedFastFeedForwardConfig,
    QuantizedLeafFeedForwardConfig,
    numpy_dtype,
)

__all__ = [
    "Activation",
    "ArraysConfig",
    "DenseFeedForwardConfig",
    "FastFeedForwardConfig",
    "LayerConfig",
    "LeafFeedForwardConfig",
    "QuantizedFastFeedForwardConfig",
    "QuantizedLeafFeedForwardConfig",
    "numpy_dtype",
]
