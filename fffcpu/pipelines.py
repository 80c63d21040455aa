"""Models and tokenizers applied to texts (extra ``text``); see `fffcpu.inference.pipelines`."""

from __future__ import annotations

from fffcpu.inference.pipelines import (
    FillMask,
    Guess,
    Results,
    TextClassifier,
    TextEmbedder,
    default_model_folder,
)

__all__ = [
    "FillMask",
    "Guess",
    "Results",
    "TextClassifier",
    "TextEmbedder",
    "default_model_folder",
]
