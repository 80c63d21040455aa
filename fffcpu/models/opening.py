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
from fffcpu.models.masked_lm import FastBertForMaskedLM
from fffcpu.models.model import Model
from fffcpu.models.sequence_classification import FastBertForSequenceClassification

__all__ = ["model_class", "open_model"]


def model_class(config: EncoderConfig) -> type[Model[Any]]:
    """Return the class of a folder's model, given its config."""
    if isinstance(config, BertConfig):
        return BertEncoder
    return FastBertForMaskedLM if config.classes is None else FastBertForSequenceClassification


def open_model(folder: str | os.PathLike[str], dtype: DTypeLike = np.float32) -> Model[Any]:
    """Open the model in a folder, of whichever class it is; see `Model.from_pretrained`."""
    return model_class(open_config(Path(folder))).from_pretrained(folder, dtype)
