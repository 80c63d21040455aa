"""`fffcpu predict`: a model and a table in, whole outputs out."""

from __future__ import annotations

import dataclasses
import json
import types

import numpy as np
import pytest

from fffcpu import FastFeedForward, Predictor, Schema
from fffcpu.cli import main
from fffcpu.inference.predictor import NOTE

RNG = np.random.default_rng(0)
X = RNG.standard_normal((50, 3)).astype(np.float32)
FEATURES = ("a", "b", "c")
LAYER = FastFeedForward(3, 2, depth=3, rng=0)
CLASSIFIER = Predictor(
    LAYER, Schema("classification", ("no", "yes"), features=FEATURES, target=("answer",))
)
REGRESSION = Predictor(
    FastFeedForward(3, 1, depth=3, rng=0),
    Schema("regression", features=FEATURES, target=("price",), offset=(10.0,)),
)

LABELS = Predictor(LAYER, Schema("multilabel", ("red", "big"), target=("what",)))


@pytest.fixture
def predict(tmp_path, capsys):
    """Run the command on X; returns the exit status, what it printed, and the output's path."""
    np.save(tmp_path / "x.npy", X)
    columns = np.column_stack([X[:, 2], np.zeros(50), X[:, 0], X[:, 1]])
    np.savetxt(tmp_path / "x.csv", columns, delimiter=",", header="c,id,a,b", comments="")

    def run(model, *options, data="x.npy", out="y.npy"):
        model.save(tmp_path / "model")
        paths = [tmp_path / "model", tmp_path / data, "--out", tmp_path / out]
        status = main([str(argument) for argument in ["predict", *paths, *options]])
        captured = capsys.readouterr()
        return status, captured.out + captured.err, tmp_path / out

    return run


@pytest.mark.parametrize("rows", [1, 7, 50, 8192])
@pytest.mark.parametrize("data", ["x.npy", "x.csv"])
def test_blocks_give_the_whole(predict, rows, data):
    status, printed, path = predict(CLASSIFIER, "--rows", rows, data=data)
    assert status == 0, printed
    assert "50 rows" in printed
    assert np.load(path).tolist() == CLASSIFIER.predict(X).tolist()


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("predictions", CLASSIFIER.predict(X)),
        ("probabilities", CLASSIFIER.probabilities(X)),
        ("scores", CLASSIFIER.scores(X)),
    ],
)
def test_what_to_write(predict, what, expected):
    status, _, path = predict(CLASSIFIER, "--what", what, "--rows", 16)
    found = np.load(path)
    assert status == 0
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)


def test_numbers_keep_their_shape_and_their_offset(predict):
    status, printed, path = predict(REGRESSION, "--json")
    assert status == 0
    assert json.loads(printed)["shape"] == [50]
    assert np.array_equal(np.load(path), REGRESSION.predict(X))


@pytest.mark.parametrize(
    ("model", "options", "head"),
    [
        (CLASSIFIER, (), "answer"),
        (CLASSIFIER, ("--what", "probabilities"), "no,yes"),
        (LABELS, (), "red,big"),
        (LABELS, ("--what", "probabilities"), "red,big"),
        (REGRESSION, (), "price"),
        (LAYER, (), "y0,y1"),
    ],
)
def test_csv_has_a_header_and_every_digit(predict, model, options, head):
    status, _, path = predict(model, *options, out="y.csv", data="x.npy")
    lines = path.read_text().splitlines()
    assert status == 0
    assert lines[0] == head
    assert len(lines) == 51
    if model is REGRESSION:
        found = np.array([float(line) for line in lines[1:]], np.float32)
        assert np.array_equal(found, REGRESSION.predict(X))


def test_a_layer_alone_gives_its_outputs(predict, tmp_path):
    status, _, path = predict(LAYER)
    assert status == 0
    assert np.array_equal(np.load(path), LAYER(X))
    np.save(tmp_path / "wide.npy", np.zeros((3, 4)))
    status, printed, _ = predict(LAYER, data="wide.npy")
    assert status == 1
    assert "wide.npy': must have 3 columns" in printed
    status, printed, _ = predict(LAYER, "--what", "predictions")
    assert status == 1
    assert "has no schema of its outputs" in printed


def test_no_rows(predict, tmp_path):
    np.save(tmp_path / "none.npy", X[:0])
    status, _, path = predict(CLASSIFIER, "--what", "scores", data="none.npy")
    assert status == 0
    assert np.load(path).shape == (0, 2)
    (tmp_path / "head.csv").write_text("a,b,c\n")
    status, _, path = predict(CLASSIFIER, data="head.csv")
    assert status == 0
    assert np.load(path).shape == (0,)
    assert np.load(path).dtype == CLASSIFIER.predict(X).dtype


def test_a_note_of_a_later_version_is_not_passed_over(predict, tmp_path):
    note = {**dataclasses.asdict(CLASSIFIER.schema), "more": 1}
    model = types.SimpleNamespace(save=lambda path: LAYER.save(path, {NOTE: json.dumps(note)}))
    status, printed, _ = predict(model)
    assert status == 1
    assert "fffcpu.predictor" in printed


@pytest.mark.parametrize(
    ("out", "data", "named"),
    [
        ("y.txt", "x.npy", ".npy or .csv"),
        ("missing/y.npy", "x.npy", "missing"),
        ("y.npy", "wide.npy", "wide.npy': must have 3 columns, as the model was trained on, got 4"),
        ("x.npy", "x.npy", "--out"),
        ("y.npy", "other.csv", "'c'"),
        ("y.npy", "none.npy", "none.npy"),
    ],
)
def test_says_in_one_line_what_is_wrong(predict, tmp_path, out, data, named):
    np.save(tmp_path / "wide.npy", np.zeros((3, 4)))
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    status, printed, path = predict(CLASSIFIER, data=data, out=out)
    assert status == 1
    assert named in printed
    assert printed.count("\n") == 1
    assert path == tmp_path / data or not path.exists()
    assert not list(tmp_path.glob("*.tmp"))


def test_an_output_that_failed_half_way_leaves_the_old_one(predict, tmp_path):
    (tmp_path / "bad.csv").write_text("a,b,c\n1,2,3\n" * 1 + "4,5,6\n" * 20 + "7,x,9\n")
    (tmp_path / "y.npy").write_bytes(b"old")
    status, printed, path = predict(CLASSIFIER, "--rows", 4, data="bad.csv")
    assert status == 1
    assert "line 23" in printed
    assert path.read_bytes() == b"old"
