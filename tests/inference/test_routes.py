"""Statistics of training rows by leaf, and the explanations that they give."""

from __future__ import annotations

import numpy as np
import pytest

from fffcpu import DenseFeedForward, FastFeedForward, LeafFeedForward, Predictor, Schema
from fffcpu.errors import ArgumentError, CheckpointError
from fffcpu.inference import routes
from fffcpu.inference.routes import RouteStatistics, final_nodes

RNG = np.random.default_rng(0)
X = RNG.standard_normal((300, 4)).astype(np.float32)
CLASSES = RNG.integers(0, 3, 300)
NUMBERS = RNG.standard_normal(300)
LAYERS = {
    "fast": FastFeedForward(4, 3, 3, 2, rng=0),
    "leaf": LeafFeedForward(4, 3, 2, 3, rng=0),
}


def blocks(layer, targets, size=64):
    for start in range(0, len(X), size):
        rows = slice(start, start + size)
        yield final_nodes(layer, X[rows]), targets[rows]


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_rows_of_each_class_are_counted_by_leaf(layer):
    statistics = RouteStatistics.of(blocks(layer, CLASSES), 3)
    last = final_nodes(layer, X)
    for tree, found in enumerate(statistics.explain(last)):
        assert found.shape == (300, 3)
        for row in range(0, 300, 17):
            shared = CLASSES[last[:, tree] == last[row, tree]]
            assert found[row].tolist() == np.bincount(shared, minlength=3).tolist()


@pytest.mark.parametrize("shift", [0.0, 1.7e9])
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_numbers_have_count_mean_and_deviation(layer, shift):
    statistics = RouteStatistics.of(blocks(layer, NUMBERS + shift), 0, shift)
    last = final_nodes(layer, X)
    for tree, found in enumerate(statistics.explain(last)):
        for row in range(0, 300, 17):
            shared = NUMBERS[last[:, tree] == last[row, tree]]
            expected = [len(shared), shared.mean() + shift, shared.std()]
            np.testing.assert_allclose(found[row], expected, rtol=1e-6, atol=1e-6)


def test_leaves_that_training_did_not_reach_have_no_rows():
    statistics = RouteStatistics([np.array([4, 7])], [np.array([[1.0, 2.0], [3.0, 4.0]])], 2)
    found = statistics.explain(np.array([[7], [5], [9], [4]]))
    assert found[0].tolist() == [[3, 4], [0, 0], [0, 0], [1, 2]]


def test_too_many_leaves_are_not_stored(monkeypatch):
    monkeypatch.setattr(routes, "MOST_NUMBERS", 10)
    assert RouteStatistics.of(blocks(LAYERS["fast"], CLASSES), 3) is None


def test_a_predictor_explains_after_saving_and_loading(tmp_path):
    layer = LAYERS["fast"]
    statistics = RouteStatistics.of(blocks(layer, CLASSES), 3)
    predictor = Predictor(layer, Schema("classification", ("a", "b", "c")), statistics)
    predictor.save(tmp_path / "model")
    loaded = Predictor.load(tmp_path / "model")
    for found, expected in zip(loaded.explain(X), predictor.explain(X), strict=True):
        assert found.tolist() == expected.tolist()
    with pytest.raises(ArgumentError, match="no statistics of its training rows"):
        Predictor(layer, predictor.schema).explain(X)
    assert not hasattr(DenseFeedForward(4, 3, 2, rng=0), "route")


@pytest.mark.parametrize(
    "change",
    [
        {"classes": "3"},
        {"classes": True},
        {"leaves": [[1, 2]]},
        {"leaves": [[2, 1], [1, 2]]},
        {"leaves": [[], []], "outcomes": [[], []]},
        {"leaves": [["a"], [1]]},
        {"outcomes": [[[1, 2, 3]], [[1, 2]]]},
        {"outcomes": None},
    ],
)
def test_damaged_statistics_are_refused(change):
    values = {
        "classes": 3,
        "leaves": [[1, 2], [1, 2]],
        "outcomes": [[[1, 2, 3], [4, 5, 6]], [[1, 2, 3], [4, 5, 6]]],
    }
    assert RouteStatistics.from_dict(values).to_dict()["leaves"] == values["leaves"]
    with pytest.raises(CheckpointError, match="must be statistics of routes"):
        RouteStatistics.from_dict({**values, **change})
