"""Pictures of measured speed-ups (extra: plot).

Three panels: by neurons held, by rows a call, and the map of both, on which the line runs where the
dense layer and FastFeedForward are equally fast. Colours can be told apart by the colour-blind and
in print: orange is slower, purple is faster, and lines differ in markers as well.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fffcpu.errors import ArgumentError, require_extra

__all__ = ["SpeedUp", "check_plot_path", "plot_speedups"]

MARKERS = "osD^vP*Xd<>p"
LINES_BY_ROWS = 5
LINES_BY_WIDTH = 6
"""How many lines a panel has room for."""

SCALE = (0.01, 0.1, 0.2, 0.5, 0.7, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000)
"""Ticks of the colours' scale."""

DOTS_PER_INCH = 130


class SpeedUp(NamedTuple):
    """One measured point."""

    neurons: int
    """Neurons that the tree holds and the dense layer computes."""
    active: int
    """Neurons that a row uses."""
    rows: int
    """Rows of a call."""
    value: float
    """Time of the dense layer over the time of FastFeedForward."""


def check_plot_path(path: str | os.PathLike[str]) -> None:
    """Raise if no picture could be written there, before much is measured for it.

    Raises
    ------
    MissingExtraError
        If the extra ``plot`` is not installed.
    ArgumentError
        If the name ends in no known format of pictures.
    FileNotFoundError
        If its folder does not exist.
    """
    formats = _new_figure().canvas.get_supported_filetypes()
    ending = Path(path).suffix.removeprefix(".").lower()
    if ending not in formats:
        known = ", ".join(f".{name}" for name in sorted(formats))
        raise ArgumentError(f"argument 'plot' must end in one of {known}, got '{os.fspath(path)}'")
    folder = Path(path).parent
    if not folder.is_dir():
        raise FileNotFoundError(2, "No such folder", str(folder))


def plot_speedups(points: Sequence[SpeedUp], path: str | os.PathLike[str], title: str) -> None:
    """Draw speed-ups over a dense layer into a file.

    Parameters
    ----------
    points : sequence of SpeedUp
        At least one; they need not fill a grid, what is absent is shown as not measured.
    path : path
        Its ending gives the format, as Matplotlib knows them: ``.png``, ``.svg``, ``.pdf``.
    title : str
        One line over the picture: layer, machine, what the dense layer is.

    Raises
    ------
    MissingExtraError
        If the extra ``plot`` is not installed.
    ArgumentError
        If there is no point.
    """
    if not points:
        raise ArgumentError("argument 'points' must have at least one point, got none")
    figure = _new_figure()
    grid = figure.add_gridspec(2, 2, height_ratios=(1, 1.15))
    _draw_by_width(figure.add_subplot(grid[0, 0]), points)
    _draw_by_rows(figure.add_subplot(grid[0, 1]), points)
    _draw_map(figure, figure.add_subplot(grid[1, :]), points)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=DOTS_PER_INCH)


def _new_figure() -> Any:
    """Return an empty figure that belongs to no window."""
    return require_extra("matplotlib.figure", "plot").Figure((13, 11), layout="constrained")


def _draw_by_width(axes: Any, points: Sequence[SpeedUp]) -> None:
    """Speed-up against neurons held, a line a number of rows, under what arithmetic allows."""
    shown = _spread(sorted({point.rows for point in points}), LINES_BY_ROWS)
    for number, colour, marker in zip(shown, _colours(len(shown)), MARKERS, strict=False):
        line = sorted(point for point in points if point.rows == number)
        widths, values = [point.neurons for point in line], [point.value for point in line]
        axes.plot(widths, values, color=colour, marker=marker, label=_rows(number))
    bound = sorted({(point.neurons, point.neurons / point.active) for point in points})
    label = "arithmetic: neurons held / used"
    axes.plot(*zip(*bound, strict=True), color="black", linestyle="--", linewidth=1, label=label)
    axes.set_xlabel("neurons held (training width)")
    _finish(axes, "By width", "rows a call", loc="upper left")


def _draw_by_rows(axes: Any, points: Sequence[SpeedUp]) -> None:
    """Speed-up against rows a call, a line a width."""
    widths = sorted({point.neurons for point in points})
    count = {width: sum(point.neurons == width for point in points) for width in widths}
    longest = [width for width in widths if count[width] == max(count.values())]
    shown = _spread(longest, LINES_BY_WIDTH)
    for width, colour, marker in zip(shown, _colours(len(shown)), MARKERS, strict=False):
        line = sorted((point.rows, point.value) for point in points if point.neurons == width)
        label = f"{width:,} neuron" + ("" if width == 1 else "s")
        axes.plot(*zip(*line, strict=True), color=colour, marker=marker, label=label)
    axes.set_xlabel("rows a call (batch)")
    _finish(axes, "By batch", "neurons held", loc="upper center", ncols=4)


