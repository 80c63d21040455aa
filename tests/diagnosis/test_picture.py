"""A tree as characters."""

from __future__ import annotations

import numpy as np
import pytest

from fffcpu import FastFeedForward
from fffcpu.diagnosis import diagnose
from fffcpu.diagnosis import picture as pictures


def test_the_picture_of_a_tree():
    layer = FastFeedForward(2, 1, 8, rng=0)
    layer.params["weights_in"][...] = 0
    layer.params["weights_in"][0, 0] = [1, 0]
    layer.params["bias_in"][...] = -1
    rows = np.array([[3.0, 0.0]] * 15 + [[-1.0, 0.0]])
    picture = diagnose(layer, rows).trees[0].draw().splitlines()
    assert len(picture) == 7  # a level of 64 nodes is the last with a character for each
    assert {len(line) for line in picture} == {5 + 64 + 1}
    assert picture[0][5:-1].strip() == "100%"
    assert picture[1][5:-1].split() == ["6%", "94%"]
    assert picture[2][5:-1].split() == ["6%", "x", "94%", "x"]
    assert picture[4][5:-1] == "++++" + 28 * "x" + "####" + 28 * "x"


@pytest.mark.parametrize(
    ("share", "mark"), [(0, "x"), (0.24, "."), (0.25, "-"), (0.99, "-"), (1, "+"), (4, "#")]
)
def test_marks_compare_with_an_even_share(share, mark):
    assert pictures._cell(share / 32, 32) == 2 * mark
