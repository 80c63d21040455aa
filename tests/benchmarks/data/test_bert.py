"""BERT's forward, compared with one that computes a token at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.data.bert import Bert, hidden_states, mean_pooled
from fffcpu.errors import CheckpointError
from fffcpu.text.padding import padded
from tests.benchmarks.data.bert_support import HEADS, LAYERS, WIDTH, random_weights, write_bert

TEXTS = [[3, 1, 4, 1, 5], [9, 2], [6, 5, 3, 5]]


def slowly(weights, ids):
    """The hidden states of one text, by the definitions: a token and a head at a time, float64."""
    w = {name: array.astype(float) for name, array in weights.items()}

    def norm(row, name):
        centred = row - row.sum() / len(row)
        deviation = math.sqrt(sum(value**2 for value in centred) / len(row) + 1e-12)
        return centred / deviation * w[f"{name}.LayerNorm.weight"] + w[f"{name}.LayerNorm.bias"]

    def linear(row, name):
        return w[f"{name}.weight"] @ row + w[f"{name}.bias"]

    def gelu(value):
        return value * (1 + math.erf(value / math.sqrt(2))) / 2

    def attention(x, name):
        query, key, value = (
            [linear(row, f"{name}.self.{part}") for row in x] for part in ("query", "key", "value")
        )
        size = WIDTH // HEADS
        for token in range(len(x)):
            mixed = np.zeros(WIDTH)
            for own in (slice(head * size, (head + 1) * size) for head in range(HEADS)):
                scores = [math.exp(query[token][own] @ row[own] / math.sqrt(size)) for row in key]
                for other, score in enumerate(scores):
                    mixed[own] += score / sum(scores) * value[other][own]
            yield linear(mixed, f"{name}.output.dense")

    words, positions, types = (
        w[f"embeddings.{kind}_embeddings.weight"] for kind in ("word", "position", "token_type")
    )
    x = [norm(words[i] + positions[k] + types[0], "embeddings") for k, i in enumerate(ids)]
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        mixed = list(attention(x, f"{name}.attention"))
        x = [norm(x[k] + mixed[k], f"{name}.attention.output") for k in range(len(x))]
        for k, row in enumerate(x):
            hidden = np.array([gelu(value) for value in linear(row, f"{name}.intermediate.dense")])
            x[k] = norm(row + linear(hidden, f"{name}.output.dense"), f"{name}.output")
    return np.array(x)


def test_the_forward_is_that_of_the_definitions():
    weights = random_weights(10)
    ids, real = padded(TEXTS, padding_id=0)
    hidden = hidden_states(Bert(weights, LAYERS, HEADS, 1e-12), ids, real)
    assert hidden.dtype == np.float32
    for own, some, text in zip(hidden, real, TEXTS, strict=True):
        np.testing.assert_allclose(own[some], slowly(weights, text), atol=2e-5)


def test_feedforwards_can_be_replaced():
    model = Bert(random_weights(10), LAYERS, HEADS, 1e-12)
    ids, real = padded(TEXTS, padding_id=0)
    seen = []

    def feedforward(layer, x):
        seen.append((layer, x.shape))
        return np.zeros_like(x)

    hidden = hidden_states(model, ids, real, feedforward)
    assert seen == [(layer, (3, 5, WIDTH)) for layer in range(LAYERS)]
    assert np.abs(hidden - hidden_states(model, ids, real)).max() > 0.1


def test_embeddings_are_means_of_tokens_without_padding():
    hidden = np.random.default_rng(0).standard_normal((2, 3, 4))
    real = np.array([[True, True, False], [True, True, True]])
    expected = [hidden[0, :2].mean(axis=0), hidden[1].mean(axis=0)]
    found = mean_pooled(hidden, real)
    np.testing.assert_allclose(found, [row / np.linalg.norm(row) for row in expected])


def test_other_models_are_refused(tmp_path):
    write_bert(tmp_path, 10)
    model = Bert.load(tmp_path)
    assert (model.layers, model.heads, model.width) == (LAYERS, HEADS, WIDTH)
    write_bert(tmp_path, 10, hidden_act="gelu_new")
    with pytest.raises(CheckpointError, match=r"config.json' must describe a bert with gelu, got"):
        Bert.load(tmp_path)
