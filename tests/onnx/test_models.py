"""Exported FastBERTs compute what ours do, with padding, at any length."""

from __future__ import annotations

import numpy as np
import pytest

from fffcpu.models import (
    BertConfig,
    BertEncoder,
    BertForMaskedLM,
    BertForSequenceClassification,
    FastBertConfig,
    FastBertEncoder,
    FastBertForMaskedLM,
    FastBertForSequenceClassification,
)
from fffcpu.onnx import to_model
from tests.onnx.support import assert_close, run, session
from tests.support.golden_models import expected_of
from tests.support.paths import GOLDEN, PACKAGE

FEEDFORWARDS = {
    "a tree": {"depth": 5, "feedforward_size": 1},
    "two-sided trees": {"depth": 5, "feedforward_size": 2, "two_sided": True},
    "dense": {"feedforward": "ff", "feedforward_size": 40},
}


def config(feedforward="a tree", **options):
    sizes = FEEDFORWARDS[feedforward]
    return FastBertConfig(
        90, 24, 2, 3, positions=16, padding_id=0, initial_std=0.3, **sizes, **options
    )


def tokens(sequences=40, length=11):
    """Tokens, and a mask in which no two sequences are equally long."""
    ids = np.random.default_rng(0).integers(1, 90, (sequences, length))
    mask = (np.arange(length) <= np.arange(sequences)[:, np.newaxis] % length).astype(np.int64)
    return {"input_ids": ids * mask, "attention_mask": mask}


@pytest.mark.parametrize("feedforward", FEEDFORWARDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_hidden_states_of_an_encoder(feedforward, dtype):
    model, inputs = FastBertEncoder(config(feedforward, dtype=dtype), rng=0), tokens()
    found = run(model, **inputs)
    kept = inputs["attention_mask"].astype(bool)
    hidden = found.pop("last_hidden_state")
    assert not found
    assert_close(hidden[kept], model(**inputs)[kept], 1e-4 if dtype == "float32" else 1e-11)


@pytest.mark.parametrize("feedforward", FEEDFORWARDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_hidden_states_of_a_bert(feedforward, dtype):
    sizes = {"feedforward": "fff", **FEEDFORWARDS[feedforward]}
    config = BertConfig(90, 24, 2, 3, positions=16, initial_std=0.3, dtype=dtype, **sizes)
    model, rng, inputs = BertEncoder(config, rng=0), np.random.default_rng(1), tokens()
    for array in model.params.values():  # biases and types, too
        array += 0.1 * rng.standard_normal(array.shape)
    kept = inputs["attention_mask"].astype(bool)
    hidden = run(model, **inputs)["last_hidden_state"]
    assert_close(hidden[kept], model(**inputs)[kept], 1e-4 if dtype == "float32" else 1e-11)


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", [BertForMaskedLM, BertForSequenceClassification])
def test_the_logits_of_a_bert(kind, dtype, activation):
    sizes = {"feedforward": "fff", "depth": 3, "feedforward_size": 2, "classes": 3}
    how = {"initial_std": 0.3, "dtype": dtype, "activation": activation}
    model = kind(BertConfig(90, 24, 2, 3, positions=16, **sizes, **how), rng=0)
    rng, inputs = np.random.default_rng(1), tokens()
    for array in model.params.values():
        array += 0.1 * rng.standard_normal(array.shape)
    found, expected = run(model, **inputs)["logits"], model(**inputs)
    if kind is BertForMaskedLM:
        kept = inputs["attention_mask"].astype(bool)
        found, expected = found[kept], expected[kept]
    assert_close(found, expected, 1e-4 if dtype == "float32" else 1e-11)


@pytest.mark.parametrize("feedforward", FEEDFORWARDS)
def test_int8_weights_become_float_ones(feedforward):
    """Rows are not rounded in the exported model, so it is the widened one."""
    small, inputs = FastBertEncoder(config(feedforward), rng=0).quantize("int8"), tokens()
    kept = inputs["attention_mask"].astype(bool)
    hidden = run(small, **inputs)["last_hidden_state"]
    assert_close(hidden[kept], small.dequantize()(**inputs)[kept], 1e-4)


def test_the_logits_of_a_masked_language_model():
    model, inputs = FastBertForMaskedLM(config(), rng=0), tokens()
    kept = inputs["attention_mask"].astype(bool)
    assert_close(run(model, **inputs)["logits"][kept], model(**inputs)[kept])


@pytest.mark.parametrize("pooler", ["zero_index", "avg", "max", "lse"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_logits_of_a_classifier(pooler, dtype):
    options = {"classes": 3, "pooler": pooler, "head_width": 10, "labels": ("a", "b", "c")}
    model = FastBertForSequenceClassification(config(dtype=dtype, **options), rng=0)
    inputs = tokens()
    assert_close(run(model, **inputs)["logits"], model(**inputs))
    (labels,) = (i.value for i in to_model(model).metadata_props if i.key == "classes")
    assert labels == '["a", "b", "c"]'


def test_any_number_of_sequences_and_of_positions_will_do():
    model = FastBertForMaskedLM(config(), rng=0)
    found = session(to_model(model))
    for sequences, length in ((0, 3), (1, 1), (2, 16)):
        inputs = tokens(sequences, length)
        (logits,) = found.run(["logits"], inputs)
        assert logits.shape == (sequences, length, 90)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("crammed_fff_mlm", FastBertForMaskedLM),
        ("crammed_dense_mlm", FastBertForMaskedLM),
        ("crammed_fff_cls", FastBertForSequenceClassification),
    ],
)
def test_published_models_give_the_published_logits(name, kind):
    model, data = kind.from_pretrained(GOLDEN / name), expected_of(name)
    ids, mask = (data[key].astype(np.int64) for key in ("input_ids", "attention_mask"))
    for attention, expected in (
        (np.ones_like(mask), data["logits"]),
        (mask, data["logits_masked_attention"]),
    ):
        found = run(model, input_ids=ids, attention_mask=attention)["logits"]
        assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_the_file_of_a_real_model_takes_little_more_than_its_weights():
    model = FastBertForMaskedLM.from_pretrained(PACKAGE / "data" / "fastbert")
    exported = to_model(model)
    assert len(exported.SerializeToString()) <= 1.1 * model.nbytes
    ids = np.random.default_rng(0).integers(0, model.config.vocabulary, (4, 30))
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    (logits,) = session(exported).run(None, inputs)
    assert_close(logits.reshape(120, -1), model(ids).reshape(120, -1))
