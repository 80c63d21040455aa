"""The objective of fine-tuning: padding that does not matter, and figures in any order."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fffcpu.config.encoder import POOLERS
from fffcpu.errors import ShapeError
from fffcpu.models import FastBertConfig, FastBertForSequenceClassification
from fffcpu.recipes.text_objective import TextObjective, text_figures
from fffcpu.training.batches import BatchOrder
from fffcpu.training.trainer import Moment

TOKENS = [[2, 5, 3], [2, 3], [2, 6, 7, 8, 3], [2, 9, 3]]
LABELS = np.array([0, 1, 2, 0])
CONFIG = FastBertConfig(30, 8, 1, 2, feedforward_size=2, depth=2, positions=8, classes=3)


def test_a_step_and_its_dropout_depend_on_the_moment_only():
    model = FastBertForSequenceClassification(CONFIG, rng=0)
    target = TextObjective(model, TOKENS, LABELS, BatchOrder(4, 4), np.arange(4), padding_id=0)
    results = [target.step(Moment(0, 0.0, np.random.default_rng(seed))) for seed in (1, 1, 2)]
    assert results[0].loss == results[1].loss != results[2].loss
    assert results[0].rows == 4
    assert sorted(results[0].grads) == sorted(model.params)


@pytest.mark.parametrize("pooler", POOLERS)
def test_figures_are_those_of_texts_one_by_one(pooler):
    config = dataclasses.replace(CONFIG, pooler=pooler, initial_std=0.3)
    model = FastBertForSequenceClassification(config, rng=0)
    logits = np.concatenate([model([row]) for row in TOKENS]).astype(np.float64)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    figures = text_figures(model, TOKENS, LABELS, 0)
    assert figures["loss"] == pytest.approx(-np.log(chances[np.arange(4), LABELS]).mean(), rel=1e-5)
    assert figures["accuracy"] == (logits.argmax(axis=1) == LABELS).mean()


def test_figures_of_a_regression():
    config = FastBertConfig(30, 8, 1, 2, feedforward_size=2, depth=2, positions=8, classes=1)
    model = FastBertForSequenceClassification(config, rng=0)
    numbers = np.array([0.5, -1.0, 2.0, 0.0])
    outputs = np.array([model([row])[0, 0] for row in TOKENS])
    figures = text_figures(model, TOKENS, numbers, 0)
    assert figures == {"loss": pytest.approx(np.square(outputs - numbers).mean(), rel=1e-5)}


def test_a_label_for_each_text():
    with pytest.raises(ShapeError, match="'labels' must have 4 rows, got 3"):
        TextObjective(None, TOKENS, LABELS[:3], BatchOrder(4, 4), np.arange(4), padding_id=0)
