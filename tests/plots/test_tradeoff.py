"""Pictures of quality against time."""

from __future__ import annotations

import pytest

from fffcpu.errors import ArgumentError
from fffcpu.plots import Timed, plot_tradeoff

POINTS = [Timed("teacher", 30.0, 1.0), Timed("student", 10.0, 0.9)]


def test_every_panel_has_its_points(figures, tmp_path):
    path = tmp_path / "a.svg"
    plot_tradeoff({"1x16": POINTS, "8x128": POINTS[:1]}, path, "Two encoders")
    assert "<svg" in path.read_text()
    (figure,) = figures
    left, right = figure.axes
    assert [line.get_label() for line in left.lines] == ["teacher", "student"]
    assert [tuple(line.get_xydata()[0]) for line in left.lines] == [(30, 1), (10, 0.9)]
    assert left.get_xlim()[0] == 0
    assert len({line.get_marker() for line in left.lines}) == 2
    assert len(right.lines) == 1
    assert left.get_legend() is not None


@pytest.mark.parametrize("panels", [{}, {"1x16": []}])
def test_no_points_are_an_error(panels, tmp_path):
    with pytest.raises(ArgumentError, match="'panels' must have a panel"):
        plot_tradeoff(panels, tmp_path / "a.svg", "None")
