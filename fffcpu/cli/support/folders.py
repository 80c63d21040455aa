"""The model in a folder, of whichever class it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

__all__ = ["open_model"]


def open_model(folder: str | os.PathLike[str]) -> Any:
    """Return the masked language model or the classifier in a folder.

    Raises
    ------
    CheckpointError, OSError
        If the folder cannot be read or holds no model.
    """
    from fffcpu.models import FastBertForMaskedLM, FastBertForSequenceClassification
    from fffcpu.models.folders import open_config

    classes = open_config(Path(folder)).classes
    kind = FastBertForMaskedLM if classes is None else FastBertForSequenceClassification
    return kind.from_pretrained(folder)
