"""Pipelines of scikit-learn with our estimators, converted by sklearn-onnx."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from fffcpu import FastFeedForward, Predictor, Schema
from fffcpu.errors import ArgumentError, MissingExtraError
from fffcpu.onnx import register_converters
from tests.onnx.support import AGREEING, assert_close, run, session

skl2onnx = pytest.importorskip("skl2onnx", reason="sklearn-onnx is not installed")
pytest.importorskip("sklearn", reason="the extra 'sklearn' is not installed")

from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fffcpu.sklearn import FFFClassifier, FFFRegressor

pytestmark = pytest.mark.slow  # training

ROWS = 700
X = np.random.default_rng(0).standard_normal((ROWS, 5)).astype(np.float32) * [1, 9, 1, 1, 1]
X = X.astype(np.float32)
KIND = (X[:, 0] > 0) + 2 * (X[:, 1] > 3)
QUICK = {"max_iter": 3, "random_state": 0}


@pytest.fixture(autouse=True, scope="module")
def registered():
    register_converters()
    register_converters()  # a second time changes nothing


def converted(estimator, y, dtype=np.float32, **options):
    """A pipeline with the estimator, and a session with the converted one."""
    pipeline = make_pipeline(StandardScaler(), estimator).fit(X, y)
    return pipeline, session(skl2onnx.to_onnx(pipeline, X[:1].astype(dtype), **options))


@pytest.mark.parametrize("layer", ["fast", "leaf"])
@pytest.mark.parametrize(
    "labels", [KIND, np.array(["a", "b", "c", "d"])[KIND], KIND > 1], ids=["int", "text", "bool"]
)
def test_a_classifier_in_a_pipeline(layer, labels):
    pipeline, found = converted(
        FFFClassifier(layer=layer, depth=4, **QUICK), labels, options={"zipmap": False}
    )
    label, probabilities = found.run(["label", "probabilities"], {"X": X})
    assert label.dtype == (object if labels.dtype.kind == "U" else np.int64)
    assert (label == pipeline.predict(X)).mean() >= AGREEING
    assert probabilities.dtype == np.float32
    assert_close(probabilities, pipeline.predict_proba(X).astype(np.float32))


def test_probabilities_by_name_are_the_default_of_sklearn_onnx():
    pipeline, found = converted(FFFClassifier(**QUICK), KIND)
    _, rows = found.run(None, {"X": X[:5]})
    expected = pipeline.predict_proba(X[:5])
    assert [list(row) for row in rows] == [[0, 1, 2, 3]] * 5
    np.testing.assert_allclose([list(row.values()) for row in rows], expected, atol=1e-4)


def test_several_labels_per_row():
    labels = np.stack([X[:, 0] > 0, X[:, 1] > 0, X[:, 2] > 1], axis=1).astype(int)
    pipeline, found = converted(FFFClassifier(**QUICK), labels, options={"zipmap": False})
    label, probabilities = found.run(None, {"X": X})
    assert (label == pipeline.predict(X)).all(axis=1).mean() >= AGREEING
    assert_close(probabilities, pipeline.predict_proba(X).astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("outputs", [1, 2])
def test_a_regressor_in_a_pipeline(dtype, outputs):
    y = X[:, :outputs] * 3.0 + 100.0
    y = y[:, 0] if outputs == 1 else y
    pipeline, found = converted(FFFRegressor(**QUICK), y, dtype)
    (numbers,) = found.run(["variable"], {"X": X.astype(dtype)})
    expected = pipeline.predict(X.astype(dtype)).reshape(ROWS, outputs).astype(dtype)
    assert_close(numbers, expected, 1e-4 if dtype == np.float32 else 1e-12)


def test_columns_that_are_large_for_their_changes_are_scaled_in_float64():
    times = np.stack([X[:, 0] + 1e9, X[:, 1]], axis=1).astype(np.float64)
    estimator = FFFRegressor(**QUICK).fit(times, 3.0 * X[:, 0])
    found = session(skl2onnx.to_onnx(estimator, times[:1]))
    (numbers,) = found.run(None, {"X": times})
    assert_close(numbers[:, 0], estimator.predict(times), 1e-9)


def test_an_estimator_alone_is_exported_as_its_predictor():
    estimator = FFFClassifier(**QUICK).fit(X, KIND)
    found = run(estimator, x=X.astype(estimator.layer_.config.dtype))
    assert (found["label"] == estimator.predict(X)).mean() >= AGREEING


def test_classes_that_are_no_integers_are_refused():
    schema = Schema("classification", (0.5, 1.0))
    estimator = FFFClassifier.from_predictor(Predictor(FastFeedForward(5, 2, 1, rng=0), schema))
    with pytest.raises(ArgumentError, match=r"must be texts or integers.*0\.5"):
        skl2onnx.to_onnx(estimator, X[:1], options={"zipmap": False})


def test_an_older_set_of_operators_is_refused():
    with pytest.raises(ArgumentError, match="'target_opset' must be at least 20, got 18"):
        converted(FFFClassifier(**QUICK), KIND, target_opset=18)


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "skl2onnx", None)
    with pytest.raises(MissingExtraError, match="pip install skl2onnx"):
        register_converters()
