"""Recipes: data, a model and a trainer put together."""

from __future__ import annotations

from fffcpu.recipes.finetuning import Finetuned, FinetuneSettings, evaluate_texts, finetune
from fffcpu.recipes.fitting import FitSettings, Fitted, evaluate_table, fit
from fffcpu.recipes.pretraining import Pretrained, PretrainSettings, pretrain

__all__ = [
    "FinetuneSettings",
    "Finetuned",
    "FitSettings",
    "Fitted",
    "PretrainSettings",
    "Pretrained",
    "evaluate_table",
    "evaluate_texts",
    "finetune",
    "fit",
    "pretrain",
]
