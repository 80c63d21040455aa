"""Pictures of speed-ups: their points, their map, their files."""

from __future__ import annotations

import numpy as np
import pytest

from fffcpu.errors import ArgumentError
from fffcpu.plots import (
    SpeedUp,
    plot_speedups,
    speedups,
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
    limit = lines["arithmetic: neurons held / used"]
    np.testing.assert_allclose(
        limit, [(2**level - 1, (2**level - 1) / level) for level in range(1, 6)]
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
    assert set(speedups._frontier(values)) == {
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
    assert speedups._cell(value) == text


def test_no_points_are_an_error(tmp_path):
    with pytest.raises(ArgumentError, match="argument 'points'"):
        plot_speedups([], tmp_path / "speed.png", "a title")
