"""Optimizers: SGD, Adam, AdamW, their local variants, and clipping."""

from __future__ import annotations

from fffcpu.training.optimizers.base import SGD, Adam, AdamW, clip_gradients
from fffcpu.training.optimizers.local import LocalAdam, LocalSGD

__all__ = ["SGD", "Adam", "AdamW", "LocalAdam", "LocalSGD", "clip_gradients"]
