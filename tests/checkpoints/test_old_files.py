"""Files that earlier versions wrote are read, and compute what they computed (docs/stable.md)."""

from __future__ import annotations

import numpy as np
import pytest

import fffcpu
from fffcpu import Predictor
from fffcpu.checkpoints import native
from fffcpu.models import FastBertForMaskedLM, FastBertForSequenceClassification
from tests.support.paths import GOLDEN

FILES = GOLDEN / "files"
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
    assert kinds == set(fffcpu.layers.LAYERS)
    assert native.READ_VERSIONS == (1,)


@pytest.mark.parametrize("name", [name for name in LAYERS if name not in PREDICTORS])
def test_layer_is_read(name):
    check(fffcpu.load(FILES / f"{name}.safetensors")(EXPECTED["x"]), name)


@pytest.mark.parametrize("name", PREDICTORS)
def test_predictor_is_read(name):
    predictor = Predictor.load(FILES / f"{name}.safetensors")
    check(np.asarray(predictor.predict(EXPECTED["x"])), name)


@pytest.mark.parametrize("name", MODELS)
def test_model_is_read(name):
    model = MODELS[name].from_pretrained(FILES / name)
    check(model(EXPECTED["input_ids"]), name)
    assert model.config.labels == (("no", "yes") if name == "sequence_classification" else None)
