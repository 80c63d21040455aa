"""Losses, optimizers and schedules for training loops, and a loop that can resume.

Losses, optimizers, clipping and schedules take and return plain arrays, for loops like the one
below. `Trainer` is a loop with checkpoints and a history in a `RunFolder`::

    optimizer = AdamW(layer.params, lr=1e-3)
    for step in range(steps):
        logits, cache = layer.forward(x)
        loss, dlogits = softmax_cross_entropy(logits, labels)
        dx, grads = layer.backward(dlogits, cache)
        clip_gradients(grads, 0.5)
        optimizer.step(grads, lr=1e-3 * one_cycle_triangle(step / steps))
"""

from __future__ import annotations

from fffcpu.training.losses import (
    mean_squared_error,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
)
from fffcpu.training.optimizers import SGD, Adam, AdamW, LocalAdam, LocalSGD, clip_gradients
from fffcpu.training.run_folder import RunFolder
from fffcpu.training.schedules import constant, cosine, linear_warmup, one_cycle_triangle
from fffcpu.training.trainer import Evaluation, StopTraining, Trainer, TrainerSettings

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Evaluation",
    "LocalAdam",
    "LocalSGD",
    "RunFolder",
    "StopTraining",
    "Trainer",
    "TrainerSettings",
    "clip_gradients",
    "constant",
    "cosine",
    "linear_warmup",
    "mean_squared_error",
    "one_cycle_triangle",
    "sigmoid_cross_entropy",
    "softmax_cross_entropy",
]
