"""The operations of models."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.crossover import models
from fffcpu import DenseFeedForward, FastFeedForward, LeafFeedForward


def test_multiply_adds_are_those_of_the_neurons_and_gates_of_a_row():
    count = models.multiply_adds
    assert count(FastFeedForward(9, 5, 3, trees=2, rng=1).config) == 2 * 4 * (9 + 5)
    assert count(LeafFeedForward(9, 5, 3, 6, rng=0).config) == 3 * 9 + 6 * (9 + 5)
    assert count(DenseFeedForward(9, 5, 21, rng=0).config) == 21 * (9 + 5)


def test_visits_of_a_tree_are_the_nodes_that_a_mean_row_compares_at():
    from sklearn.ensemble import HistGradientBoostingClassifier

    x = np.random.default_rng(0).standard_normal((300, 4))
    model = HistGradientBoostingClassifier(max_iter=3, max_leaf_nodes=5, early_stopping=False)
    model.fit(x, x[:, 0] + x[:, 1] > 0)
    for (grown,) in model._predictors:
        leaves = grown.nodes[grown.nodes["is_leaf"] == 1]
        expected = (leaves["depth"].astype(float) * leaves["count"]).sum() / 300
        assert models.visits(grown.nodes) == pytest.approx(expected)
