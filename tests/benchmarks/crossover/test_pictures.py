"""What the pictures show."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.crossover import models, pictures
from tests.benchmarks.crossover.support import point


@pytest.mark.parametrize(
    ("cheap", "dear", "drawn", "told"),
    [
        ("dense-4", "mlp-16", 1, "not drawn, 10 times beyond the layers: 1 of MLPClassifier"),
        ("two-1x3", "lightgbm-20x8", 1, "not drawn, 10 times beyond the layers: 1 of LightGBM"),
        ("mlp-16", "boosting-20x8", 2, ""),  # no layer that it could be beyond
    ],
)
def test_models_far_beyond_the_layers_are_counted_and_not_drawn(cheap, dear, drawn, told):
    axes = Figure().add_subplot()
    pictures.draw_set(axes, "set", [point(cheap, 1.0, 0.8), point(dear, 50.0, 0.9)], "us")
    assert sum(len(places.get_offsets()) for places in axes.collections) == drawn
    assert axes.get_title(loc="right") == told


def test_families_differ_in_marker_and_colour():
    assert set(pictures.STYLES) == {model.family for model in models.MODELS.values()}
    for kind in zip(*pictures.STYLES.values(), strict=True):
        assert len(set(kind)) == len(pictures.STYLES)


def crowd(seed):
    """Points of all models, of which more than ten are on the front, close together."""
    rng = np.random.default_rng(seed)
    costs = np.sort(np.exp(rng.uniform(0, 1, len(models.MODELS))))
    errors = 0.1 * np.exp(-costs) * rng.choice((1, 3), len(costs), p=(0.4, 0.6))
    return [
        point(name, cost, 1 - error)
        for name, cost, error in zip(models.MODELS, costs, errors, strict=True)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_names_of_the_front_cover_neither_points_nor_names(seed):
    figure = Figure((6.5, 4.2), layout="constrained")
    renderer = FigureCanvasAgg(figure).get_renderer()
    axes, points = figure.add_subplot(), crowd(seed)
    pictures.draw_set(axes, "set", points, "us")
    figure.draw_without_rendering()
    pictures.add_labels(axes, points, renderer)
    names = [text for text in axes.texts if text.get_text()]
    assert {name.get_text() for name in names} == {own.model for own in pictures.front(points)}
    assert len(names) > 10
    boxes = [name.get_window_extent(renderer) for name in names]
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    for place, box in itertools.product(points, boxes):
        x, y = axes.transData.transform((place.cost, pictures.height(place)))
        assert not box.contains(x, y)


@pytest.mark.parametrize("bounds", [(4.0, 15.0), (0.02, 20.0), (0.3, 0.08), (1e-5, 0.9), (7, 8)])
def test_an_axis_has_few_ticks(bounds):
    low, high = sorted(bounds)
    some = pictures.steps(*bounds)
    ticks = [step * 10.0**decade for decade in range(-6, 3) for step in some]
    assert sum(low <= tick <= high for tick in ticks) <= pictures.MOST_TICKS
    assert some[0] == 1


def test_equal_points_give_equal_files_with_every_family_named_once(tmp_path):
    names = ("fff-4x3", "two-4x3", "dense-32", "lightgbm-20x8")
    points = [point(name, 1.0 + k, 0.8 + k / 100) for k, name in enumerate(names)]
    for name in ("one", "two"):
        pictures.draw({"letters": points, "dna": points}, "us", tmp_path / f"{name}.svg")
    text = (tmp_path / "one.svg").read_text()
    assert text == (tmp_path / "two.svg").read_text()
    assert all(text.count(f">{own.model}<") == 2 for own in points)
    assert all(text.count(f">{own.family}<") == 1 for own in points)
