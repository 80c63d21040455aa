"""What the pictures show."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from benchmarks.crossover import pictures
from tests.benchmarks.crossover.support import point


@pytest.mark.parametrize(
    ("cheap", "dear", "drawn", "told"),
    [
        ("dense-4", "mlp-16", 1, "not drawn, 10 times beyond the layers: 1 of MLPClassifier"),
        ("mlp-16", "boosting-20x8", 2, ""),  # no layer that it could be beyond
    ],
)
def test_models_far_beyond_the_layers_are_counted_and_not_drawn(cheap, dear, drawn, told):
    axes = Figure().add_subplot()
    pictures.draw_set(axes, "set", [point(cheap, 1.0, 0.8), point(dear, 50.0, 0.9)], "us")
    assert sum(len(places.get_offsets()) for places in axes.collections) == drawn
    assert axes.get_title(loc="right") == told