def _finish(axes: Any, title: str, legend: str, **place: Any) -> None:
    """What the two panels of lines share."""
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}x")
    axes.axhline(1, color="tab:orange", linewidth=1.5, zorder=1)
    low, high = axes.get_ylim()
    low = min(low, 0.5)
    axes.set_ylim(low, 4 * high)  # above the lines is room for the legend
    axes.axhspan(low, 1, color="tab:orange", alpha=0.15, zorder=0, label="dense is faster")
    axes.set_ylabel("speed-up over the dense layer")
    axes.set_title(title, loc="left", fontweight="bold")
    axes.grid(which="major", alpha=0.3)
    axes.legend(title=legend, fontsize=8, title_fontsize=8, **place)


def _draw_map(figure: Any, axes: Any, points: Sequence[SpeedUp]) -> None:
    """Speed-up of each width and batch as colour and number, and the line between the two sides."""
    widths = sorted({point.neurons for point in points})
    rows = sorted({point.rows for point in points})
    values = np.full((len(rows), len(widths)), np.nan)
    for point in points:
        values[rows.index(point.rows), widths.index(point.neurons)] = point.value
    logs = np.log2(values)
    # Each side has a scale of its own, or the little that is lost could not be seen.
    low, high = min(-1.0, float(np.nanmin(logs))), max(1.0, float(np.nanmax(logs)))
    norm = require_extra("matplotlib.colors", "plot").TwoSlopeNorm(0, low, high)
    axes.set_facecolor("0.85")
    mesh = axes.pcolormesh(logs, cmap="PuOr", norm=norm, edgecolors="white", linewidth=0.5)
    for (row, column), value in np.ndenumerate(values):
        place = (column + 0.5, row + 0.5)
        dark = not np.isnan(value) and abs(norm(np.log2(value)) - 0.5) > 0.3
        colour = "white" if dark else "black"
        axes.annotate(_cell(value), place, ha="center", va="center", fontsize=8, color=colour)
    for start, end in _frontier(values):
        axes.plot(*zip(start, end, strict=True), color="black", linewidth=3)
    axes.set_xticks(np.arange(len(widths)) + 0.5, [f"{width:,}" for width in widths], fontsize=8)
    axes.set_yticks(np.arange(len(rows)) + 0.5, [f"{number:,}" for number in rows], fontsize=8)
    axes.set_xlabel("neurons held (training width)")
    axes.set_ylabel("rows a call (batch)")
    what = "Who is faster: orange the dense layer, purple FFF; grey was not measured"
    axes.set_title(what, loc="left", fontweight="bold")
    bar = figure.colorbar(mesh, ax=axes, pad=0.01)
    ticks = [tick for tick in SCALE if low <= np.log2(tick) <= high]
    bar.set_ticks(np.log2(ticks), labels=[f"{tick:,g}x" for tick in ticks])
    bar.ax.minorticks_off()
    bar.set_label("speed-up over the dense layer")


def _cell(value: float) -> str:
    """Speed-up as a cell of the map shows it."""
    if np.isnan(value):
        return ""
    return f"{value:.2f}x" if value < 2 else f"{value:.1f}x" if value < 9.95 else f"{value:,.0f}x"


def _frontier(values: Any) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return the edges between cells of which one side is faster and cells of which the other is.

    An edge is two corners (column, row).
    """
    edges = []
    for (row, column), value in np.ndenumerate(values):
        if column + 1 < values.shape[1] and _differ(value, values[row, column + 1]):
            edges.append(((column + 1, row), (column + 1, row + 1)))
        if row + 1 < values.shape[0] and _differ(value, values[row + 1, column]):
            edges.append(((column, row + 1), (column + 1, row + 1)))
    return edges


def _differ(one: float, other: float) -> bool:
    """Whether the winners differ; nobody wins where nothing was measured."""
    return (one < 1 <= other) or (other < 1 <= one)


def _rows(number: int) -> str:
    return f"{number:,} row" + ("" if number == 1 else "s")


def _spread(values: list[int], count: int) -> list[int]:
    """Return so many of the values, from the first to the last."""
    picks = np.linspace(0, len(values) - 1, min(count, len(values))).round().astype(int)
    return [values[pick] for pick in picks]


def _colours(count: int) -> list[Any]:
    """Return colours from dark to light, of which none is too light on white."""
    palette = require_extra("matplotlib", "plot").colormaps["viridis"]
    return [palette(share) for share in np.linspace(0, 0.85, count)]
