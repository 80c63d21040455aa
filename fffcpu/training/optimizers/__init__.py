"""SGD, Adam, AdamW, their local variants, and clipping: on named arrays, all in place."""

from __future__ import annotations

from fffcpu.training.optimizers.adam import Adam, AdamW
from fffcpu.training.optimizers.clipping import clip_gradients
from fffcpu.training.optimizers.local import LocalAdam, LocalSGD
from fffcpu.training.optimizers.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "LocalAdam", "LocalSGD", "clip_gradients"]
