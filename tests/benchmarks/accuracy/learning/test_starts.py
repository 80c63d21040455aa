"""Initial weights that fit the rows."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.accuracy.learning import starts
from benchmarks.accuracy.learning.recipes import BALANCED, TARGETS
from fffcpu import FastFeedForward


@pytest.mark.parametrize("start", [BALANCED, TARGETS])
def test_nodes_halve_the_rows_that_reach_them(start):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1024, 6)).astype(np.float32)
    y = x @ rng.standard_normal((6, 3)).astype(np.float32)
    layer = FastFeedForward(6, 3, depth=3, trees=2, two_sided=True, rng=0)
    before = layer.params["weights_in"].copy()
    starts.fit_start(layer, x, y, start, np.random.default_rng(0))
    _, cache = layer.forward(x)
    usage = layer.usage(cache)["weights_in"]
    assert usage.tolist() == [[1024, *[512] * 2, *[256] * 4, *[128] * 8]] * 2
    for node in range(15):
        own = cache.logits[cache.nodes == node]
        assert np.abs(own).mean() == pytest.approx(0.8, abs=0.2)  # of a normal deviation of 1
    after = layer.params["weights_in"]
    turned = np.einsum("tni,tni->tn", before, after) / np.linalg.norm(before, axis=2)
    turned /= np.linalg.norm(after, axis=2)
    assert (turned > 0.999).all() == (start == BALANCED)


def test_nodes_that_few_rows_reach_keep_their_weights():
    x = np.random.default_rng(0).standard_normal((100, 6)).astype(np.float32)
    layer = FastFeedForward(6, 3, depth=1, two_sided=True, rng=0)
    before = layer.params["weights_in"].copy()
    starts.fit_start(layer, x, x[:, :3], BALANCED, np.random.default_rng(0))
    np.testing.assert_array_equal(layer.params["weights_in"][0, 1:], before[0, 1:])
    assert (layer.params["weights_in"][0, 0] != before[0, 0]).all()


def test_a_node_turns_to_what_differs_most_in_the_targets():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5000, 6)).astype(np.float32)
    direction = starts.towards(x, np.column_stack((x[:, 1], 5 * x[:, 4])))
    assert np.abs(direction[4]) > 50 * np.abs(np.delete(direction, 4)).max()


def test_classes_are_vectors():
    vectors = starts.vectors_of(np.array([2, 0]), 3)
    assert vectors.tolist() == [[0, 0, 1], [1, 0, 0]]
