"""Exported predictors predict what ours do, of numbers, categories and dates."""

from __future__ import annotations

import datetime

import numpy as np
import pytest

from fffcpu import DenseFeedForward, FastFeedForward, LeafFeedForward, Predictor, Schema
from fffcpu.columns.encoding import Column
from fffcpu.errors import ArgumentError
from fffcpu.onnx import to_model
from tests.onnx.support import AGREEING, assert_close, reaching, run, session

CLASSES = {
    "texts": ("cat", "dög", "owl"),
    "integers": (7, -3, 5),
    "floats": (0.5, 2.0, -1.0),
    "truth values": (False, True),
}


@pytest.mark.parametrize("classes", CLASSES.values(), ids=CLASSES)
def test_classes_and_their_probabilities(classes):
    layer = FastFeedForward(6, len(classes), 4, trees=2, two_sided=True, rng=0)
    predictor = Predictor(layer, Schema("classification", classes))
    x = reaching(layer)
    found = run(predictor, x=x)
    assert list(found) == ["label", "probabilities"]
    expected = predictor.predict(x)
    assert found["label"].dtype == (object if expected.dtype.kind == "U" else expected.dtype)
    assert set(found["label"].tolist()) == set(classes)
    assert (found["label"] == expected).mean() >= AGREEING
    assert_close(found["probabilities"], predictor.probabilities(x))


def test_the_first_of_equal_scores_is_the_label():
    layer = DenseFeedForward(2, 3, 1, rng=0)
    layer.params["weights_out"][...] = 1.0
    predictor = Predictor(layer, Schema("classification", ("a", "b", "c")))
    assert run(predictor, x=np.ones((2, 2), np.float32))["label"].tolist() == ["a", "a"]


def test_several_labels_per_row():
    layer = LeafFeedForward(6, 3, 4, 5, rng=0)
    predictor = Predictor(layer, Schema("multilabel", ("red", "big", "old")))
    x = reaching(layer)
    found = run(predictor, x=x)
    assert found["label"].dtype == np.int64
    assert (found["label"] == predictor.predict(x)).mean() >= AGREEING
    assert_close(found["probabilities"], predictor.probabilities(x))


@pytest.mark.parametrize(("outputs", "offset"), [(1, (3.0,)), (2, (1.0, -2.0)), (1, ())])
@pytest.mark.parametrize("exact", [False, True])
def test_numbers_with_offsets(outputs, offset, exact):
    layer = FastFeedForward(6, outputs, 4, rng=0)
    shift = tuple(value + 1e9 * exact for value in offset)
    predictor = Predictor(layer, Schema("regression", offset=shift, exact=exact and bool(offset)))
    x = reaching(layer)
    (found,) = run(predictor, x=x).values()
    expected = predictor.predict(x)
    lift = 1e9 * exact if offset else 0.0
    assert_close(found - lift, expected - lift)


def test_classes_that_no_tensor_holds_are_refused():
    layer = FastFeedForward(6, 2, 2, rng=0)
    predictor = Predictor(layer, Schema("classification", (1, 2**70)))
    with pytest.raises(ArgumentError, match="'model' must have classes"):
        to_model(predictor)


NUMBERS = (
    Column(offset=1.6e9, scale=3600.0),
    Column(low=-1.0, high=1.0),
    Column(missing=True, fill=0.25),
    Column(fill=5.0, high=2.0),
    Column(),
)
"""Columns of numbers, of which the last may not be missing."""


def table(rows):
    rng = np.random.default_rng(1)
    x = 2.0 * rng.standard_normal((rows, len(NUMBERS)))
    x[:, 0] = 1.6e9 + 3600.0 * x[:, 0]
    x[rng.random(x.shape) < 0.2] = np.nan
    x[:, 0] = np.nan_to_num(x[:, 0], nan=1.6e9)
    x[:, [1, 4]] = np.nan_to_num(x[:, [1, 4]])
    return x


def test_numbers_are_filled_limited_and_scaled_in_float64():
    layer = FastFeedForward(6, 3, 4, rng=0)
    predictor = Predictor(layer, Schema("classification", ("a", "b", "c"), columns=NUMBERS))
    x = table(3000)
    found = run(predictor, x=x)
    assert_close(found["probabilities"], predictor.probabilities(x))
    assert (found["label"] == predictor.predict(x)).mean() >= AGREEING
    model = session(to_model(predictor))
    assert [(item.name, item.type) for item in model.get_inputs()] == [("x", "tensor(double)")]


