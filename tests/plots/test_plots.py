"""The pictures: that they are written, and what is on them where it can be told."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from fffcpu import FastFeedForward, LeafFeedForward, plots
from fffcpu.diagnosis import diagnose, reached_leaves
from fffcpu.errors import ArgumentError, MissingExtraError, ShapeError
from fffcpu.plots import (
    SpeedUp,
    check_plot_path,
    plot_prototypes,
    plot_regions,
    plot_speedups,
    plot_tree,
)

POINTS = [
    SpeedUp(2**level - 1, level, rows, 2.0**level / (2 + rows / 8))
    for level in range(1, 6)
    for rows in (1, 16, 64)
]


@pytest.mark.parametrize(("ending", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
@pytest.mark.parametrize("points", [POINTS, POINTS[:1], POINTS[::2]], ids=["all", "one", "gaps"])
def test_pictures_are_written(points, ending, start, tmp_path):
    path = tmp_path / f"speed.{ending}"
    plot_speedups(points, path, "a title")
    assert path.read_bytes().startswith(start)


@pytest.fixture
def figures(monkeypatch):
    """The figures that a test draws."""
    made = []
    new_figure = plots._new_figure
    monkeypatch.setattr(
        plots, "_new_figure", lambda *size: made.append(new_figure(*size)) or made[-1]
    )
    return made


def drawn(figures, tmp_path) -> list:
    """The panels of a picture of speed-ups."""
    plot_speedups(POINTS, tmp_path / "speed.png", "a title")
    return figures[0].axes


def test_lines_hold_the_points(figures, tmp_path):
    by_width, by_rows = drawn(figures, tmp_path)[:2]
    lines = {line.get_label(): line.get_xydata() for line in by_width.lines}
    assert {"1 row", "16 rows", "64 rows"} <= set(lines)
    expected = [(point.neurons, point.value) for point in POINTS if point.rows == 16]
    np.testing.assert_allclose(lines["16 rows"], expected)
    bound = lines["arithmetic: neurons held / used"]
    np.testing.assert_allclose(
        bound, [(2**level - 1, (2**level - 1) / level) for level in range(1, 6)]
    )
    lines = {line.get_label(): line.get_xydata() for line in by_rows.lines}
    expected = [(point.rows, point.value) for point in POINTS if point.neurons == 7]
    np.testing.assert_allclose(lines["7 neurons"], expected)


def test_every_axis_is_named(figures, tmp_path):
    panels = drawn(figures, tmp_path)[:3]
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in panels)
    assert all(axes.get_xscale() == axes.get_yscale() == "log" for axes in panels[:2])


def test_the_frontier_runs_between_winners():
    values = np.array([[0.5, 2.0, np.nan], [0.5, 0.9, 3.0]])
    assert set(plots._frontier(values)) == {
        ((1, 0), (1, 1)),  # in the lower row between columns 0 and 1
        ((1, 1), (2, 1)),  # in column 1 between the rows
        ((2, 1), (2, 2)),  # in the upper row between columns 1 and 2
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.871, "0.87x"),
        (1.5, "1.50x"),
        (9.94, "9.9x"),
        (9.96, "10x"),
        (1234, "1,234x"),
        (np.nan, ""),
    ],
)
def test_cells(value, text):
    assert plots._cell(value) == text


def test_no_points_are_an_error(tmp_path):
    with pytest.raises(ArgumentError, match="argument 'points'"):
        plot_speedups([], tmp_path / "speed.png", "a title")


def test_paths_are_checked_beforehand(tmp_path):
    check_plot_path(tmp_path / "speed.PNG")
    with pytest.raises(ArgumentError, match=r"must end in one of .*\.png.*, got '.*speed'"):
        check_plot_path(tmp_path / "speed")
    with pytest.raises(FileNotFoundError, match="absent"):
        check_plot_path(tmp_path / "absent" / "speed.png")


def test_the_missing_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"fffcpu\[plot\]"):
        check_plot_path(tmp_path / "speed.png")


# --- How a tree is used --------------------------------------------------------------------------


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
    shown = nodes.images[0].get_array()[:: plots.LEVEL_DOTS]
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
    monkeypatch.setattr(plots, "DRAWN_LEVELS", 3)
    plot_tree(usage_of(5), tmp_path / "tree.png", "a title")
    nodes = figures[0].axes[0]
    assert nodes.images[0].get_array().shape == (3 * plots.LEVEL_DOTS, 4)
    assert "6 levels, of which the first 3 are shown" in nodes.get_xlabel()


@pytest.mark.parametrize("classes", [(), ("cat", "dog"), tuple(range(12))])
def test_regions_are_drawn(classes, figures, tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "REGION_CELLS", 24)
    layer = FastFeedForward(2, max(1, len(classes)), 3, 2, rng=3)
    rows = np.random.default_rng(0).uniform(-1, 1, (9, 2))
    path = tmp_path / "regions.svg"
    plot_regions(layer, rows, path, "a title", tree=1, classes=classes)
    assert path.read_bytes().startswith(b"<?xml")
    panels = figures[0].axes
    assert len(panels) == 1 + bool(classes)
    for axes in panels:
        np.testing.assert_allclose(axes.collections[0].get_offsets(), rows)
    left, right, bottom, top = panels[0].images[0].get_extent()
    assert left < rows[:, 0].min() < rows[:, 0].max() < right
    assert bottom < rows[:, 1].min() < rows[:, 1].max() < top
    colours = panels[0].images[0].get_array()
    points = np.stack(np.meshgrid(np.linspace(left, right, 24), np.linspace(bottom, top, 24)), -1)
    leaves = reached_leaves(layer, points, 1)
    shown = {tuple(colour) for colour in colours.reshape(-1, 4)} - {(0, 0, 0, 1)}
    assert 1 < len(shown) <= len(np.unique(leaves))
    assert (0, 0, 0, 1) in {tuple(colour) for colour in colours.reshape(-1, 4)}
    if classes:
        predicted = np.unique(layer(points).argmax(axis=-1))
        named = [text.get_text() for text in panels[1].get_legend().get_texts()]
        assert named == [str(classes[i]) for i in predicted]


def test_regions_around_a_single_row(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "REGION_CELLS", 4)
    low, high = plots._limits(np.array([[3, 5]]))
    assert (low.tolist(), high.tolist()) == ([2.5, 4.5], [3.5, 5.5])
    plot_regions(LeafFeedForward(2, 1, 2, 1, rng=0), [[3, 5]], tmp_path / "regions.png", "a title")


@pytest.mark.parametrize("shape", [(0, 2), (4, 3), (2,)])
def test_regions_need_rows_of_two_features(shape, tmp_path):
    layer = FastFeedForward(2, 1, 1, rng=0)
    with pytest.raises(ShapeError, match=r"argument 'x' must have shape \(rows, 2\), got shape"):
        plot_regions(layer, np.ones(shape), tmp_path / "regions.png", "a title")


def test_prototypes_are_drawn_in_the_same_shades(figures, tmp_path):
    images = np.arange(9 * 6.0).reshape(9, 2, 3)
    captions = [f"leaf {i}" for i in range(9)]
    path = tmp_path / "means.pdf"
    plot_prototypes(images, captions, path, "a title")
    assert path.read_bytes().startswith(b"%PDF")
    assert [axes.get_title() for axes in figures[0].axes] == captions
    for axes, image in zip(figures[0].axes, images, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), image)
        assert axes.images[0].get_clim() == (0, 53)


@pytest.mark.parametrize(
    ("shape", "captions"), [((0, 2, 2), []), ((1, 4), ["a"]), ((2, 2, 2), "a")]
)
def test_prototypes_need_an_image_for_each_caption(shape, captions, tmp_path):
    with pytest.raises(ShapeError, match="argument 'images' must have shape"):
        plot_prototypes(np.ones(shape), captions, tmp_path / "means.png", "a title")


def test_a_history(tmp_path):
    from fffcpu.plots import plot_history

    history = [
        {"step": 1, "train_loss": 3.0, "lr": 0.1, "gradient_norm": 1.0},
        {"step": 2, "train_loss": 2.0, "lr": 0.2, "validation_loss": None},
        {"step": 3, "lr": 0.1, "validation_loss": 2.5},
    ]
    path = tmp_path / "history.svg"
    plot_history(history, path, "A run")
    assert "<svg" in path.read_text()
    with pytest.raises(ArgumentError, match="'history' must have at least one line"):
        plot_history([], path, "A run")
