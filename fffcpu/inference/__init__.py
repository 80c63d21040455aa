"""Trained models at work: predictors, pipelines of texts, and kernels warmed up beforehand."""

from __future__ import annotations

from fffcpu.inference.predictor import Predictor, Schema

__all__ = ["Predictor", "Schema"]
