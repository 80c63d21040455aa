"""BertEncoder against numbers of Hugging Face's transformers, and against differences."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest

from fffcpu.checkpoints import bert
from fffcpu.checkpoints.safetensors import SafetensorsFile
from fffcpu.config.bert import BertConfig
from fffcpu.errors import ArgumentError, ArgumentTypeError, CheckpointError, ShapeError
from fffcpu.models import BertEncoder, FastBertForMaskedLM
from fffcpu.parameters import RowGradient
from tests.support.finite_differences import check_gradients
from tests.support.paths import ROOT

GOLDEN = ROOT / "tests/golden/bert_tiny"
"""A BertForMaskedLM of transformers 5.24.0 in float64; tokens, hidden states and gradients."""


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "expected.npz") as file:
        return dict(file)


def test_hidden_states_are_those_of_transformers(golden):
    model = BertEncoder.from_pretrained(GOLDEN, np.float64)
    ids, mask, types = (golden[name] for name in ("input_ids", "attention_mask", "token_type_ids"))
    real = mask == 1
    np.testing.assert_allclose(model(ids, mask, types)[real], golden["hidden"][real], atol=1e-11)
    found = model(ids, mask)[real]
    np.testing.assert_allclose(found, golden["hidden_without_types"][real], atol=1e-11)
    single = BertEncoder.from_pretrained(GOLDEN)
    np.testing.assert_allclose(single(ids, mask, types)[real], golden["hidden"][real], atol=1e-4)


def test_feedforwards_are_those_of_a_call(golden):
    model = BertEncoder.from_pretrained(GOLDEN, np.float64)
    ids, mask = golden["input_ids"], golden["attention_mask"]
    pairs = list(model.feedforwards(ids, mask))
    for layer, (x, y) in zip(model.layers, pairs, strict=True):
        np.testing.assert_allclose(y, layer.feedforward(x) + layer.bias_out, atol=1e-12)
    x, y = pairs[-1]
    np.testing.assert_allclose(model.layers[-1].norm2(x + y), model(ids, mask), atol=1e-12)


def test_gradients_are_those_of_transformers(golden):
    model = BertEncoder.from_pretrained(GOLDEN, np.float64)
    hidden, cache = model.forward(
        golden["input_ids"], golden["attention_mask"], golden["token_type_ids"]
    )
    real = golden["attention_mask"] == 1
    np.testing.assert_allclose(hidden[real], golden["hidden"][real], atol=1e-11)
    grads = model.backward(golden["d_hidden"], cache)
    assert list(grads) == list(model.params)
    found = bert.views(model.config, grads)
    expected = {n.removeprefix("grad."): a for n, a in golden.items() if n.startswith("grad.")}
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=1e-10, err_msg=name)


TREES = BertConfig(
    20, 6, 2, 2, feedforward="fff", feedforward_size=2, depth=2, positions=5, dtype="float64"
)


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_gradients_with_trees(two_sided, activation):
    config = dataclasses.replace(TREES, two_sided=two_sided, activation=activation, initial_std=0.5)
    model, rng = BertEncoder(config, rng=0), np.random.default_rng(1)
    for array in model.params.values():
        array += 0.1 * rng.standard_normal(array.shape)
    ids, mask = rng.integers(1, 20, (2, 4)), np.array([[1, 1, 1, 1], [1, 1, 0, 0]])
    dy = rng.standard_normal((2, 4, 6)) * mask[..., np.newaxis]
    hidden, cache = model.forward(ids, mask)
    np.testing.assert_allclose(hidden[mask == 1], model(ids, mask)[mask == 1], atol=1e-12)
    grads = model.backward(dy, cache)
    pairs = [(model.params[name], grad) for name, grad in grads.items()]
    check_gradients(lambda: (model(ids, mask) * dy).sum(), pairs)
    sparse = model.backward(dy, cache, row_sparse=True, straight_through=True)
    assert isinstance(sparse["encoder.layers.0.feedforward.weights_in"], RowGradient)


def test_dropout_is_drawn_from_its_seed():
    model = BertEncoder(TREES, rng=0)
    ids = np.arange(1, 5)[np.newaxis]
    first, cache = model.forward(ids, rng=3)
    np.testing.assert_array_equal(first, model.forward(ids, rng=3)[0])
    assert np.abs(first - model(ids)).max() > 1e-3
    assert model.backward(np.ones((1, 4, 6)), cache).keys() == model.params.keys()


@pytest.mark.parametrize("feedforward", ["ff", "fff"])
def test_a_folder_gives_the_same_model(feedforward, tmp_path):
    config = dataclasses.replace(
        TREES, feedforward=feedforward, pooling="start", normalize=True, cut=4
    )
    model = BertEncoder(config, rng=0)
    model.save_pretrained(tmp_path)
    found = BertEncoder.from_pretrained(tmp_path, np.float64)
    assert found.config == model.config
    for name, array in model.params.items():
        np.testing.assert_array_equal(found.params[name], array)


def test_a_dense_model_is_written_as_transformers_reads_it(tmp_path):
    model = BertEncoder.from_pretrained(GOLDEN, np.float64)
    model.save_pretrained(tmp_path)
    published, ours = (SafetensorsFile(place / "model.safetensors") for place in (GOLDEN, tmp_path))
    assert {f"bert.{name}" for name in ours} == {n for n in published if n.startswith("bert.")}
    for name in ours:
        np.testing.assert_array_equal(ours[name], published[f"bert.{name}"])


KEY = "encoder.layer.0.attention.self.key.weight"


def state():
    return {name: np.array(a) for name, a in SafetensorsFile(GOLDEN / "model.safetensors").items()}


def test_names_of_old_files_are_read():
    config = BertEncoder.from_pretrained(GOLDEN, np.float64).config
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): a
        for name, a in state().items()
    }
    old["bert.embeddings.position_ids"] = np.arange(12)[np.newaxis]
    expected = bert.from_state_dict(config, state(), encoder_only=True)
    found = bert.from_state_dict(config, old, encoder_only=True)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("bert.encoder.layer.1.output.dense.bias"), "missing 'encoder.layer.1.out"),
        (lambda s: s.update(extra=np.ones(3)), "unexpected 'extra'"),
        (
            lambda s: s.update({"bert.embeddings.LayerNorm.bias": np.ones(3)}),
            r"'embeddings.LayerNorm.bias' must be \(24,\), got \(3,\)",
        ),
        (
            lambda s: s.update(
                {"bert.encoder.layer.0.attention.self.key.weight": np.ones((9, 64))}
            ),
            r"key.weight' must be \(24, 24\), got \(9, 64\)",
        ),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    config = BertEncoder.from_pretrained(GOLDEN, np.float64).config
    wrong = state()
    change(wrong)
    with pytest.raises(CheckpointError, match=message):
        bert.from_state_dict(config, wrong, encoder_only=True)


def test_other_models_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="a BertConfig, and FastBertForMaskedLM"):
        FastBertForMaskedLM.from_pretrained(GOLDEN)
    shutil.copytree(ROOT / "tests/golden/crammed_fff_mlm", tmp_path / "model")
    with pytest.raises(CheckpointError, match="is a FastBertConfig, and BertEncoder needs"):
        BertEncoder.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([[1, 99]],), ArgumentError, "'input_ids'"),
        (([[1, 2]], [[1, 2]]), ArgumentError, "'attention_mask'"),
        (([[1, 2]], None, [[0, 5]]), ArgumentError, "'token_type_ids'"),
        (([[1] * 6],), ShapeError, "1 to 5 positions"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, message):
    model = BertEncoder(TREES, rng=0)
    for function in (model, model.forward):
        with pytest.raises(error, match=message):
            function(*arguments)


def test_another_cache_is_named():
    model = BertEncoder(TREES, rng=0)
    with pytest.raises(ArgumentTypeError, match="BertEncoderCache"):
        model.backward(np.ones((1, 1, 6)), None)


def test_the_pooler_of_a_folder_is_kept(tmp_path):
    published = SafetensorsFile(ROOT / "tests/golden/bert_tiny_cls/model.safetensors")
    model = BertEncoder.from_pretrained(ROOT / "tests/golden/bert_tiny_cls", np.float64)
    weights = published["bert.pooler.dense.weight"]
    np.testing.assert_array_equal(model.params["pooler.weights"], weights)
    model.save_pretrained(tmp_path)
    found = BertEncoder.from_pretrained(tmp_path, np.float64)
    assert found.config == model.config
    np.testing.assert_array_equal(found.params["pooler.weights"], weights)
    hidden, cache = found.forward([[5, 7]])
    grads = found.backward(np.ones_like(hidden), cache)
    assert list(grads) == list(found.params)
    assert not grads["pooler.weights"].any()
    assert grads["encoder.layers.1.bias_out"].any()


def test_a_new_pooler_has_initial_values():
    model = BertEncoder(dataclasses.replace(TREES, head="pooler"), rng=0)
    assert model.params["pooler.weights"].std() > 0.01
    assert not model.params["pooler.bias"].any()
