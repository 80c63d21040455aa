"""The operations of models."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.crossover import models


def test_visits_of_a_tree_are_the_nodes_that_a_mean_row_compares_at():
    from sklearn.ensemble import HistGradientBoostingClassifier

    x = np.random.default_rng(0).standard_normal((300, 4))
    model = HistGradientBoostingClassifier(max_iter=3, max_leaf_nodes=5, early_stopping=False)
    model.fit(x, x[:, 0] + x[:, 1] > 0)
    for (grown,) in model._predictors:
        leaves = grown.nodes[grown.nodes["is_leaf"] == 1]
        expected = (leaves["depth"].astype(float) * leaves["count"]).sum() / 300
        assert models.visits(grown.nodes) == pytest.approx(expected)
