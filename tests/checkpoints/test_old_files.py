"""Files that earlier versions wrote are read, and compute what they computed (docs/stable.md)."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import fffcpu
from fffcpu import Predictor
from fffcpu.checkpoints import native
from fffcpu.errors import CheckpointError
from fffcpu.models import FastBertForMaskedLM, FastBertForSequenceClassification
from tests.support.paths import GOLDEN

FILES = GOLDEN / "version_1"
EXPECTED = np.load(FILES / "expected.npz")
LAYERS = sorted(path.stem for path in FILES.glob("*.safetensors"))
PREDICTORS = [name for name in LAYERS if name.startswith("predictor_")]
MODELS = {
    "masked_lm": FastBertForMaskedLM,
    "sequence_classification": FastBertForSequenceClassification,
}


def check(found, name):
    expected = EXPECTED[name]
    assert found.dtype == expected.dtype
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)
    else:
        assert found.tolist() == expected.tolist()


def test_there_is_a_file_of_every_kind_and_version():
    kinds = {native.load(FILES / f"{name}.safetensors")[0].kind for name in LAYERS}
    assert kinds == set(fffcpu.layers.LAYERS) - set(native.FIRST_VERSIONS)
    assert native.READ_VERSIONS == (1, 2, 3)


@pytest.mark.parametrize("name", [name for name in LAYERS if name not in PREDICTORS])
def test_layer_is_read(name):
    check(fffcpu.load(FILES / f"{name}.safetensors")(EXPECTED["x"]), name)


@pytest.mark.parametrize("name", [name for name in LAYERS if name not in PREDICTORS])
def test_layer_is_saved_in_the_version_that_it_needs_and_stays_the_same(name, tmp_path):
    layer, path = fffcpu.load(FILES / f"{name}.safetensors"), tmp_path / "new.safetensors"
    layer.save(path)
    version = native.read_note(path, native.METADATA_KEY)["version"]
    assert version == (2 if "int8" in name else 1)
    if version == 1:
        assert path.read_bytes() == (FILES / f"{name}.safetensors").read_bytes()
    again = fffcpu.load(path)
    assert dict(layer.params).keys() == dict(again.params).keys()
    for key, array in layer.params.items():
        np.testing.assert_array_equal(again.params[key], array)


def test_unfinished_run_of_other_rules_is_refused_and_kept(command, tmp_path):
    """`fffcpu train --layer node`, as the layer was called then, stopped after 40 of 140 steps.

    Its rows were held out by other rules, so that no continuation has the bits of an unbroken run.
    """
    folder = shutil.copytree(FILES / "unfinished", tmp_path / "unfinished")
    out = folder / "run.safetensors"
    options = "--target y --layer node --depth 2 --trees 2 --epochs 20 --batch-size 16 --resume"
    status, _, err = command("train", folder / "table.csv", *options.split(), "--out", out)
    assert status == 1
    assert "is from another run: 'clip' was None and is True" in err
    assert list((folder / "run.safetensors.training").glob("checkpoint-*"))
    finished = fffcpu.load(folder / "finished.safetensors")
    assert finished.config.input_dim == 4


def test_former_array_of_a_wrong_shape_is_refused(tmp_path):
    arrays = load_file(FILES / "QuantizedFastFeedForward_int8.safetensors")
    arrays["terms"] = arrays["terms"][..., :2].copy()
    with safe_open(FILES / "QuantizedFastFeedForward_int8.safetensors", framework="np") as file:
        save_file(arrays, tmp_path / "wrong", file.metadata())
    with pytest.raises(CheckpointError, match=r"'terms' must be float32 \(2, 7, 3\), got"):
        fffcpu.load(tmp_path / "wrong")


def test_a_kind_of_version_2_in_a_file_of_version_1_is_refused(tmp_path):
    """Its arrays would be taken for others that version 1 stores as one."""
    path = tmp_path / "layer"
    fffcpu.DenseFeedForward(3, 2, 2, rng=0).quantize("int8").save(path)
    assert native.read_note(path, native.METADATA_KEY)["version"] == 2
    with safe_open(path, framework="np") as file:
        text = file.metadata()[native.METADATA_KEY]
    old = {native.METADATA_KEY: text.replace('"version": 2', '"version": 1')}
    save_file(load_file(path), path, old)
    with pytest.raises(CheckpointError, match="has version 1 of the format, which has no Quantiz"):
        fffcpu.load(path)


@pytest.mark.parametrize("name", PREDICTORS)
def test_predictor_is_read(name):
    predictor = Predictor.load(FILES / f"{name}.safetensors")
    check(np.asarray(predictor.predict(EXPECTED["x"])), name)


@pytest.mark.parametrize("name", MODELS)
def test_model_is_read(name):
    model = MODELS[name].from_pretrained(FILES / name)
    check(model(EXPECTED["input_ids"]), name)
    assert model.config.labels == (("no", "yes") if name == "sequence_classification" else None)
