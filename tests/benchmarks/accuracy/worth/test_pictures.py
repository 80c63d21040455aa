"""Labels that cover neither each other nor a marker."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from benchmarks.accuracy.worth import pictures
from benchmarks.accuracy.worth.models import MODELS
from benchmarks.accuracy.worth.pictures import Box, Point

FRAME = Box(200, 150, 200, 150)


@pytest.mark.parametrize("seed", range(5))
def test_labels_overlap_nothing(seed):
    rng = np.random.default_rng(seed)
    legend = Box(340, 40, 50, 30)
    boxes = [Box(*rng.uniform((60, 90), (320, 250)), 18, 5) for _ in range(18)]
    found = pictures.placed(boxes, FRAME, [legend])
    markers = [box._replace(width=4, height=4) for box in boxes]
    for one, other in itertools.combinations(found, 2):
        assert one.overlap(other) == 0
    for label, other in itertools.product(found, [legend, *markers]):
        assert label.overlap(other) == 0
        assert label.within(FRAME)
    for label, box in zip(found, boxes, strict=True):
        assert pictures.distance(label, box) < 2 * max(pictures.DISTANCES)


def test_a_label_without_a_free_place_is_still_written():
    everything = [Box(200, 150, 400, 300)]
    (found,) = pictures.placed([Box(200, 150, 18, 5)], FRAME, everything)
    assert found.within(FRAME)


def test_equal_points_give_equal_files(tmp_path):
    points = [
        Point(model, MODELS[model].family, 1.0 + k, 0.5 + k / 100)
        for k, model in enumerate(("dense-32", "dense-64", "fff-4x5", "two-4x5", "leaf-4x32"))
    ]
    for name in ("one", "two"):
        pictures.draw({"batches": points, "single rows": points[:3]}, tmp_path / f"{name}.svg")
    text = (tmp_path / "one.svg").read_text()
    assert text == (tmp_path / "two.svg").read_text()
    assert [text.count(f">{point.model}<") for point in points] == [2, 2, 2, 1, 1]
