"""`fffcpu evaluate`: figures of predictions on any kind of table."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics

from fffcpu import FastFeedForward, Predictor, Schema
from fffcpu.data import load_digits

pytestmark = pytest.mark.slow  # trains: without compiled kernels, for minutes

IMAGES, LABELS = load_digits()


@pytest.fixture
def model(command, tmp_path):
    np.save(tmp_path / "x.npy", IMAGES)
    np.save(tmp_path / "y.npy", LABELS)
    out = tmp_path / "model"
    options = ["--target", tmp_path / "y.npy", "--out", out, "--epochs", "3"]
    assert command("train", tmp_path / "x.npy", *options)[0] == 0
    return out


def test_figures_of_digits(model, command, tmp_path):
    arguments = ["evaluate", model, tmp_path / "x.npy", "--target", tmp_path / "y.npy"]
    status, printed, _ = command(*arguments, "--json")
    found = json.loads(printed)
    predicted = Predictor.load(model).predict(IMAGES)
    assert status == 0
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(LABELS, predicted))
    assert found["confusion"] == metrics.confusion_matrix(LABELS, predicted).tolist()
    assert found["classes"] == list(range(10))
    status, printed, _ = command(*arguments)
    assert status == 0
    assert f"accuracy  {found['accuracy']:.6g}" in printed
    assert "true \\ predicted" in printed
    assert len(printed.splitlines()) == 19 - 1


def test_targets_must_be_there_and_fit(model, command, tmp_path):
    status, _, told = command("evaluate", model, tmp_path / "x.npy")
    assert status == 1
    assert "argument '--target' must name the target" in told
    np.save(tmp_path / "z.npy", LABELS + 1)
    status, _, told = command("evaluate", model, tmp_path / "x.npy", "--target", tmp_path / "z.npy")
    assert status == 1
    assert "must be one of the classes 0, 1, 2" in told


def test_several_labels_per_row_are_refused(command, tmp_path):
    schema = Schema("multilabel", ("a", "b"))
    Predictor(FastFeedForward(3, 2, 1, rng=0), schema).save(tmp_path / "model")
    status, _, told = command("evaluate", tmp_path / "model", tmp_path / "x.npy")
    assert status == 1
    assert "several labels per row" in told
