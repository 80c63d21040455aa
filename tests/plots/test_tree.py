"""Pictures of a tree's use."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_rgba
from matplotlib.image import imread

from fffcpu import FastFeedForward, LeafFeedForward
from fffcpu.diagnosis import diagnose
from fffcpu.plots import (
    plot_tree,
)
from fffcpu.plots import tree as trees


def usage_of(depth, kind="leaf", rows=60):
    """Usage of a random tree by random rows."""
    layer = (
        LeafFeedForward(3, 2, depth, 1, rng=0)
        if kind == "leaf"
        else FastFeedForward(3, 2, depth, rng=0)
    )
    return diagnose(layer, np.random.default_rng(0).standard_normal((rows, 3))).trees[0]


def cells(axes):
    """The meshes of cells, one for each level."""
    return [found for found in axes.collections if isinstance(found, QuadMesh)]


@pytest.mark.parametrize("kind", ["leaf", "node"])
@pytest.mark.parametrize("depth", [0, 1, 5])
def test_trees_are_drawn(depth, kind, figures, tmp_path):
    usage = usage_of(depth, kind)
    path = tmp_path / "tree.png"
    plot_tree(usage, path, "a title")
    assert path.read_bytes().startswith(b"\x89PNG")
    nodes, _, leaves, levels = figures[0].axes  # the second is the colours' scale
    shown = [mesh.get_array().ravel() for mesh in cells(nodes)]
    assert [len(level) for level in shown] == [2**level for level in range(depth + 1)]
    np.testing.assert_array_equal(np.ma.getmaskarray(shown[-1]), usage.leaf_visits == 0)
    ratios = np.maximum(usage.leaf_visits * 2**depth / 60, 1 / 16)
    np.testing.assert_allclose(shown[-1].data, np.log2(ratios))
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


def test_numbers_can_be_read_on_their_cells(figures, tmp_path):
    usage = usage_of(5, rows=900)
    plot_tree(usage, tmp_path / "tree.png", "a title")
    nodes = figures[0].axes[0]
    fills = np.concatenate([mesh.to_rgba(mesh.get_array().ravel()) for mesh in cells(nodes)[:4]])
    assert len(fills) == len(nodes.texts) == 15
    for fill, text, visits in zip(fills, nodes.texts, usage.visits[:15], strict=True):
        light, dark = sorted((luminance(fill), luminance(to_rgba(text.get_color()))), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 4.5  # the least that the guidelines ask for
        assert (text.get_text() == "none") == (visits == 0)
    assert {text.get_color() for text in nodes.texts} == {"black", "white"}


def luminance(colour):
    """Relative luminance, with a power of 2.2 instead of sRGB's curve."""
    return float(np.array([0.2126, 0.7152, 0.0722]) @ np.asarray(colour)[:3] ** 2.2)


@pytest.mark.parametrize(
    ("share", "text"), [(0, "none"), (0.0001, "<0.1%"), (0.0005, "0.1%"), (0.302, "30.2%")]
)
def test_a_node_that_few_rows_visit_is_not_one_without_rows(share, text):
    assert trees._percentage(share) == text


@pytest.mark.parametrize("kind", ["leaf", "node"])
def test_legends_cover_no_line(kind, figures, tmp_path):
    plot_tree(usage_of(5, kind), tmp_path / "tree.png", "a title")
    for axes in figures[0].axes[2:]:
        legend, ticks = axes.get_legend(), axes.get_xticklabels()
        top = legend.get_window_extent().y1
        assert top < axes.get_window_extent().y0
        below = [axes.xaxis.label, *ticks]
        assert all(top < text.get_window_extent().y0 for text in below if text.get_text())


def test_the_axis_of_leaves_counts_whole_leaves(figures, tmp_path):
    plot_tree(usage_of(0), tmp_path / "tree.png", "a title")
    nodes, _, leaves, _ = figures[0].axes
    assert all(float(tick).is_integer() for tick in leaves.get_xticks())
    assert nodes.get_xlabel().endswith("; 1 level")


def test_the_lowest_levels_of_a_deep_tree_are_left_out(figures, tmp_path, monkeypatch):
    monkeypatch.setattr(trees, "DRAWN_LEVELS", 3)
    plot_tree(usage_of(5), tmp_path / "tree.png", "a title")
    nodes = figures[0].axes[0]
    assert [mesh.get_array().size for mesh in cells(nodes)] == [1, 2, 4]
    assert "the first 3 of 6 levels" in nodes.get_xlabel()


@pytest.mark.parametrize("depth", [8, trees.DRAWN_LEVELS - 1])
def test_the_colours_of_neighbours_do_not_run_into_each_other(depth, figures, tmp_path):
    path = tmp_path / "tree.png"
    plot_tree(usage_of(depth, rows=900), path, "a title")
    figure = figures[0]
    nodes = figure.axes[0]
    pixels = imread(path)[..., :3]
    height, width, _ = pixels.shape
    frame = nodes.get_position()
    mesh = cells(nodes)[-1]  # the leaves, without lines between them
    allowed = np.unique(mesh.to_rgba(mesh.get_array()).reshape(-1, 4)[:, :3], axis=0)
    assert len(allowed) > 2
    row = round(height * (1 - frame.y0 - frame.height * 0.5 / (depth + 1)))
    left, right = round(width * frame.x0) + 3, round(width * frame.x1) - 3
    assert right - left > 2**depth  # each node has a pixel
    strip = pixels[row, left:right]
    distances = np.abs(strip[:, np.newaxis] - allowed).max(axis=2).min(axis=1)
    assert distances.max() < 1 / 255


def test_a_measure_has_its_colour_in_every_picture(figures, tmp_path):
    for depth, kind in ((0, "node"), (5, "node"), (5, "leaf")):
        plot_tree(usage_of(depth, kind), tmp_path / "tree.png", "a title")
    found = {}
    for figure in figures:
        for line in figure.axes[3].lines:
            style = (line.get_color(), line.get_marker())
            assert found.setdefault(line.get_label(), style) == style
    assert found == trees.MEASURES
    assert len(set(found.values())) == len(found)
