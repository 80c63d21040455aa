"""What a layer or a model is, apart from its numbers: frozen dataclasses that check themselves."""

from __future__ import annotations

from fffcpu.config.layers import (
    IGNORED_LABEL,
    Activation,
    ArraysConfig,
    DenseFeedForwardConfig,
    FastFeedForwardConfig,
    LayerConfig,
    LeafFeedForwardConfig,
    QuantizedFastFeedForwardConfig,
    QuantizedLeafFeedForwardConfig,
    check_dtype,
    check_flag,
    check_integer,
    check_number,
    check_weights,
    numpy_dtype,
)

__all__ = [
    "IGNORED_LABEL",
    "Activation",
    "ArraysConfig",
    "DenseFeedForwardConfig",
    "FastFeedForwardConfig",
    "LayerConfig",
    "LeafFeedForwardConfig",
    "QuantizedFastFeedForwardConfig",
    "QuantizedLeafFeedForwardConfig",
    "check_dtype",
    "check_flag",
    "check_integer",
    "check_number",
    "check_weights",
    "numpy_dtype",
]
