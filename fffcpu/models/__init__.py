"""Complete models: FastBERT, the encoder with conditional feedforwards, and its heads."""

from __future__ import annotations

from fffcpu.config.fastbert import FastBertConfig
from fffcpu.models.encoder import EncoderCache, FastBertEncoder
from fffcpu.models.masked_lm import FastBertForMaskedLM, MaskedLMCache
from fffcpu.models.sequence_classification import (
    FastBertForSequenceClassification,
    SequenceClassificationCache,
)

__all__ = [
    "EncoderCache",
    "FastBertConfig",
    "FastBertEncoder",
    "FastBertForMaskedLM",
    "FastBertForSequenceClassification",
    "MaskedLMCache",
    "SequenceClassificationCache",
]
