"""Predictors: labels, numbers and probabilities, and files that remember what outputs mean."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import fffcpu
from fffcpu import FastFeedForward, LeafFeedForward, Predictor, Schema
from fffcpu.errors import ArgumentError, CheckpointError, ShapeError
from fffcpu.inference.predictor import NOTE

X = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)


def classifier(classes=("cat", "dog", "owl"), **options):
    layer = FastFeedForward(4, len(classes), depth=2, trees=2, rng=0)
    return Predictor(layer, Schema("classification", classes, **options))


def test_labels_are_those_of_the_largest_score():
    predictor = classifier()
    scores = predictor.layer(X)
    expected = [("cat", "dog", "owl")[k] for k in scores.argmax(axis=1)]
    assert predictor.predict(X).tolist() == expected
    assert predictor.predict(X.reshape(2, 10, 4)).shape == (2, 10)
    assert classifier((7, 3, 5)).predict(X).dtype.kind == "i"


def test_probabilities_are_a_softmax():
    predictor = classifier()
    found = predictor.probabilities(X)
    expected = np.exp(predictor.layer(X).astype(np.float64))
    assert np.allclose(found, expected / expected.sum(axis=1, keepdims=True), rtol=1e-5)
    assert np.array_equal(predictor.scores(X), predictor.layer(X))


def test_a_regression_adds_its_offset_and_drops_a_single_axis():
    layer = FastFeedForward(4, 1, depth=2, rng=0)
    predictor = Predictor(layer, Schema("regression", offset=(3.0,)))
    assert np.allclose(predictor.predict(X), layer(X)[:, 0] + 3)
    two = FastFeedForward(4, 2, depth=2, rng=0)
    assert Predictor(two, Schema("regression", offset=(1.0, 2.0))).predict(X).shape == (20, 2)
    with pytest.raises(ArgumentError, match="regression"):
        predictor.probabilities(X)


def test_labels_of_which_a_row_may_have_several():
    layer = FastFeedForward(4, 3, depth=2, rng=0)
    predictor = Predictor(layer, Schema("multilabel", ("red", "big", "old")))
    found = predictor.predict(X)
    assert found.dtype == np.int64
    assert np.array_equal(found, layer(X) > 0)
    assert {0, 1} == set(found.ravel().tolist())
    expected = 1 / (1 + np.exp(-layer(X).astype(np.float64)))
    assert np.allclose(predictor.probabilities(X), expected, rtol=1e-5)
    layer.params["weights_out"][...] *= 1e6
    sure = predictor.probabilities(X)
    assert np.isfinite(sure).all()
    assert (sure.min(), sure.max()) == (0.0, 1.0)


@pytest.mark.parametrize(
    "predictor",
    [
        Predictor(FastFeedForward(4, 2, depth=2, rng=0), Schema("multilabel", ("red", "big"))),
        classifier(features=("a", "b", "ç", 'd"'), target=("animal",)),
        classifier((3, 5, 11)),
        classifier().__class__(
            LeafFeedForward(4, 2, depth=1, leaf_width=3, rng=0),
            Schema("regression", offset=(0.1, -1e30), target=("u", "v")),
        ),
        Predictor(
            FastFeedForward(4, 3, depth=2, rng=0).quantize("int8"),
            Schema("classification", ("x", "y", "z")),
        ),
    ],
    ids=["labels", "names", "numbers", "regression", "quantized"],
)
def test_files_remember_everything(predictor, tmp_path):
    path = tmp_path / "model.safetensors"
    predictor.save(path)
    again = Predictor.load(path)
    assert again.schema == predictor.schema
    assert again.predict(X).tobytes() == predictor.predict(X).tobytes()
    # Whoever wants only the layer gets it.
    assert fffcpu.load(path)(X).tobytes() == predictor.layer(X).tobytes()


def test_a_layer_alone_is_no_predictor(tmp_path):
    path = tmp_path / "layer.safetensors"
    FastFeedForward(4, 3, depth=2, rng=0).save(path)
    with pytest.raises(CheckpointError, match="without a schema of its outputs"):
        Predictor.load(path)


@pytest.mark.parametrize(
    "note",
    [
        "{",
        "[]",
        "{}",
        '"text"',
        json.dumps({"task": "classification"}),
        json.dumps({"task": "odd", "classes": [], "features": None, "target": None, "offset": []}),
        json.dumps(
            {
                "task": "classification",
                "classes": ["a", None, "c"],
                "features": None,
                "target": None,
                "offset": [],
            }
        ),
        json.dumps(
            {
                "task": "classification",
                "classes": ["a", "b"],
                "features": None,
                "target": None,
                "offset": [],
            }
        ),
    ],
)
def test_a_damaged_note_is_an_error_that_names_the_file(note, tmp_path):
    path = tmp_path / "model.safetensors"
    classifier().layer.save(path, notes={NOTE: note})
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        Predictor.load(path)


def test_the_note_is_ordinary_metadata_of_an_ordinary_file(tmp_path):
    path = tmp_path / "model.safetensors"
    classifier().save(path)
    save_file(load_file(path), tmp_path / "bare.safetensors")
    with pytest.raises(CheckpointError, match="another program"):
        Predictor.load(tmp_path / "bare.safetensors")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("ranking", ("a",)), ArgumentError),
        (("classification",), ArgumentError),
        (("multilabel",), ArgumentError),
        (("regression", ("a",)), ArgumentError),
    ],
)
def test_refuses_a_meaning(arguments, error):
    with pytest.raises(error):
        Schema(*arguments)


@pytest.mark.parametrize(
    "schema",
    [
        Schema("classification", ("a", "b")),
        Schema("regression", offset=(1.0,)),
        Schema("classification", ("a", "b", "c"), features=("x",)),
    ],
)
def test_refuses_a_meaning_that_does_not_fit_the_layer(schema):
    with pytest.raises(ShapeError, match="'schema'"):
        Predictor(FastFeedForward(4, 3, depth=1, rng=0), schema)


def test_says_what_it_predicts():
    assert "cat, dog, owl" in repr(classifier())
    assert "100 classes" in repr(classifier(tuple(range(100))))
    layer = FastFeedForward(4, 1, depth=1, rng=0)
    assert "price" in repr(Predictor(layer, Schema("regression", target=("price",))))
