"""Initial routes from data."""

from __future__ import annotations

import numpy as np
import pytest

from fffcpu import FastFeedForward
from fffcpu.data import Table
from fffcpu.errors import ArgumentError
from fffcpu.recipes import starts
from fffcpu.recipes.fitting import FitSettings, fit


def normal(rows: int, columns: int = 6) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((rows, columns)).astype(np.float32)


def test_clusters_are_found_and_have_equally_many_vectors():
    vectors = normal(100, 5)
    vectors[50:, 2] += 30
    right = starts.halves(vectors, np.random.default_rng(0))
    assert set(right[:50]) | set(right[50:]) == {False, True}
    assert len(set(right[:50])) == len(set(right[50:])) == 1
    direction = starts.between(vectors, right)
    assert np.abs(direction[2]) > 20 * np.abs(np.delete(direction, 2)).max()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nodes_halve_the_rows_that_reach_them(dtype):
    x = normal(1024).astype(dtype)
    layer = FastFeedForward(6, 3, depth=3, trees=2, two_sided=True, dtype=dtype, rng=0)
    before = layer.params["weights_out"].copy()
    starts.start_from_clusters(layer, x, np.random.default_rng(0))
    _, cache = layer.forward(x)
    usage = layer.usage(cache)["weights_in"]
    assert usage.tolist() == [[1024, *[512] * 2, *[256] * 4, *[128] * 8]] * 2
    for node in range(15):
        own = cache.logits[cache.nodes == node]
        assert np.abs(own).mean() == pytest.approx(0.8, abs=0.2)  # of a normal deviation of 1
    np.testing.assert_array_equal(layer.params["weights_out"], before)
    assert (layer.params["weights_in"][0] != layer.params["weights_in"][1]).any(axis=1).all()


def test_rows_that_are_equal_or_few_change_nothing():
    for x in (np.ones((200, 6), np.float32), normal(63)):
        layer = FastFeedForward(6, 3, depth=1, rng=0)
        before = {name: array.copy() for name, array in layer.params.items()}
        starts.start_from_clusters(layer, x, np.random.default_rng(0))
        for name, array in before.items():
            np.testing.assert_array_equal(layer.params[name], array)


@pytest.mark.parametrize("rows", [0, 10, 1000, 10**6, 10**8])
@pytest.mark.parametrize("inputs", [1, 400, 10**6])
def test_the_rows_that_decide_are_not_too_many(rows, inputs):
    step = starts.sample_step(rows, inputs)
    taken = len(range(0, rows, step))
    assert taken <= max(starts.FEWEST_ROWS, starts.MOST_NUMBERS // inputs, 1)
    assert taken <= starts.MOST_ROWS
    assert step == 1 or taken >= 0.4 * min(starts.MOST_ROWS, starts.MOST_NUMBERS // inputs)


def blobs() -> Table:
    """Return rows of 16 groups, which two classes share at random."""
    rng = np.random.default_rng(0)
    group = rng.integers(0, 16, 2000)
    corners = np.array([[group >> k & 1 for k in range(4)]])[0].T
    x = corners * 10.0 + rng.standard_normal((2000, 4))
    return Table(x, np.array([k % 3 % 2 for k in range(16)])[group], classes=("no", "yes"))


@pytest.mark.parametrize("shards", [1, 3])
def test_a_fit_can_start_from_clusters(shards):
    table = blobs()
    few = {"trees": 1, "depth": 3, "epochs": 1, "lr": 0.0, "shards": shards}

    def cut(start):
        layer = fit(table, FitSettings(start=start, **few), progress=False).predictor.layer
        return layer.usage(layer.forward(table.x)[1])["weights_in"][0, 7:]

    assert cut("clusters").min() > 0.8 * 2000 / 8
    assert cut("uniform").min() < 0.5 * 2000 / 8


def test_a_killed_run_resumes_to_the_same_bits(tmp_path):
    settings = FitSettings(start="clusters", trees=2, depth=3, epochs=2)
    whole = fit(blobs(), settings, progress=False).predictor.layer

    class StoppedError(Exception):
        pass

    def stop(evaluation):
        raise StoppedError

    with pytest.raises(StoppedError):
        fit(blobs(), settings, folder=tmp_path, progress=False, callbacks=[stop])
    resumed = fit(blobs(), settings, folder=tmp_path, resume=True, progress=False).predictor.layer
    for name, array in whole.params.items():
        np.testing.assert_array_equal(resumed.params[name], array)


def test_other_starts_are_errors():
    with pytest.raises(ArgumentError, match="'start' must be one of uniform, clusters, got 'x'"):
        FitSettings(start="x")
    assert not FitSettings(layer="dense", start="clusters").starts_from_clusters
