"""ONNX files: whole or not at all, and what they say about their model."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest

import fffcpu
from fffcpu import FastFeedForward, Predictor, Schema
from fffcpu.errors import ArgumentTypeError
from fffcpu.onnx import export, to_model

LAYER = FastFeedForward(4, 3, 2, rng=0)


def test_a_file_is_written_and_runs(tmp_path):
    path = tmp_path / "layer.onnx"
    path.write_text("former")
    export(LAYER, path)
    assert [file.name for file in tmp_path.iterdir()] == ["layer.onnx"]
    x = np.ones((2, 4), np.float32)
    found = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(found.run(["y"], {"x": x})[0], LAYER(x), rtol=1e-5)


def test_what_cannot_be_exported_leaves_the_former_file(tmp_path):
    path = tmp_path / "layer.onnx"
    path.write_text("former")
    for model in (np.ones(3), "layer.safetensors", None):
        with pytest.raises(ArgumentTypeError, match="'model' must be a layer, a predictor"):
            export(model, path)
    assert path.read_text() == "former"
    with pytest.raises(FileNotFoundError):
        export(LAYER, tmp_path / "none" / "layer.onnx")


def test_metadata_have_the_names_of_classes_and_columns():
    schema = Schema("classification", ("a", "ü", "c"), ("w", "x", "y", "z"), ("kind",))
    model = to_model(Predictor(LAYER, schema))
    found = {item.key: item.value for item in model.metadata_props}
    assert (found.pop("kind"), found.pop("task")) == ("FastFeedForward", "classification")
    assert {name: json.loads(value) for name, value in found.items()} == {
        "classes": ["a", "ü", "c"],
        "features": ["w", "x", "y", "z"],
        "target": ["kind"],
    }
    assert {item.key for item in to_model(LAYER).metadata_props} == {"kind"}
    assert "FastFeedForward" in model.doc_string


def test_what_the_checker_finds_is_an_error(monkeypatch):
    def refuse(content):
        raise onnx.checker.ValidationError("wrong")

    monkeypatch.setattr(onnx.checker, "check_model", refuse)
    with pytest.raises(onnx.checker.ValidationError):
        to_model(LAYER)


def test_the_package_hands_on_its_names():
    assert fffcpu.onnx.export is export
