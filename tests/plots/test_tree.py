"""Pictures of a tree's use."""

from __future__ import annotations

import numpy as np
import pytest

from fffcpu import FastFeedForward, LeafFeedForward
from fffcpu.diagnosis import diagnose
from fffcpu.plots import (
    plot_tree,
)
from fffcpu.plots import tree as trees


def usage_of(depth, kind="leaf"):
    """Usage of a random tree by random rows."""
    layer = (
        LeafFeedForward(3, 2, depth, 1, rng=0)
        if kind == "leaf"
        else FastFeedForward(3, 2, depth, rng=0)
    )
    return diagnose(layer, np.random.default_rng(0).standard_normal((60, 3))).trees[0]


@pytest.mark.parametrize("kind", ["leaf", "node"])
@pytest.mark.parametrize("depth", [0, 1, 5])
def test_trees_are_drawn(depth, kind, figures, tmp_path):
    usage = usage_of(depth, kind)
    path = tmp_path / "tree.png"
    plot_tree(usage, path, "a title")
    assert path.read_bytes().startswith(b"\x89PNG")
    nodes, _, leaves, levels = figures[0].axes  # the second is the colours' scale
    shown = nodes.images[0].get_array()[:: trees.LEVEL_DOTS]
    assert shown.shape == (depth + 1, 2**depth)
    np.testing.assert_array_equal(shown.mask[-1], usage.leaf_visits == 0)
    ratios = np.maximum(usage.leaf_visits * 2**depth / 60, 1 / 16)
    np.testing.assert_allclose(shown.data[-1], np.log2(ratios))
    numbers = [text.get_text() for text in nodes.texts]
    assert numbers[0] == "100.0%"
    assert len(numbers) == 2 ** min(4, depth + 1) - 1
    served = leaves.lines[0].get_ydata()
    assert (served[0], served[1], served[-1]) == (0, usage.largest_share, 1)
    lines = {line.get_label(): line.get_ydata() for line in levels.lines}
    np.testing.assert_allclose(
        lines["nodes reached"], [level.reached / level.nodes for level in usage.levels]
    )
    assert ("choice entropy / log 2" in lines) == (kind == "leaf" and depth > 0)
    assert ("balance of splits" in lines) == (depth > 0)
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in (nodes, leaves, levels))


def test_the_lowest_levels_of_a_deep_tree_are_left_out(figures, tmp_path, monkeypatch):
    monkeypatch.setattr(trees, "DRAWN_LEVELS", 3)
    plot_tree(usage_of(5), tmp_path / "tree.png", "a title")
    nodes = figures[0].axes[0]
    assert nodes.images[0].get_array().shape == (3 * trees.LEVEL_DOTS, 4)
    assert "the first 3 of 6 levels" in nodes.get_xlabel()
