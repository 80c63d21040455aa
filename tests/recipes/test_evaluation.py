"""Figures of predictions, compared with those of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from fffcpu import FastFeedForward, Predictor, Schema
from fffcpu.data import Table
from fffcpu.errors import ArgumentError
from fffcpu.inference.predictor import softmax
from fffcpu.recipes.evaluation import classification_figures, evaluate, regression_figures


@given(classes=st.integers(2, 5), rows=st.integers(1, 30), seed=st.integers(0, 99))
def test_figures_of_classes_are_those_of_scikit_learn(classes, rows, seed):
    rng = np.random.default_rng(seed)
    chances = softmax(rng.integers(-2, 3, (rows, classes)).astype(float))  # with ties
    y = rng.integers(0, classes, rows)
    found = classification_figures(chances, y)
    predicted = chances.argmax(axis=1)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(y, predicted))
    assert found["f1"] == pytest.approx(metrics.f1_score(y, predicted, average="macro"))
    labels = list(range(classes))
    confusion = metrics.confusion_matrix(y, predicted, labels=labels)
    assert found["confusion"] == confusion.tolist()
    assert found["log_loss"] == pytest.approx(metrics.log_loss(y, chances, labels=labels))
    assert found["baseline"] == np.bincount(y).max() / rows
    judged = [1] if classes == 2 else [k for k in labels if 0 < (y == k).sum() < rows]
    if any(0 < (y == k).sum() < rows for k in judged):
        areas = [metrics.roc_auc_score(y == k, chances[:, k]) for k in judged]
        assert found["auc"] == pytest.approx(np.mean(areas))
    else:
        assert found["auc"] is None


@given(outputs=st.integers(1, 3), rows=st.integers(2, 30), seed=st.integers(0, 99))
def test_figures_of_numbers_are_those_of_scikit_learn(outputs, rows, seed):
    rng = np.random.default_rng(seed)
    y = rng.standard_normal((rows, outputs))
    predicted = y + 0.3 * rng.standard_normal((rows, outputs))
    found = regression_figures(predicted, y, np.zeros(outputs))
    assert found["r2"] == pytest.approx(metrics.r2_score(y, predicted))
    each = [found] if outputs == 1 else found["targets"].values()
    for k, own in enumerate(each):
        error = metrics.mean_squared_error(y[:, k], predicted[:, k]) ** 0.5
        assert own["rmse"] == pytest.approx(error)
        assert own["mae"] == pytest.approx(metrics.mean_absolute_error(y[:, k], predicted[:, k]))
        assert own["baseline"] == pytest.approx(np.sqrt(np.square(y[:, k]).mean()))
        assert own["r2"] == pytest.approx(metrics.r2_score(y[:, k], predicted[:, k]))
    assert regression_figures(y[:1], y[:1], np.zeros(outputs))["r2"] is None


def test_a_predictor_is_evaluated_on_its_own_targets():
    rng = np.random.default_rng(0)
    predictor = Predictor(FastFeedForward(3, 2, 2, rng=0), Schema("classification", ("a", "b")))
    table = Table(rng.standard_normal((40, 3)), rng.integers(0, 2, 40), classes=("a", "b"))
    found = evaluate(predictor, table)
    right = np.array(["a", "b"])[table.y] == predictor.predict(table.x)
    assert found["rows"] == 40
    assert found["accuracy"] == right.mean()
    with pytest.raises(ArgumentError, match="must have targets of the classes"):
        evaluate(predictor, Table(table.x, table.y, classes=("b", "a")))
    numbers = Predictor(FastFeedForward(3, 1, 2, rng=0), Schema("regression", offset=(2.0,)))
    y = rng.standard_normal((40, 1))
    found = evaluate(numbers, Table(table.x, y))
    assert found["rmse"] == pytest.approx(
        float(np.sqrt(np.square(numbers.predict(table.x) - y[:, 0]).mean())), rel=1e-5
    )
    assert found["baseline"] == pytest.approx(float(np.sqrt(np.square(y - 2.0).mean())))
