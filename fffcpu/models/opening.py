"""Which model a folder holds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from fffcpu.config.bert import BertConfig
from fffcpu.config.encoder import EncoderConfig
from fffcpu.models.bert import BertEncoder
from fffcpu.models.folders import open_config
from fffcpu.models.masked_lm import BertForMaskedLM, FastBertForMaskedLM
from fffcpu.models.model import Model
from fffcpu.models.sequence_classification import (
    BertForSequenceClassification,
    FastBertForSequenceClassification,
)

__all__ = ["model_class", "open_model", "open_pretrained"]


def model_class(config: EncoderConfig) -> type[Model[Any]]:
    """Return the class of a folder's model, given its config."""
    if not isinstance(config, BertConfig):
        return FastBertForMaskedLM if config.classes is None else FastBertForSequenceClassification
    if config.classes is not None:
        return BertForSequenceClassification
    return BertForMaskedLM if config.head == "masked_lm" else BertEncoder


def open_model(folder: str | os.PathLike[str], dtype: DTypeLike = np.float32) -> Model[Any]:
    """Open the model in a folder, of whichever class it is; see `Model.from_pretrained`."""
    return model_class(open_config(Path(folder))).from_pretrained(folder, dtype)


def open_pretrained(
    folder: str | os.PathLike[str], dtype: DTypeLike = np.float32
) -> FastBertForMaskedLM | BertEncoder:
    """Open what a fine-tuning starts from: any BERT's encoder, or a FastBERT's language model."""
    is_bert = isinstance(open_config(Path(folder)), BertConfig)
    return (BertEncoder if is_bert else FastBertForMaskedLM).from_pretrained(folder, dtype)
