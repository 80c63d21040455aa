"""Labels that cover neither each other nor a marker."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from benchmarks import labels
from benchmarks.labels import Box

FRAME = Box(200, 150, 200, 150)


@pytest.mark.parametrize("seed", range(5))
def test_labels_overlap_nothing(seed):
    rng = np.random.default_rng(seed)
    legend = Box(340, 40, 50, 30)
    boxes = [Box(*rng.uniform((60, 90), (320, 250)), 18, 5) for _ in range(18)]
    found = labels.placed(boxes, FRAME, [legend])
    markers = [box._replace(width=4, height=4) for box in boxes]
    for one, other in itertools.combinations(found, 2):
        assert one.overlap(other) == 0
    for label, other in itertools.product(found, [legend, *markers]):
        assert label.overlap(other) == 0
        assert label.within(FRAME)
    for label, box in zip(found, boxes, strict=True):
        assert labels.distance(label, box) < 2 * max(labels.DISTANCES)


def test_a_label_without_a_free_place_is_still_written():
    everything = [Box(200, 150, 400, 300)]
    (found,) = labels.placed([Box(200, 150, 18, 5)], FRAME, everything)
    assert found.within(FRAME)
