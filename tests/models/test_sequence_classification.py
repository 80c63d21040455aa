"""Classifiers against published ones; regression; gradients."""

from __future__ import annotations

import numpy as np
import pytest

from fffcpu.config.encoder import POOLERS
from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError
from fffcpu.models import (
    BertConfig,
    BertForSequenceClassification,
    FastBertConfig,
    FastBertForSequenceClassification,
)
from tests.support.finite_differences import check_gradients
from tests.support.golden_models import (
    GOLDEN,
    check_bert,
    check_outputs,
    check_training,
    expected_of,
)
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


@pytest.mark.parametrize("model", [model_of(), model_of(dtype="float32")])
def test_the_loss_of_probabilities_is_their_cross_entropy(model):
    certain = np.eye(3)[[0, 1, 2, 1]]
    losses = [model.forward(IDS, labels=labels)[0] for labels in (certain, [0, 1, 2, 1])]
    assert np.isclose(*losses)
    p = np.random.default_rng(0).dirichlet(np.ones(3), 4)
    logits = model(IDS).astype(np.float64)
    own = np.log(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    loss, cache = model.forward(IDS, labels=p)
    assert np.isclose(loss, -(p * own).sum(axis=1).mean())
    assert {grad.dtype for grad in model.backward(cache).values()} == {np.dtype(model.config.dtype)}


def test_gradients_of_the_loss_of_probabilities():
    model = model_of()
    labels = np.random.default_rng(0).dirichlet(np.ones(3), 4)
    grads = model.backward(model.forward(IDS, labels=labels)[1])
    pairs = [(model.params[name], grad) for name, grad in grads.items()]
    check_gradients(lambda: model.forward(IDS, labels=labels)[0], pairs)


def test_the_loss_of_a_regression_is_the_mean_squared_error():
    model = model_of(classes=1)
    predictions = model(IDS)
    assert predictions.shape == (4, 1)
    loss, _ = model.forward(IDS, labels=[1, 2, 3, 4])
    assert np.isclose(loss, np.mean((predictions[:, 0] - [1, 2, 3, 4]) ** 2))


@pytest.mark.parametrize(("classes", "shape"), [(1, 0), (3, 0), (3, (0, 3))])
def test_an_empty_batch_has_no_loss(classes, shape):
    model = model_of(classes=classes)
    loss, cache = model.forward(IDS[:0], labels=np.empty(shape, int))
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
    shapes = r"'labels' must have shape \(4,\), or \(4, 3\) for probabilities, got shape \(4, 1\)"
    with pytest.raises(ShapeError, match=shapes):
        model.forward(IDS, labels=[[0], [1], [2], [2]])
    with pytest.raises(ArgumentError, match=r"probabilities with sum 1, got 2.0 at index 0"):
        model.forward(IDS, labels=np.ones((4, 3)) * [[2 / 3], [1 / 3], [1 / 3], [1 / 3]])
    with pytest.raises(ArgumentError, match="must hold finite numbers, got nan at index 3"):
        model_of(classes=1).forward(IDS, labels=[0, 1, 2, np.nan])
    with pytest.raises(ArgumentTypeError, match="'cache' must be the SequenceClassificationCache"):
        model.backward(None)


# --- BERT -----------------------------------------------------------------------------------------


@DTYPES
def test_a_bert_computes_what_transformers_does(dtype):
    data = expected_of("bert_tiny_cls")
    inputs = [data[name] for name in ("input_ids", "attention_mask", "token_type_ids")]
    model = BertForSequenceClassification.from_pretrained(GOLDEN / "bert_tiny_cls", dtype)
    assert model.config.labels == ("bad", "fair", "good")
    check_bert(model, inputs, data, exact=dtype == np.float64)


def bert_of(**changes):
    """A BERT with trees whose biases, norms and types are not those of a new one."""
    fields = {"feedforward": "fff", "feedforward_size": 2, "depth": 2, "positions": 6}
    fields |= {"classes": 3, "initial_std": 0.5, "dtype": "float64"}
    config = BertConfig(13, 8, 1, 2, **(fields | changes))
    model, rng = BertForSequenceClassification(config, rng=0), np.random.default_rng(1)
    for array in model.params.values():
        array += 0.1 * rng.standard_normal(array.shape)
    return model


@pytest.mark.parametrize("feedforward", ["ff", "fff"])
@pytest.mark.parametrize("pooler", ["zero_index", "avg"])
@pytest.mark.parametrize(("classes", "rng"), [(1, None), (3, None), (3, 5)])
def test_gradients_of_a_bert(feedforward, pooler, classes, rng):
    model = bert_of(feedforward=feedforward, pooler=pooler, classes=classes)
    labels = [0.5, -1.0, 2.0, 0.0] if classes == 1 else [0, 2, 1, 2]
    inputs = (IDS, np.ones((4, 5)), np.random.default_rng(2).integers(0, 2, (4, 5)))

    def loss():
        return model.forward(*inputs, labels=labels, rng=rng)[0]

    grads = model.backward(model.forward(*inputs, labels=labels, rng=rng)[1])
    assert list(grads) == list(model.params)
    check_gradients(loss, [(model.params[name], grad) for name, grad in grads.items()])


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": ("a", "b", "c"), "pooler": "avg"},
        {"labels": None},
        {"classes": 1, "feedforward": "ff", "depth": 0},
        {"classes": 2, "cut": 4, "classifier_dropout": 0.3},
    ],
    ids=str,
)
def test_a_saved_bert_is_opened_as_it_was(changes, tmp_path):
    model = bert_of(**changes)
    model.save_pretrained(tmp_path)
    found = BertForSequenceClassification.from_pretrained(tmp_path, np.float64)
    assert found.config == model.config
    for name, array in model.params.items():
        np.testing.assert_array_equal(found.params[name], array)


def test_a_bert_without_classes_is_no_classifier():
    with pytest.raises(ArgumentError, match="'classes' of a classifier's config must be"):
        bert_of(classes=None)
    assert bert_of(head="masked_lm").config == bert_of().config
