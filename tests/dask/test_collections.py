"""Models mapped over collections: same kind back, same bits, lazily, with the model once."""

from __future__ import annotations

import pickle
import sys

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fffcpu.dask
from fffcpu import DenseFeedForward, FastFeedForward, LeafFeedForward, Predictor, Schema
from fffcpu.columns.encoding import Column
from fffcpu.errors import ArgumentError, ArgumentTypeError, MissingExtraError, ShapeError
from fffcpu.inference.pipelines import TextClassifier, TextEmbedder
from fffcpu.models import (
    BertConfig,
    BertEncoder,
    FastBertConfig,
    FastBertEncoder,
    FastBertForSequenceClassification,
)
from fffcpu.sklearn import FFFClassifier
from fffcpu.text import Tokenizer

X = np.random.default_rng(0).standard_normal((11, 4))
NAMES = ("w", "x", "y", "z")
LAYER = FastFeedForward(4, 3, 2, trees=2, rng=0)
SPECIES = Predictor(LAYER, Schema("classification", ("ant", "bee", "cow"), NAMES, ("animal",)))
PRICE = Predictor(FastFeedForward(4, 1, 2, rng=2), Schema("regression", (), NAMES, (), (1.5,)))
PAIR = Predictor(FastFeedForward(4, 2, 1, rng=3), Schema("regression", (), NAMES, ("u", "v")))
LEAF = LeafFeedForward(4, 3, 2, 3, rng=1)

WORDS = ["the", "a", "cat", "dog", "rose", "sat", "ran"]
TOKENIZER = Tokenizer.train([" ".join(WORDS)] * 2, vocabulary=60)
TEXTS = ["a cat sat", "the dog", "", "rose rose rose", "a dog ran"]


def config(**more):
    return FastBertConfig(64, 16, 1, 2, feedforward_size=1, depth=2, positions=12, **more)


JUDGE = TextClassifier(
    FastBertForSequenceClassification(config(classes=2, labels=("bad", "good")), rng=0), TOKENIZER
)
ENCODER = TextEmbedder(FastBertEncoder(config(), rng=0), TOKENIZER)


@pytest.fixture(autouse=True)
def _one_process():
    """Bags would start processes by default."""
    with dask.config.set(scheduler="threads"):
        yield


def arrays(rows=((4, 0, 7),)):
    return da.from_array(X, chunks=(*rows, 4))


FRAME = dd.from_pandas(pd.DataFrame(X, columns=list(NAMES), index=range(50, 61)), npartitions=3)


# --- Arrays --------------------------------------------------------------------------------------


@given(data=st.data())
def test_chunks_change_no_bit(data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(X)), max_size=4)))
    chunks = tuple(np.diff([0, *cuts, len(X)]).tolist())
    x = da.from_array(X, chunks=(chunks, 4))
    for model, expected in ((LAYER, LAYER(X)), (SPECIES, SPECIES.predict(X)), (LEAF, LEAF(X))):
        found = fffcpu.dask.predict(model, x)
        assert found.chunks[0] == chunks
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found.compute(), expected)


@pytest.mark.parametrize(
    ("function", "model", "expected"),
    [
        (fffcpu.dask.predict, PRICE, PRICE.predict(X)),
        (fffcpu.dask.predict, PAIR, PAIR.predict(X)),
        (fffcpu.dask.predict_proba, SPECIES, SPECIES.probabilities(X)),
        (fffcpu.dask.route, SPECIES, LAYER.route(X)),
        (fffcpu.dask.route, LEAF, LEAF.route(X)),
    ],
)
def test_arrays_give_arrays_of_the_announced_shape(function, model, expected):
    found = function(model, arrays())
    assert isinstance(found, da.Array)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(found.compute(), expected)


def test_rows_may_be_of_unknown_number():
    x = arrays()
    found = fffcpu.dask.predict(SPECIES, x[x[:, 0] > 0])
    np.testing.assert_array_equal(found.compute(), SPECIES.predict(X[X[:, 0] > 0]))


def test_an_estimator_and_a_path_are_models(tmp_path):
    estimator = FFFClassifier(max_iter=2, random_state=0).fit(X, np.arange(11) % 2)
    found = fffcpu.dask.predict(estimator, arrays()).compute()
    np.testing.assert_array_equal(found, estimator.predict(X))
    SPECIES.save(tmp_path / "species.safetensors")
    found = fffcpu.dask.predict(tmp_path / "species.safetensors", arrays()).compute()
    np.testing.assert_array_equal(found, SPECIES.predict(X))
    LAYER.save(tmp_path / "layer.safetensors")
    found = fffcpu.dask.predict(str(tmp_path / "layer.safetensors"), arrays()).compute()
    np.testing.assert_array_equal(found, LAYER(X))


