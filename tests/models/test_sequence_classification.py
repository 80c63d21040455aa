"""FastBertForSequenceClassification against the published model; regression; gradients."""

from __future__ import annotations

import numpy as np
import pytest

from fffcpu.config.encoder import POOLERS
from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError
from fffcpu.models import FastBertConfig, FastBertForSequenceClassification
from tests.support.finite_differences import check_gradients
from tests.support.golden_models import GOLDEN, check_outputs, check_training, expected_of
from tests.support.golden_models import check_gradients as check_published_gradients

NAME = "crammed_fff_cls"
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def model_of(**changes):
    fields = {"vocabulary": 13, "width": 8, "layers": 1, "heads": 2, "feedforward_size": 2}
    fields |= {"depth": 2, "positions": 6, "initial_std": 0.5, "dtype": "float64", "classes": 3}
    fields |= {"head_width": 5}
    return FastBertForSequenceClassification(FastBertConfig(**(fields | changes)), rng=0)


IDS = np.random.default_rng(0).integers(1, 13, (4, 5))


def golden(dtype):
    return FastBertForSequenceClassification.from_pretrained(GOLDEN / NAME, dtype)


@DTYPES
def test_published_logits(dtype):
    check_outputs(golden(dtype), expected_of(NAME))


@DTYPES
def test_published_loss_and_gradients(dtype):
    check_published_gradients(golden(dtype), expected_of(NAME))


@pytest.mark.slow
@DTYPES
def test_published_training(dtype):
    check_training(golden(dtype), expected_of(NAME))


@pytest.mark.parametrize("pooler", POOLERS)
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("rng", [None, 5])
def test_gradients(pooler, classes, rng):
    model = model_of(pooler=pooler, classes=classes, classifier_dropout=0.3)
    labels = [0.5, -1.0, 2.0, 0.0] if classes == 1 else [0, 2, 1, 2]

    def loss():
        return model.forward(IDS, labels=labels, rng=rng)[0]

    _, cache = model.forward(IDS, labels=labels, rng=rng)
    assert np.abs(cache.encoder.layers[0].feedforward.logits).min() > 1e-4
    grads = model.backward(cache)
    assert list(grads) == list(model.params)
    check_gradients(loss, [(model.params[name], grad) for name, grad in grads.items()])


def test_the_loss_of_classes_is_their_cross_entropy():
    model = model_of()
    logits = model(IDS)
    assert logits.shape == (4, 3)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    loss, _ = model.forward(IDS, labels=[0, 1, 2, 1])
    assert np.isclose(loss, -np.log(p[np.arange(4), [0, 1, 2, 1]]).mean())


def test_the_loss_of_a_regression_is_the_mean_squared_error():
    model = model_of(classes=1)
    predictions = model(IDS)
    assert predictions.shape == (4, 1)
    loss, _ = model.forward(IDS, labels=[1, 2, 3, 4])
    assert np.isclose(loss, np.mean((predictions[:, 0] - [1, 2, 3, 4]) ** 2))


@pytest.mark.parametrize("classes", [1, 3])
def test_an_empty_batch_has_no_loss(classes):
    model = model_of(classes=classes)
    loss, cache = model.forward(IDS[:0], labels=np.empty(0, int))
    assert loss == 0.0
    assert {n: g.shape for n, g in model.backward(cache).items()} == model.config.shapes()


def test_the_encoder_has_the_same_arrays():
    model = model_of()
    assert set(model.params) - set(model.encoder.params) == {
        *("pooler.weights", "pooler.bias", "head.weights", "head.bias")
    }
    for name, array in model.encoder.params.items():
        assert array is model.params[name]
    assert model.encoder.config.classes is None


def test_wrong_arguments_are_errors():
    model = model_of()
    with pytest.raises(ArgumentError, match="'classes' of a classifier's config must be"):
        model_of(classes=None)
    with pytest.raises(ArgumentError, match="hold integers from 0 to 2, got 3 at index"):
        model.forward(IDS, labels=[0, 1, 2, 3])
    with pytest.raises(ArgumentError, match="hold integers from 0 to 2, got -100 at index"):
        model.forward(IDS, labels=[0, 1, 2, -100])
    with pytest.raises(ShapeError, match=r"'labels' must have shape \(4,\), got shape \(4, 1\)"):
        model.forward(IDS, labels=[[0], [1], [2], [2]])
    with pytest.raises(ArgumentError, match="must hold finite numbers, got nan at index 3"):
        model_of(classes=1).forward(IDS, labels=[0, 1, 2, np.nan])
    with pytest.raises(ArgumentTypeError, match="'cache' must be the SequenceClassificationCache"):
        model.backward(None)
