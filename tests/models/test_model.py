"""Folders of models: written, opened again, and those that hold something else."""

from __future__ import annotations

import json
import os
import shutil
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from safetensors.numpy import load_file, save_file

from fffcpu.errors import ArgumentTypeError, CheckpointError
from fffcpu.models import (
    FastBertConfig,
    FastBertEncoder,
    FastBertForMaskedLM,
    FastBertForSequenceClassification,
)
from tests.config.test_fastbert import CONFIGS
from tests.support.golden_models import GOLDEN

NAMES = ["crammed_dense_mlm", "crammed_fff_cls", "crammed_fff_mlm"]


def class_of(config):
    return FastBertForMaskedLM if config.classes is None else FastBertForSequenceClassification


@pytest.fixture
def folder(tmp_path):
    """A copy of a published folder, to be spoilt."""
    return shutil.copytree(GOLDEN / "crammed_fff_mlm", tmp_path / "model")


@given(config=CONFIGS)
def test_a_saved_model_is_opened_as_it_was(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "new" / "model"
    model = class_of(config)(config, rng=0)
    model.save_pretrained(folder)
    assert sorted(os.listdir(folder)) == ["config.json", "model.safetensors"]
    again = class_of(config).from_pretrained(folder, config.dtype)
    assert again.config == model.config
    for name, array in model.params.items():
        np.testing.assert_array_equal(again.params[name], array)
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_published_folder_is_written_as_it_was(name, tmp_path):
    config = json.loads((GOLDEN / name / "config.json").read_text())
    kind = FastBertForSequenceClassification if name.endswith("cls") else FastBertForMaskedLM
    kind.from_pretrained(GOLDEN / name).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["arch"] == config["arch"]
    expected = load_file(GOLDEN / name / "model.safetensors")
    found = load_file(tmp_path / "model.safetensors")
    assert set(found) == set(expected)
    for key, array in expected.items():
        np.testing.assert_allclose(found[key], array, rtol=1e-7, atol=0)


def test_saving_replaces_a_model(tmp_path):
    model = FastBertForMaskedLM.from_pretrained(GOLDEN / "crammed_fff_mlm")
    model.save_pretrained(tmp_path)
    model.params["encoder.final_norm.bias"][...] = 7
    model.save_pretrained(tmp_path)
    again = FastBertForMaskedLM.from_pretrained(tmp_path)
    assert (again.params["encoder.final_norm.bias"] == 7).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float64_is_kept(tmp_path, dtype):
    config = FastBertConfig(9, 4, 1, 2, feedforward_size=1, depth=2, dtype="float64")
    model = FastBertForMaskedLM(config, rng=0)
    model.save_pretrained(tmp_path)
    again = FastBertForMaskedLM.from_pretrained(tmp_path, dtype)
    words = "encoder.embedding.words"
    np.testing.assert_array_equal(again.params[words], model.params[words].astype(dtype))


@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_is_opened_from_any_folder(name, tmp_path):
    ids = np.arange(1, 9).reshape(2, 4)
    encoder = FastBertEncoder.from_pretrained(GOLDEN / name)
    kind = FastBertForSequenceClassification if name.endswith("cls") else FastBertForMaskedLM
    model = kind.from_pretrained(GOLDEN / name)
    np.testing.assert_array_equal(encoder(ids), model.encoder(ids))
    encoder.save_pretrained(tmp_path)
    again = FastBertForMaskedLM.from_pretrained(tmp_path)
    np.testing.assert_array_equal(again.encoder(ids), encoder(ids))


def test_a_folder_with_a_decoder_only(folder):
    state = load_file(folder / "model.safetensors")
    words = state.pop("encoder.embedding.word_embedding.weight")
    save_file(state | {"decoder.weight": words}, folder / "model.safetensors")
    for kind in (FastBertForMaskedLM, FastBertEncoder):
        found = kind.from_pretrained(folder).params["encoder.embedding.words"]
        np.testing.assert_array_equal(found, words)


def test_opening_takes_little_more_memory_than_the_model(tmp_path):
    config = FastBertConfig(2000, 64, 8, 2, feedforward_size=2, depth=6)
    FastBertForMaskedLM(config, rng=0).save_pretrained(tmp_path)
    tracemalloc.start()
    model = FastBertForMaskedLM.from_pretrained(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.2 * model.nbytes


def test_what_a_folder_lacks_or_has_too_much_is_listed(folder):
    state = load_file(folder / "model.safetensors")
    del state["encoder.final_norm.weight"]
    state["encoder.layers.0.ffn.linear_in.bias"] = np.zeros(5, np.float32)
    save_file(state | {"head.bias": np.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        FastBertForMaskedLM.from_pretrained(folder)
    for part in (
        f"folder '{folder}'",
        "missing 'encoder.final_norm.weight'",
        "unexpected 'head.bias'",
        "'encoder.layers.0.ffn.linear_in.bias' must be (93,), got (5,)",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "kind", [FastBertEncoder, FastBertForMaskedLM, FastBertForSequenceClassification]
)
def test_what_is_no_config_is_an_error(kind):
    with pytest.raises(ArgumentTypeError, match=r"'config' must be a FastBertConfig, got \{\}"):
        kind({})


def test_the_wrong_model_is_an_error():
    with pytest.raises(CheckpointError, match=r"unexpected 'head\.bias'"):
        FastBertForMaskedLM.from_pretrained(GOLDEN / "crammed_fff_cls")
    with pytest.raises(CheckpointError, match=r"holds another model: .*'classes' of a classifier"):
        FastBertForSequenceClassification.from_pretrained(GOLDEN / "crammed_fff_mlm")


def test_another_dtype_is_an_error(folder):
    with pytest.raises(ValueError, match="'dtype' must be float32 or float64"):
        FastBertForMaskedLM.from_pretrained(folder, np.float16)
