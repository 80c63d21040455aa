"""Inference with trained models: predictors, pipelines for texts, and the warm-up of kernels."""

from __future__ import annotations

from fffcpu.inference.predictor import Predictor, Schema

__all__ = ["Predictor", "Schema"]
