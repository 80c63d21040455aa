"""Masked language models against published ones, and their gradients."""

from __future__ import annotations

import numpy as np
import pytest

from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError
from fffcpu.models import (
    BertConfig,
    BertForMaskedLM,
    FastBertConfig,
    FastBertForMaskedLM,
)
from tests.support.finite_differences import check_gradients
from tests.support.golden_models import (
    GOLDEN,
    assert_close,
    check_bert,
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


# --- BERT -----------------------------------------------------------------------------------------

BERT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@DTYPES
def test_a_bert_computes_what_transformers_does(dtype):
    inputs = [expected_of("bert_tiny")[name] for name in BERT_INPUTS]
    model = BertForMaskedLM.from_pretrained(GOLDEN / "bert_tiny", dtype)
    data = expected_of("bert_tiny", "expected_masked_lm.npz")
    check_bert(model, inputs, data, exact=dtype == np.float64)
    chosen = data["labels"] != -100
    found = model.logits_at(inputs[0], chosen, *inputs[1:])
    assert_close(found, data["logits"][chosen], 1e-12 if dtype == np.float64 else 1e-4)


def bert_of(**changes):
    """A BERT with trees whose biases, norms and types are not those of a new one."""
    fields = {"feedforward": "fff", "feedforward_size": 2, "depth": 2, "positions": 6}
    config = BertConfig(13, 8, 1, 2, **(fields | changes), initial_std=0.5, dtype="float64")
    model, rng = BertForMaskedLM(config, rng=0), np.random.default_rng(1)
    for array in model.params.values():
        array += 0.1 * rng.standard_normal(array.shape)
    return model


@pytest.mark.parametrize("feedforward", ["ff", "fff"])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_gradients_of_a_bert(feedforward, activation):
    model, (ids, labels) = bert_of(feedforward=feedforward, activation=activation), batch_of()
    ids[ids == 0] = 1
    mask, types = np.ones((3, 5)), np.random.default_rng(2).integers(0, 2, (3, 5))
    mask[1, 3:] = 0
    inputs = (ids, mask, types)

    def loss():
        return model.forward(*inputs, labels=labels)[0]

    grads = model.backward(model.forward(*inputs, labels=labels)[1])
    assert list(grads) == list(model.params)
    check_gradients(loss, [(model.params[name], grad) for name, grad in grads.items()])


def test_a_saved_bert_is_opened_as_it_was(tmp_path):
    model = bert_of(two_sided=True)
    model.save_pretrained(tmp_path)
    found = BertForMaskedLM.from_pretrained(tmp_path, np.float64)
    assert found.config == model.config
    assert list(found.params) == list(model.params)
    for name, array in model.params.items():
        np.testing.assert_array_equal(found.params[name], array)


def test_only_tokens_of_a_bert_have_types():
    ids, labels = batch_of()
    types = np.ones((3, 5), int)
    bert = bert_of()
    assert np.abs(bert(ids) - bert(ids, token_type_ids=types)).max() > 1e-3
    calls = (
        lambda model: model(ids, None, types),
        lambda model: model.logits_at(ids, labels != -100, None, types),
        lambda model: model.forward(ids, None, types, labels=labels),
    )
    for call in calls:
        call(bert)
        with pytest.raises(ArgumentError, match="'token_type_ids' must be None for a FastBERT"):
            call(model_of())
