"""The models: their settings, their operations, and the library that may be missing."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.crossover import models
from fffcpu.recipes.fitting import FitSettings


def test_visits_of_a_tree_are_the_nodes_that_a_mean_row_compares_at():
    from sklearn.ensemble import HistGradientBoostingClassifier

    x = np.random.default_rng(0).standard_normal((300, 4))
    model = HistGradientBoostingClassifier(max_iter=3, max_leaf_nodes=5, early_stopping=False)
    model.fit(x, x[:, 0] + x[:, 1] > 0)
    for (grown,) in model._predictors:
        leaves = grown.nodes[grown.nodes["is_leaf"] == 1]
        expected = (leaves["depth"].astype(float) * leaves["count"]).sum() / 300
        assert models.visits(grown.nodes) == pytest.approx(expected)


def leaf(count):
    return {"leaf_value": 0.5, "leaf_count": count}


def test_comparisons_of_lightgbm_are_the_nodes_that_a_mean_row_compares_at():
    inner = {"internal_count": 30, "left_child": leaf(20), "right_child": leaf(10)}
    tree = {"internal_count": 40, "left_child": leaf(10), "right_child": inner}
    assert models.comparisons(tree) == pytest.approx(1.75)  # 30 rows compare twice, 10 once
    assert models.comparisons(leaf(40)) == 0


@pytest.mark.parametrize(("name", "two_sided"), [("fff-2x7", False), ("two-2x7", True)])
def test_names_say_whether_nodes_are_two_sided(name, two_sided):
    settings = models.settings_of("letters", name, {"lr": 0.02, "weight_decay": 0.2}, quick=False)
    fitted = FitSettings(**settings)
    assert (fitted.trees, fitted.depth, fitted.two_sided) == (2, 7, two_sided)


def test_all_layers_try_the_same_settings():
    layers = [family for family in models.TRAIN if family not in models.OTHERS]
    assert {*models.FFF, models.DENSE} == set(layers)
    for family in layers:
        assert models.TRIES[family] == models.LAYER_TRIES


@pytest.mark.parametrize("present", [True, False])
def test_without_lightgbm_its_models_are_left_out_by_name(present, monkeypatch, capsys):
    monkeypatch.setattr(models, "HAS_LIGHTGBM", present)
    names = ["dense-4", "lightgbm-20x8", "boosting-20x8"]
    assert models.installed(names) == [name for name in names if present or "light" not in name]
    assert models.installed(["dense-4"]) == ["dense-4"]
    told = capsys.readouterr().err.strip()
    assert told == ("" if present else "LightGBM left out: pip install 'fffcpu[bench]'")
