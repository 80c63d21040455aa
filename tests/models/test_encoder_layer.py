"""EncoderLayer: pre-norm residuals, and the gradients through both branches."""

from __future__ import annotations

import numpy as np
import pytest

from fffcpu.layers import DenseFeedForward, FastFeedForward
from fffcpu.models import FastBertConfig, FastBertEncoder
from tests.support.finite_differences import check_gradients


def layer_of(feedforward="fff", **rates):
    """A layer with numbers that are not small, and hidden states."""
    fields = {"feedforward": feedforward, "feedforward_size": 3, "depth": 2, "dtype": "float64"}
    config = FastBertConfig(5, 8, 1, 2, **(fields | rates))
    model, rng = FastBertEncoder(config, rng=0), np.random.default_rng(1)
    for array in model.params.values():
        array[...] = 0.5 * rng.standard_normal(array.shape)
    return model.layers[0], rng.standard_normal((2, 3, 8))


@pytest.mark.parametrize("feedforward", ["fff", "ff"])
def test_it_adds_attention_then_feedforward(feedforward):
    layer, h = layer_of(feedforward)
    mask = np.array([[1, 1, 0], [1, 1, 1]])
    middle = h + layer.attention(layer.norm1(h), mask)
    expected = middle + layer.feedforward(layer.norm2(middle))
    before = h.copy()
    np.testing.assert_allclose(layer.forward(h, mask, None)[0], expected, atol=1e-12)
    np.testing.assert_array_equal(h, before)
    y = layer(h, mask)
    assert y is h
    np.testing.assert_allclose(y, expected, atol=1e-12)


@pytest.mark.parametrize("feedforward", ["fff", "ff"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients(feedforward, dropout):
    layer, h = layer_of(feedforward, dropout=dropout, attention_dropout=dropout)
    dy = np.random.default_rng(2).standard_normal(h.shape)

    def run():
        return layer.forward(h, None, np.random.default_rng(3))

    _, cache = run()
    if feedforward == "fff":
        assert np.abs(cache.feedforward.logits).min() > 1e-4  # no step below meets a tie
    dh, grads = layer.backward(dy, cache, False, False)
    params = {
        f"{part}.{name}": array
        for part in ("norm1", "attention", "norm2", "feedforward")
        for name, array in getattr(layer, part).params.items()
    }
    assert set(grads) == set(params)
    pairs = [(h, dh), *((params[name], grad) for name, grad in grads.items())]
    check_gradients(lambda: (run()[0] * dy).sum(), pairs)


def test_the_feedforward_is_one_choice():
    assert isinstance(layer_of("fff")[0].feedforward, FastFeedForward)
    assert isinstance(layer_of("ff")[0].feedforward, DenseFeedForward)
