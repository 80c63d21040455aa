"""Pictures of what leaves serve: regions and mean rows."""

from __future__ import annotations

import numpy as np
import pytest

from fffcpu import FastFeedForward, LeafFeedForward
from fffcpu.diagnosis import reached_leaves
from fffcpu.errors import ShapeError
from fffcpu.plots import leaves as leaf_plots
from fffcpu.plots import (
    plot_prototypes,
    plot_regions,
)


@pytest.mark.parametrize("classes", [(), ("cat", "dog"), tuple(range(12))])
def test_regions_are_drawn(classes, figures, tmp_path, monkeypatch):
    monkeypatch.setattr(leaf_plots, "REGION_CELLS", 24)
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
        legend = panels[1].get_legend()
        assert legend.get_window_extent().x0 > panels[1].get_window_extent().x1  # over no row
        assert {patch.get_alpha() for patch in legend.get_patches()} == {
            panels[1].images[0].get_alpha()
        }


def test_regions_around_a_single_row(tmp_path, monkeypatch):
    monkeypatch.setattr(leaf_plots, "REGION_CELLS", 4)
    low, high = leaf_plots._limits(np.array([[3, 5]]))
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
        assert axes.images[0].get_interpolation() == "nearest"


@pytest.mark.parametrize(
    ("shape", "captions"), [((0, 2, 2), []), ((1, 4), ["a"]), ((2, 2, 2), "a")]
)
def test_prototypes_need_an_image_for_each_caption(shape, captions, tmp_path):
    with pytest.raises(ShapeError, match="argument 'images' must have shape"):
        plot_prototypes(np.ones(shape), captions, tmp_path / "means.png", "a title")
