"""What a task computes for a partition, and how the columns of a frame of it are named."""

from __future__ import annotations

import numpy as np
import pytest

from fffcpu import FastFeedForward, LeafFeedForward, Predictor
from fffcpu.dask.outputs import open_model, output_of
from fffcpu.data import Table
from fffcpu.errors import ArgumentError, ArgumentTypeError
from fffcpu.inference.pipelines import TextEmbedder, default_model_folder
from fffcpu.recipes.fitting import FitSettings, fit

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 3)).astype(np.float32)
LAYER = FastFeedForward(3, 2, depth=1, trees=2, rng=0)


@pytest.fixture(scope="module")
def classifier() -> Predictor:
    settings = FitSettings(depth=1, trees=2, epochs=1, validation=0.0)
    table = Table(X, np.arange(40) % 2, classes=("no", "yes"))
    return fit(table, settings, progress=False).predictor


def test_names_of_columns_say_what_they_hold(classifier):
    levels = [f"tree {tree} level {level}" for tree in range(2) for level in range(2)]
    for model, kind, names in (
        (LAYER, "predict", ["y0", "y1"]),
        (LAYER, "route", levels),
        (LeafFeedForward(3, 2, depth=2, leaf_width=1, rng=0), "route", ["leaf"]),
        (classifier, "predict", ["prediction"]),
        (classifier, "predict_proba", ["no", "yes"]),
        (classifier, "route", levels),
    ):
        assert list(output_of(model, kind).names) == names


def test_outputs_have_the_bits_of_the_model(classifier):
    for model, kind, expected in (
        (LAYER, "predict", LAYER(X)),
        (LAYER, "route", LAYER.route(X)),
        (classifier, "predict", classifier.predict(X)),
        (classifier, "predict_proba", classifier.probabilities(X)),
    ):
        np.testing.assert_array_equal(output_of(model, kind)(model, X), expected)


def test_a_frame_becomes_the_array_of_its_columns():
    import pandas as pd

    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    np.testing.assert_array_equal(output_of(LAYER, "predict")(LAYER, frame), LAYER(X))


def test_a_model_is_opened_by_its_path(tmp_path, classifier):
    LAYER.save(tmp_path / "layer.safetensors")
    classifier.save(tmp_path / "classifier.safetensors")
    layer = open_model(tmp_path / "layer.safetensors", "predict")
    np.testing.assert_array_equal(layer(X), LAYER(X))
    assert isinstance(open_model(str(tmp_path / "classifier.safetensors"), "predict"), Predictor)
    assert isinstance(open_model(default_model_folder(), "embed"), TextEmbedder)
    assert open_model(classifier, "predict") is classifier


@pytest.mark.parametrize(
    ("kind", "what"),
    [("predict_proba", "have classes"), ("embed", "be a TextEmbedder")],
)
def test_an_output_that_a_layer_lacks_is_an_error(kind, what):
    with pytest.raises(ArgumentTypeError, match=f"argument 'model' must {what}, got "):
        output_of(LAYER, kind)


def test_other_arguments_are_checked():
    with pytest.raises(ArgumentTypeError, match="argument 'model' must be a layer"):
        open_model(3, "predict")
    with pytest.raises(ArgumentError, match="argument 'pooling' must be "):
        output_of(LAYER, "predict", "median")