# --- Frames --------------------------------------------------------------------------------------


def test_frames_give_series_and_frames_with_their_index():
    labels = fffcpu.dask.predict(SPECIES, FRAME)
    assert labels.npartitions == FRAME.npartitions
    found = labels.compute()
    assert isinstance(found, pd.Series)
    assert found.name == "animal"
    assert found.tolist() == SPECIES.predict(X).tolist()
    assert found.index.tolist() == list(range(50, 61))
    chances = fffcpu.dask.predict_proba(SPECIES, FRAME)
    assert list(chances.columns) == ["ant", "bee", "cow"]
    np.testing.assert_array_equal(chances.compute(), SPECIES.probabilities(X))
    assert fffcpu.dask.predict(PRICE, FRAME).compute().name == "prediction"
    pair = fffcpu.dask.predict(PAIR, FRAME).compute()
    assert list(pair.columns) == ["u", "v"]
    np.testing.assert_array_equal(fffcpu.dask.predict(LAYER, FRAME).compute(), LAYER(X))
    nodes = fffcpu.dask.route(SPECIES, FRAME).compute()
    np.testing.assert_array_equal(nodes, LAYER.route(X).reshape(11, 6))
    assert list(nodes.columns)[:4] == [
        *("tree 0 level 0", "tree 0 level 1", "tree 0 level 2", "tree 1 level 0"),
    ]
    assert fffcpu.dask.route(LEAF, FRAME).compute().name == "leaf"


def test_what_is_announced_is_what_comes():
    for function, model in (
        (fffcpu.dask.predict, SPECIES),
        (fffcpu.dask.predict, PAIR),
        (fffcpu.dask.predict_proba, SPECIES),
        (fffcpu.dask.route, LEAF),
    ):
        lazy = function(model, FRAME)
        found, announced = lazy.compute(), lazy._meta
        assert type(found) is type(announced)
        assert str(getattr(found, "dtypes", None)) == str(getattr(announced, "dtypes", None))


def test_partitions_without_rows_give_none():
    none = FRAME[FRAME.x > 100]
    assert len(fffcpu.dask.predict(SPECIES, none).compute()) == 0
    assert fffcpu.dask.predict_proba(SPECIES, none).compute().shape == (0, 3)


def test_columns_of_a_frame_are_found_by_name_and_encoded():
    colour = Column("category", ("blue", "red"), others=False, missing=False)
    schema = Schema("regression", (), ("colour", "size"), ("price",), (0.0,), (colour, Column()))
    model = Predictor(FastFeedForward(schema.encoding.width, 1, 2, rng=0), schema)
    table = pd.DataFrame({"size": [1.0, 2.0, 3.0], "other": "?", "colour": ["red", "blue", "red"]})
    frame = dd.from_pandas(table, npartitions=2)
    found = fffcpu.dask.predict(model, frame).compute()
    assert found.tolist() == model.predict(table).tolist()
    assert len(fffcpu.dask.predict(model, frame[frame["size"] > 9]).compute()) == 0


# --- Bags and texts ------------------------------------------------------------------------------


def test_bags_of_rows_give_bags():
    rows = db.from_sequence(X.tolist(), npartitions=4)
    assert fffcpu.dask.predict(SPECIES, rows).compute() == SPECIES.predict(X).tolist()
    chances = fffcpu.dask.predict_proba(SPECIES, rows).compute()
    np.testing.assert_array_equal(chances, SPECIES.probabilities(X))
    named = db.from_sequence([dict(zip("zyxw", row[::-1], strict=True)) for row in X.tolist()])
    assert fffcpu.dask.predict(SPECIES, named).compute() == SPECIES.predict(X).tolist()
    assert fffcpu.dask.predict(SPECIES, rows.filter(lambda row: row[0] > 9)).compute() == []


def test_texts_of_series_bags_and_arrays():
    series = dd.from_pandas(pd.Series(TEXTS, index=range(7, 12)), npartitions=2)
    expected = ENCODER.embed(TEXTS)
    frame = fffcpu.dask.embed(ENCODER, series)
    assert list(frame.columns)[:2] == ["e0", "e1"]
    np.testing.assert_allclose(frame.compute(), expected, rtol=1e-5, atol=1e-6)
    array = fffcpu.dask.embed(ENCODER, da.from_array(np.array(TEXTS), chunks=2))
    assert array.shape == expected.shape
    np.testing.assert_allclose(array.compute(), expected, rtol=1e-5, atol=1e-6)
    vectors = fffcpu.dask.embed(ENCODER, db.from_sequence(TEXTS), "start", normalize=True).compute()
    expected = ENCODER.embed(TEXTS, "start", normalize=True)
    np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-6)
    labels = [JUDGE.labels[best] for best in JUDGE.probabilities(TEXTS).argmax(axis=1)]
    assert fffcpu.dask.predict(JUDGE, db.from_sequence(TEXTS)).compute() == labels
    assert fffcpu.dask.predict(JUDGE, series).compute().tolist() == labels
    chances = fffcpu.dask.predict_proba(JUDGE, series).compute()
    np.testing.assert_allclose(chances, JUDGE.probabilities(TEXTS), rtol=1e-5)


