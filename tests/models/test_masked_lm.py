"""FastBertForMaskedLM against the published models, and its gradients."""

from __future__ import annotations

import numpy as np
import pytest

from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError
from fffcpu.models import FastBertConfig, FastBertForMaskedLM
from tests.support.finite_differences import check_gradients
from tests.support.golden_models import (
    GOLDEN,
    assert_close,
    check_outputs,
    check_training,
    expected_of,
)
from tests.support.golden_models import check_gradients as check_published_gradients

NAMES = pytest.mark.parametrize("name", ["crammed_fff_mlm", "crammed_dense_mlm"])
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def model_of(**changes):
    fields = {"vocabulary": 13, "width": 8, "layers": 1, "heads": 2, "feedforward_size": 2}
    fields |= {"depth": 2, "positions": 6, "initial_std": 0.5, "dtype": "float64"}
    return FastBertForMaskedLM(FastBertConfig(**(fields | changes)), rng=0)


def batch_of():
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 13, (3, 5))
    labels = np.where(rng.random((3, 5)) < 0.5, rng.integers(0, 13, (3, 5)), -100)
    return ids, labels


@NAMES
@DTYPES
def test_published_logits(name, dtype):
    check_outputs(FastBertForMaskedLM.from_pretrained(GOLDEN / name, dtype), expected_of(name))


@NAMES
@DTYPES
def test_published_loss_and_gradients(name, dtype):
    model = FastBertForMaskedLM.from_pretrained(GOLDEN / name, dtype)
    check_published_gradients(model, expected_of(name))


@pytest.mark.slow
@NAMES
@DTYPES
def test_published_training(name, dtype):
    model = FastBertForMaskedLM.from_pretrained(GOLDEN / name, dtype)
    check_training(model, expected_of(name))


def test_gradients():
    model, (ids, labels) = model_of(), batch_of()
    ids[ids == 0] = 1  # whose gradient is no slope

    def loss():
        return model.forward(ids, labels=labels)[0]

    _, cache = model.forward(ids, labels=labels)
    assert np.abs(cache.encoder.layers[0].feedforward.logits).min() > 1e-4
    grads = model.backward(cache)
    assert list(grads) == list(model.params)
    check_gradients(loss, [(model.params[name], grad) for name, grad in grads.items()])


def test_padding_learns_from_the_decoder_only():
    model, (_, labels) = model_of(), batch_of()
    ids = np.zeros((3, 5), int)
    _, cache = model.forward(ids, labels=labels)
    grad = model.backward(cache)["encoder.embedding.words"]
    np.testing.assert_allclose(grad[0], (cache.d_logits.T @ cache.hidden)[0], atol=1e-12)
    assert np.abs(grad[0]).max() > 1e-3


def test_the_loss_is_the_mean_over_labelled_positions():
    model, (ids, labels) = model_of(), batch_of()
    logits = model(ids)
    assert logits.shape == (3, 5, 13)
    p = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    places = np.argwhere(labels != -100)
    expected = -np.mean([np.log(p[b, s, labels[b, s]]) for b, s in places])
    loss, cache = model.forward(ids, labels=labels)
    assert_close(loss, expected, 1e-10)
    assert cache.d_logits.shape == (len(places), 13)


def test_without_a_label_there_is_nothing_to_learn():
    model, (ids, _) = model_of(), batch_of()
    loss, cache = model.forward(ids, labels=np.full((3, 5), -100))
    assert loss == 0.0
    assert not any(grad.any() for grad in model.backward(cache).values())
    loss, cache = model.forward(ids[:0], labels=ids[:0])
    assert loss == 0.0
    assert set(model.backward(cache)) == set(model.params)


def test_the_encoder_has_the_same_arrays():
    model, (ids, _) = model_of(), batch_of()
    assert set(model.encoder.params) == set(model.params)
    words = model.params["encoder.embedding.words"]
    assert words is model.encoder.embedding.params["words"]
    np.testing.assert_allclose(model(ids), model.encoder(ids) @ words.T, atol=1e-12)


def test_classes_do_not_matter():
    assert model_of(classes=3).config == model_of().config


def test_wrong_labels_are_errors():
    model, (ids, labels) = model_of(), batch_of()
    with pytest.raises(ShapeError, match=r"'labels' must have shape \(3, 5\), got shape \(3, 4\)"):
        model.forward(ids, labels=labels[:, 1:])
    with pytest.raises(
        ArgumentError, match="from 0 to 12, or -100 where there is no label, got 13"
    ):
        model.forward(ids, labels=np.full((3, 5), 13))
    with pytest.raises(ArgumentTypeError, match="'labels' must hold integers"):
        model.forward(ids, labels=labels.astype(float))
    with pytest.raises(ArgumentTypeError, match="'cache' must be the MaskedLMCache"):
        model.backward(None)
