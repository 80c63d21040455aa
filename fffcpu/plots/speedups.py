"""Measured speed-ups over a dense layer, in three panels.

The panels show speed-ups by neurons held, by rows per call, and by both as a map. On the map, a
line marks where the dense layer and FastFeedForward are equally fast.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fffcpu.errors import ArgumentError, require_extra
from fffcpu.plots.figure import MARKERS, colours, new_figure, save, text_colour

__all__ = ["SpeedUp", "plot_speedups"]

LINES_BY_ROWS = 5
LINES_BY_WIDTH = 6
"""Largest number of lines in a panel."""

SCALE = (0.01, 0.1, 0.2, 0.5, 0.7, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000)
"""Ticks of the colour scale."""


class SpeedUp(NamedTuple):
    """One measured point."""

    neurons: int
    """Number of neurons that the tree holds, and that the dense layer computes."""
    active: int
    """Number of neurons that a row uses."""
    rows: int
    """Number of rows per call."""
    value: float
    """Time of the dense layer over the time of FastFeedForward."""


def plot_speedups(points: Sequence[SpeedUp], path: str | os.PathLike[str], title: str) -> None:
    """Draw speed-ups over a dense layer.

    Parameters
    ----------
    points : sequence of SpeedUp
        At least one point. They need not fill a grid: the map shows unmeasured points in grey.
    path : path
        File to write. Its ending determines the format: ``.png``, ``.svg``, ``.pdf`` or any other
        of Matplotlib.
    title : str
        One line above the picture: the layer, the machine, the dense layer.

    Raises
    ------
    MissingExtraError
        If the extra ``plot`` is not installed.
    ArgumentError
        If there is no point.
    """
    if not points:
        raise ArgumentError("argument 'points' must have at least one point, got none")
    figure = new_figure()
    grid = figure.add_gridspec(2, 2, height_ratios=(1, 1.15))
    _draw_by_width(figure.add_subplot(grid[0, 0]), points)
    _draw_by_rows(figure.add_subplot(grid[0, 1]), points)
    _draw_map(figure, figure.add_subplot(grid[1, :]), points)
    save(figure, path, title)


def _draw_by_width(axes: Any, points: Sequence[SpeedUp]) -> None:
    """Draw speed-up by neurons held, one line per number of rows, and the arithmetic's limit."""
    shown = _spread(sorted({point.rows for point in points}), LINES_BY_ROWS)
    for number, colour, marker in zip(shown, colours(len(shown)), MARKERS, strict=False):
        line = sorted(point for point in points if point.rows == number)
        widths, values = [point.neurons for point in line], [point.value for point in line]
        axes.plot(widths, values, color=colour, marker=marker, label=_rows(number))
    limit = sorted({(point.neurons, point.neurons / point.active) for point in points})
    label = "arithmetic: neurons held / used"
    axes.plot(*zip(*limit, strict=True), color="black", linestyle="--", linewidth=1, label=label)
    axes.set_xlabel("neurons held, or training width (log scale)")
    _finish(axes, "By width", "rows per call", loc="upper left")


def _draw_by_rows(axes: Any, points: Sequence[SpeedUp]) -> None:
    """Draw speed-up by rows per call, one line per width."""
    widths = sorted({point.neurons for point in points})
    count = {width: sum(point.neurons == width for point in points) for width in widths}
    longest = [width for width in widths if count[width] == max(count.values())]
    shown = _spread(longest, LINES_BY_WIDTH)
    for width, colour, marker in zip(shown, colours(len(shown)), MARKERS, strict=False):
        line = sorted((point.rows, point.value) for point in points if point.neurons == width)
        label = f"{width:,} neuron" + ("" if width == 1 else "s")
        axes.plot(*zip(*line, strict=True), color=colour, marker=marker, label=label)
    axes.set_xlabel("rows per call, or batch size (log scale)")
    _finish(axes, "By batch", "neurons held", loc="upper center", ncols=4)