# --- How it is computed --------------------------------------------------------------------------


def test_the_model_lies_once_in_a_graph():
    layer = FastFeedForward(4, 3, 9, rng=0)
    graph = dict(fffcpu.dask.predict(layer, da.from_array(X, chunks=(1, 4))).__dask_graph__())
    large = [task for task in graph.values() if len(pickle.dumps(task)) > layer.nbytes]
    assert len(large) == 1
    assert len(graph) > 2 * len(X)


def test_a_task_uses_one_core(monkeypatch):
    from fffcpu.kernels import jit

    seen = []

    def watch(layer, rows):
        seen.append(jit.takes_pool())
        return np.zeros((len(rows), 3), np.float32)

    monkeypatch.setattr(FastFeedForward, "__call__", watch)
    fffcpu.dask.predict(LAYER, arrays()).compute()
    assert seen
    assert not any(seen)


@pytest.mark.slow
def test_a_cluster_gets_the_model_once_and_gives_the_same_bits(client):
    with dask.config.set(scheduler=client):
        for x, expected in ((arrays(), LAYER(X)), (FRAME, LAYER(X))):
            lazy = fffcpu.dask.predict(LAYER, x)
            np.testing.assert_array_equal(np.asarray(lazy.compute()), expected)
        bag = fffcpu.dask.predict(SPECIES, db.from_sequence(X.tolist(), npartitions=3))
        assert bag.compute() == SPECIES.predict(X).tolist()


# --- What is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: fffcpu.dask.predict(LAYER, da.ones((4, 4), chunks=2)), ShapeError, "rechunk"),
        (lambda: fffcpu.dask.predict(LAYER, da.ones(4)), ShapeError, r"shape \(R, C\)"),
        (lambda: fffcpu.dask.predict(LAYER, X), ArgumentTypeError, "'x' must be an array, a fr"),
        (lambda: fffcpu.dask.predict(ENCODER, X), ArgumentTypeError, "'model' must have labels"),
        (lambda: fffcpu.dask.predict(JUDGE, FRAME), ArgumentTypeError, "a series or a bag of te"),
        (lambda: fffcpu.dask.predict(7, arrays()), ArgumentTypeError, "'model' must be a layer"),
        (lambda: fffcpu.dask.predict_proba(LAYER, arrays()), ArgumentTypeError, "have classes"),
        (lambda: fffcpu.dask.predict_proba(PAIR, arrays()), ArgumentTypeError, "have classes"),
        (
            lambda: fffcpu.dask.route(DenseFeedForward(4, 3, 2), arrays()),
            ArgumentTypeError,
            "must have trees",
        ),
        (lambda: fffcpu.dask.embed(LAYER, FRAME.w), ArgumentTypeError, "be a TextEmbedder"),
        (
            lambda: fffcpu.dask.embed(ENCODER, db.from_sequence(["a"]), "max"),
            ArgumentError,
            "'pooling' must be",
        ),
        (
            lambda: fffcpu.dask.embed(ENCODER, db.from_sequence(["a", 3])).compute(),
            ArgumentTypeError,
            "must hold texts, got 3 at place",
        ),
        (
            lambda: fffcpu.dask.predict(LAYER, da.ones((2, 5))),
            ShapeError,
            "5",
        ),
    ],
)
def test_what_is_wrong_is_told(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_without_dask_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask", None)
    with pytest.raises(MissingExtraError, match=r"fffcpu\[dask\]"):
        fffcpu.dask.predict(LAYER, None)


def test_vectors_are_pooled_as_the_model_says():
    own = BertConfig(
        64, 16, 1, 2, feedforward_size=6, positions=12, pooling="start", normalize=True
    )
    embedder = TextEmbedder(BertEncoder(own, rng=0), TOKENIZER)
    found = fffcpu.dask.embed(embedder, db.from_sequence(TEXTS, npartitions=2)).compute()
    np.testing.assert_allclose(np.array(found), embedder.embed(TEXTS), atol=1e-6)
