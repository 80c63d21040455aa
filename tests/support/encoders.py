"""A small encoder with random weights, and random texts for it."""

from __future__ import annotations

import dataclasses

import numpy as np

from fffcpu.models import BertConfig, BertEncoder, BertForSequenceClassification

__all__ = ["CONFIG", "rows", "teacher"]

CONFIG = BertConfig(
    40, 8, 2, 2, feedforward_size=12, positions=10, initial_std=0.5, dtype="float64", normalize=True
)


def teacher(**changes):
    """An encoder, or with classes a classifier, whose biases and norms are random, too."""
    kind = BertForSequenceClassification if changes.get("classes") else BertEncoder
    model = kind(dataclasses.replace(CONFIG, **changes), rng=0)
    rng = np.random.default_rng(1)
    for array in model.params.values():
        array += 0.2 * rng.standard_normal(array.shape)
    return model


def rows(count=60):
    """The tokens of some texts."""
    rng = np.random.default_rng(0)
    return [[1, *rng.integers(3, 40, rng.integers(1, 9)).tolist(), 2] for _ in range(count)]
