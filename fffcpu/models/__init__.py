"""Complete models: FastBERT and BERT, each an encoder and two heads."""

from __future__ import annotations

from fffcpu.config.bert import BertConfig
from fffcpu.config.fastbert import FastBertConfig
from fffcpu.models.bert import BertEncoder, BertEncoderCache
from fffcpu.models.encoder import EncoderCache, FastBertEncoder
from fffcpu.models.masked_lm import BertForMaskedLM, FastBertForMaskedLM, MaskedLMCache
from fffcpu.models.sequence_classification import (
    BertForSequenceClassification,
    ClassifierCache,
    FastBertForSequenceClassification,
    SequenceClassificationCache,
)

__all__ = [
    "BertConfig",
    "BertEncoder",
    "BertEncoderCache",
    "BertForMaskedLM",
    "BertForSequenceClassification",
    "ClassifierCache",
    "EncoderCache",
    "FastBertConfig",
    "FastBertEncoder",
    "FastBertForMaskedLM",
    "FastBertForSequenceClassification",
    "MaskedLMCache",
    "SequenceClassificationCache",
]