def _finish(axes: Any, title: str, legend: str, **place: Any) -> None:
    """Set scales, shading, labels and legend of a panel of lines."""
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}x")
    axes.axhline(1, color="tab:orange", linewidth=1.5, zorder=1)
    low, high = axes.get_ylim()
    low = min(low, 0.5)
    axes.set_ylim(low, 4 * high)  # leaves room for the legend above the lines
    axes.axhspan(low, 1, color="tab:orange", alpha=0.15, zorder=0, label="dense is faster")
    axes.set_ylabel("speed-up over the dense layer (log scale)")
    axes.set_title(title, loc="left", fontweight="bold")
    axes.grid(which="major", alpha=0.3)
    axes.legend(title=legend, fontsize=8, title_fontsize=8, **place)


def _draw_map(figure: Any, axes: Any, points: Sequence[SpeedUp]) -> None:
    """Draw the speed-up of each width and batch as colour and number, and the line of equality."""
    widths = sorted({point.neurons for point in points})
    rows = sorted({point.rows for point in points})
    values = np.full((len(rows), len(widths)), np.nan)
    for point in points:
        values[rows.index(point.rows), widths.index(point.neurons)] = point.value
    logs = np.log2(values)
    # Each side has its own scale. On a common scale, small losses would be invisible.
    low, high = min(-1.0, float(np.nanmin(logs))), max(1.0, float(np.nanmax(logs)))
    norm = require_extra("matplotlib.colors", "plot").TwoSlopeNorm(0, low, high)
    axes.set_facecolor("0.85")
    mesh = axes.pcolormesh(logs, cmap="PuOr", norm=norm, edgecolors="white", linewidth=0.5)
    for (row, column), value in np.ndenumerate(values):
        place = (column + 0.5, row + 0.5)
        colour = "black" if np.isnan(value) else text_colour(mesh.to_rgba(np.log2(value)))
        axes.annotate(_cell(value), place, ha="center", va="center", fontsize=8, color=colour)
    for start, end in _frontier(values):
        axes.plot(*zip(start, end, strict=True), color="black", linewidth=3)
    axes.set_xticks(np.arange(len(widths)) + 0.5, [f"{width:,}" for width in widths], fontsize=8)
    axes.set_yticks(np.arange(len(rows)) + 0.5, [f"{number:,}" for number in rows], fontsize=8)
    axes.set_xlabel("neurons held (training width)")
    axes.set_ylabel("rows per call (batch)")
    what = "The faster layer: orange is dense, purple is FFF, grey was not measured"
    axes.set_title(what, loc="left", fontweight="bold")
    bar = figure.colorbar(mesh, ax=axes, pad=0.01)
    ticks = [tick for tick in SCALE if low <= np.log2(tick) <= high]
    bar.set_ticks(np.log2(ticks), labels=[f"{tick:,g}x" for tick in ticks])
    bar.ax.minorticks_off()
    bar.set_label("speed-up over the dense layer")


def _cell(value: float) -> str:
    """Return the text of a speed-up in a cell of the map."""
    if np.isnan(value):
        return ""
    return f"{value:.2f}x" if value < 2 else f"{value:.1f}x" if value < 9.95 else f"{value:,.0f}x"


def _frontier(values: Any) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return the edges between cells where FFF is faster and cells where the dense layer is.

    An edge has two corners (column, row).
    """
    edges = []
    for (row, column), value in np.ndenumerate(values):
        if column + 1 < values.shape[1] and _differ(value, values[row, column + 1]):
            edges.append(((column + 1, row), (column + 1, row + 1)))
        if row + 1 < values.shape[0] and _differ(value, values[row + 1, column]):
            edges.append(((column, row + 1), (column + 1, row + 1)))
    return edges


def _differ(one: float, other: float) -> bool:
    """Whether different layers are faster; a value that was not measured is NaN."""
    return (one < 1 <= other) or (other < 1 <= one)


def _rows(number: int) -> str:
    return f"{number:,} row" + ("" if number == 1 else "s")


def _spread(values: list[int], count: int) -> list[int]:
    """Return at most ``count`` of the values, evenly spread from the first to the last."""
    picks = np.linspace(0, len(values) - 1, min(count, len(values))).round().astype(int)
    return [values[pick] for pick in picks]
