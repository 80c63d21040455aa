"""Complete models: FastBERT and its heads, and the encoder of BERT."""

from __future__ import annotations

from fffcpu.config.bert import BertConfig
from fffcpu.config.fastbert import FastBertConfig
from fffcpu.models.bert import BertEncoder, BertEncoderCache
from fffcpu.models.encoder import EncoderCache, FastBertEncoder
from fffcpu.models.masked_lm import FastBertForMaskedLM, MaskedLMCache
from fffcpu.models.sequence_classification import (
    FastBertForSequenceClassification,
    SequenceClassificationCache,
)

__all__ = [
    "BertConfig",
    "BertEncoder",
    "BertEncoderCache",
    "EncoderCache",
    "FastBertConfig",
    "FastBertEncoder",
    "FastBertForMaskedLM",
    "FastBertForSequenceClassification",
    "MaskedLMCache",
    "SequenceClassificationCache",
]