def test_a_number_that_must_not_be_missing_gives_nan():
    layer = FastFeedForward(6, 2, 3, rng=0)
    predictor = Predictor(layer, Schema("regression", columns=NUMBERS, offset=(0.0, 0.0)))
    x = table(4)
    x[1, 4] = x[2, 1] = np.nan
    found = run(predictor, x=x)["prediction"]
    assert np.isnan(found).any(axis=1).tolist() == [False, True, True, False]


FRAME_COLUMNS = (
    Column("category", ("red", "ü", "1", "true"), others=True, missing=True),
    Column(missing=True, fill=0.5, low=-2.0),
    Column("date", missing=True, fill=15000.0, offset=15000.0, scale=100.0),
    Column("category", ("a", "NA")),
    Column("date"),
)
NAMES = ("colour", "size", "day", "letter", "x")
TEXTS = ("red", "ü", "1", "1.0", "true", "TRUE", "True", "other", "", "NA", "nan", "Red", "1.5")
LETTERS = ("a", "b", "NA", "", "N/A", "null")


def mixed():
    """A predictor of columns of all kinds."""
    width = sum(column.width for column in FRAME_COLUMNS)
    layer = FastFeedForward(width, 2, 5, rng=0)
    for name in ("weights_in", "bias_in"):
        layer.params[name][...] *= 3.0
    return Predictor(layer, Schema("classification", ("no", "yes"), NAMES, columns=FRAME_COLUMNS))


def frame(rows):
    """Columns of a data frame, and the inputs of the exported model for it."""
    rng = np.random.default_rng(2)
    days = rng.uniform(-1000.0, 20000.0, (2, rows))
    days = np.round(days * 86400e3) / 86400e3
    moments = np.array(
        [
            datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=round(day * 86400e3))
            for day in days.ravel()
        ],
        "datetime64[us]",
    ).reshape(days.shape)
    size = np.where(rng.random(rows) < 0.3, np.nan, rng.standard_normal(rows) * 3.0)
    absent = rng.random(rows) < 0.2
    moments[0, absent], days[0, absent] = np.datetime64("NaT"), np.nan
    values = {
        "colour": rng.choice(np.array(TEXTS, object), rows),
        "size": size,
        "day": moments[0],
        "letter": rng.choice(np.array(LETTERS, object), rows),
        "x": moments[1],
    }
    return values, {**values, "day": days[0], "x": days[1]}


def test_columns_of_texts_and_dates():
    predictor = mixed()
    values, inputs = frame(3000)
    found = run(predictor, **inputs)
    assert_close(found["probabilities"], predictor.probabilities(values))
    assert (found["label"] == predictor.predict(values)).mean() >= AGREEING
    types = {item.name: item.type for item in session(to_model(predictor)).get_inputs()}
    texts = {"colour", "letter"}
    assert list(types) == list(NAMES)
    assert {name for name, kind in types.items() if kind == "tensor(string)"} == texts


@pytest.mark.parametrize(
    "column",
    [Column("category", others=True), Column("category", missing=True), Column("category", ("a",))],
)
def test_a_category_alone(column):
    layer = FastFeedForward(1, 2, 1, rng=0)
    schema = Schema("regression", features=("c",), columns=(column,), offset=(0.0, 0.0))
    predictor, texts = Predictor(layer, schema), np.array(["a", "b", ""], object)
    found = run(predictor, c=texts)["prediction"]
    np.testing.assert_allclose(found, predictor.predict({"c": texts}), atol=1e-6)


@pytest.mark.parametrize("name", ["label", "probabilities", ""])
def test_columns_that_have_the_name_of_an_output_are_refused(name):
    layer = FastFeedForward(2, 2, 1, rng=0)
    columns = (Column("category", ("a",)), Column())
    schema = Schema("classification", ("u", "v"), (name, "b"), columns=columns)
    with pytest.raises(ArgumentError, match=f"names of outputs, got {name!r}"):
        to_model(Predictor(layer, schema))
