"""Pictures of measured speed-ups, and of how a layer's tree is used (extra: plot).

Speed-ups take three panels: by neurons held, by rows a call, and the map of both, on which the line
runs where the dense layer and FastFeedForward are equally fast. A tree is drawn level by level, all
nodes of a level equally wide and coloured by their visits::

    level 0 |            root             |
    level 1 |      1       |       2      |
    level 2 |  3   |   4   |   5   |  6   |

Colours can be told apart by the colour-blind and in print: orange is slower or less, purple is
faster or more, and lines differ in markers as well.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.checks import as_real_array
from fffcpu.diagnosis import TreeUsage, reached_leaves
from fffcpu.errors import ArgumentError, ShapeError, require_extra
from fffcpu.tree import level_start

__all__ = [
    "SpeedUp",
    "check_plot_path",
    "plot_history",
    "plot_prototypes",
    "plot_regions",
    "plot_speedups",
    "plot_tree",
]

Array = NDArray[Any]

MARKERS = "osD^vP*Xd<>p"
LINES_BY_ROWS = 5
LINES_BY_WIDTH = 6
"""How many lines a panel has room for."""

SCALE = (0.01, 0.1, 0.2, 0.5, 0.7, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000)
"""Ticks of the colours' scale."""

DOTS_PER_INCH = 130

DRAWN_LEVELS = 13
"""Levels of a tree that are drawn; the last of them has 4,096 nodes."""

OUTLINED_LEVELS = 7
NUMBERED_LEVELS = 4
"""Levels whose nodes are wide enough for lines between them, and for a number."""

LEVEL_DOTS = 64
"""Height of a level in an image."""

EXTREME = 4
"""Colours end where a node has 2**4 times the even share of its level, or a 16th of it."""

REGION_CELLS = 400
"""Points along each side of a map of regions."""

IMAGES_IN_A_ROW = 8


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


def plot_tree(usage: TreeUsage, path: str | os.PathLike[str], title: str) -> None:
    """Draw how one tree is used: its nodes by visits, its leaves by share, its levels.

    Parameters
    ----------
    usage : TreeUsage
        The tree; levels below the 13th, of 4,096 nodes, are left out of the first panel.
    path : path
        Its ending gives the format, as Matplotlib knows them: ``.png``, ``.svg``, ``.pdf``.
    title : str
        Over the picture.

    Raises
    ------
    MissingExtraError
        If the extra ``plot`` is not installed.
    """
    figure = _new_figure()
    grid = figure.add_gridspec(2, 2, height_ratios=(1.3, 1))
    _draw_nodes(figure, figure.add_subplot(grid[0, :]), usage)
    _draw_leaves(figure.add_subplot(grid[1, 0]), usage)
    _draw_levels(figure.add_subplot(grid[1, 1]), usage)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=DOTS_PER_INCH)


def plot_regions(
    layer: Any,
    x: Any,
    path: str | os.PathLike[str],
    title: str,
    *,
    tree: int = 0,
    classes: Sequence[object] = (),
) -> None:
    """Draw which part of a plane each leaf serves, and which class the layer gives it.

    Parameters
    ----------
    layer : FastFeedForward, LeafFeedForward or one of the quantized layers
        A layer that reads two features.
    x : array_like of shape (B, 2)
        At least one row: drawn as dots, and they fix the part of the plane.
    path : path
        Its ending gives the format.
    title : str
        Over the picture.
    tree : int
        The tree whose leaves are drawn.
    classes : sequence, optional
        Names of the classes of which the outputs are scores; without, classes are not drawn.

    Raises
    ------
    MissingExtraError
        If the extra ``plot`` is not installed.
    ShapeError
        If ``x`` has another shape.
    """
    rows = as_real_array(x, "x")
    if rows.ndim != 2 or rows.shape[1] != 2 or not len(rows):
        raise ShapeError(f"argument 'x' must have shape (rows, 2), got shape {rows.shape}")
    figure = _new_figure(7.5 * (1 + bool(classes)), 7)
    low, high = _limits(rows)
    sides = [np.linspace(low[i], high[i], REGION_CELLS) for i in (0, 1)]
    points = np.stack(np.meshgrid(*sides), axis=-1)
    leaves = reached_leaves(layer, points, tree)
    extent = (low[0], high[0], low[1], high[1])
    panels = [figure.add_subplot(1, 1 + bool(classes), 1)]
    palettes = require_extra("matplotlib", "plot").colormaps
    # Steps of the golden ratio give neighbours in the tree colours that are far apart.
    _draw_plane(panels[0], palettes["viridis"](leaves * 0.618034 % 1), leaves, extent)
    panels[0].set_title("Leaves", loc="left", fontweight="bold")
    if classes:
        panels.append(figure.add_subplot(1, 2, 2))
        palette = palettes["tab10" if len(classes) <= 10 else "tab20"]
        predicted = layer(points).argmax(axis=-1)
        _draw_plane(panels[1], palette(predicted % palette.N), leaves, extent)
        panels[1].set_title("Predicted class", loc="left", fontweight="bold")
        patch = require_extra("matplotlib.patches", "plot").Patch
        handles = [
            patch(color=palette(i % palette.N), label=str(classes[i]))
            for i in np.unique(predicted)[: palette.N].tolist()
        ]
        panels[1].legend(handles=handles, fontsize=8, loc="upper right")
    for axes in panels:
        axes.scatter(*rows.T, s=6, color="white", edgecolors="black", linewidths=0.5)
        axes.set_xlabel("feature 0")
        axes.set_ylabel("feature 1")
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=DOTS_PER_INCH)


def plot_prototypes(
    images: Any, captions: Sequence[str], path: str | os.PathLike[str], title: str
) -> None:
    """Draw images in rows, all in the same shades.

    Parameters
    ----------
    images : array_like of shape (images, height, width)
        At least one; dark is large.
    captions : sequence of str
        One for each image.
    path : path
        Its ending gives the format.
    title : str
        Over the picture.

    Raises
    ------
    MissingExtraError
        If the extra ``plot`` is not installed.
    ShapeError
        If ``images`` has another shape, or there is another number of captions.
    """
    shades = as_real_array(images, "images")
    if shades.ndim != 3 or not len(shades) or len(captions) != len(shades):
        raise ShapeError(
            f"argument 'images' must have shape ({len(captions)}, height, width) beside captions, "
            f"got shape {shades.shape}"
        )
    columns = min(IMAGES_IN_A_ROW, len(shades))
    lines = -(-len(shades) // columns)
    figure = _new_figure(max(6, 1.6 * columns), 0.8 + 2 * lines)
    low, high = float(shades.min()), float(shades.max())
    for i, (image, caption) in enumerate(zip(shades, captions, strict=True)):
        axes = figure.add_subplot(lines, columns, i + 1)
        axes.imshow(image, cmap="Greys", vmin=low, vmax=high)
        axes.set_title(caption, fontsize=8)
        axes.set_axis_off()
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=DOTS_PER_INCH)


def plot_history(
    history: Sequence[Mapping[str, Any]], path: str | os.PathLike[str], title: str
) -> None:
    """Draw how a training went into a file: losses, learning rate and norms of gradients by step.

    Parameters
    ----------
    history : sequence of mapping
        Lines of a history, as `fffcpu.training.Trainer` keeps them.
    path : path
        Its ending gives the format.
    title : str
        One line over the picture.

    Raises
    ------
    MissingExtraError
        If the extra ``plot`` is not installed.
    ArgumentError
        If there is no line.
    """
    if not history:
        raise ArgumentError("argument 'history' must have at least one line, got none")
    figure = _new_figure(height=7)
    grid = figure.add_gridspec(2, 1, height_ratios=(2.5, 1))
    losses = figure.add_subplot(grid[0])
    for name, style in (("train_loss", "-"), ("validation_loss", "o-")):
        _draw_figure(losses, history, name, style, name.replace("_", " "))
    losses.set_ylabel("loss")
    rates = figure.add_subplot(grid[1], sharex=losses)
    norms = rates.twinx()
    _draw_figure(rates, history, "lr", "-", "learning rate")
    _draw_figure(norms, history, "gradient_norm", ":", "norm of gradients", color="tab:gray")
    rates.set_ylabel("learning rate")
    norms.set_ylabel("norm of gradients, dotted")
    rates.set_xlabel("step")
    losses.grid(alpha=0.3)
    losses.legend()
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=DOTS_PER_INCH)


def _draw_figure(
    axes: Any, history: Sequence[Mapping[str, Any]], name: str, style: str, label: str, **more: Any
) -> None:
    """Draw one figure of a history where its lines have it."""
    points = [(line["step"], line[name]) for line in history if line.get(name) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), style, label=label, markersize=3, **more)


def _new_figure(width: float = 13, height: float = 11) -> Any:
    """Return an empty figure, sized in inches, that belongs to no window."""
    return require_extra("matplotlib.figure", "plot").Figure((width, height), layout="constrained")


def _draw_nodes(figure: Any, axes: Any, usage: TreeUsage) -> None:
    """Draw the tree level by level, coloured by visits against an even share."""
    levels = min(usage.depth + 1, DRAWN_LEVELS)
    shares = [
        usage.visits[level_start(level) : level_start(level + 1)] / usage.rows
        for level in range(levels)
    ]
    width = len(shares[-1])
    ratios = np.stack([np.repeat(line * len(line), width // len(line)) for line in shares])
    logs = np.log2(np.maximum(ratios, 2.0**-EXTREME))
    # Where nodes are narrower than dots they are averaged; so that levels are not, they are high.
    shown = np.ma.masked_array(logs, ratios == 0).repeat(LEVEL_DOTS, axis=0)
    colours = require_extra("matplotlib", "plot").colormaps["PuOr"].with_extremes(bad="0.3")
    extent = (0, 1, levels - 0.5, -0.5)
    mesh = axes.imshow(
        shown, cmap=colours, vmin=-EXTREME, vmax=EXTREME, aspect="auto", extent=extent
    )
    axes.hlines(np.arange(levels - 1) + 0.5, 0, 1, color="white", linewidth=1)
    for level, line in enumerate(shares[:OUTLINED_LEVELS]):
        borders = np.arange(1, len(line)) / len(line)
        axes.vlines(borders, level - 0.5, level + 0.5, color="white", linewidth=1)
        for i, share in enumerate(line if level < NUMBERED_LEVELS else ()):
            # White on the dark ends of the colours.
            dark = abs(np.log2(max(share * len(line), 2.0**-EXTREME))) > EXTREME / 2
            place = ((i + 0.5) / len(line), level)
            axes.annotate(
                f"{share:.1%}", place, ha="center", va="center", color="white" if dark else "black"
            )
    axes.set_yticks(range(levels))
    axes.set_xticks([])
    axes.set_ylabel("level")
    rest = "" if levels > usage.depth else f", of which the first {levels} are shown"
    axes.set_xlabel(f"nodes of each level, from left to right; {usage.depth + 1} levels{rest}")
    what = "Share of the rows: orange less than even, purple more; dark grey: no row"
    axes.set_title(what, loc="left", fontweight="bold")
    bar = figure.colorbar(mesh, ax=axes, pad=0.01)
    ticks = range(-EXTREME, EXTREME + 1)
    labels = [f"{2**tick}x" if tick >= 0 else f"1/{2**-tick}x" for tick in ticks]
    bar.set_ticks(list(ticks), labels=labels)
    bar.set_label("visits over an even share of the level's")


def _draw_leaves(axes: Any, usage: TreeUsage) -> None:
    """Cumulative share of the rows against leaves, the most visited first."""
    visits = np.sort(usage.leaf_visits)[::-1]
    leaves = np.arange(len(visits) + 1)
    served = np.concatenate([[0.0], np.cumsum(visits) / usage.rows])
    axes.plot(leaves, served, color="tab:purple", label="this tree")
    axes.plot([0, len(visits)], [0, 1], color="black", linestyle="--", linewidth=1, label="even")
    axes.axvline(usage.effective_leaves, color="tab:orange", label="effective leaves")
    axes.set_xlabel("leaves, the most visited first")
    axes.set_ylabel("share of the rows that reach them")
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    what = f"Leaves: {np.count_nonzero(visits):,} of {len(visits):,} reached"
    axes.set_title(f"{what}, balance {usage.balance:.2f}", loc="left", fontweight="bold")


def _draw_levels(axes: Any, usage: TreeUsage) -> None:
    """The measures of each level that lie between 0 and 1."""
    levels = usage.levels
    lines: list[tuple[str, list[float]]] = [
        ("nodes reached", [level.reached / level.nodes for level in levels]),
        ("balance of splits", [level.balance for level in levels if level.balance is not None]),
        ("near ties", [level.near_ties for level in levels if level.near_ties is not None]),
    ]
    entropies = [level.choice_entropy for level in levels if level.choice_entropy is not None]
    lines.append(("choice entropy / log 2", [value / np.log(2) for value in entropies]))
    lines = [(label, values) for label, values in lines if values]
    for (label, values), colour, marker in zip(lines, _colours(len(lines)), MARKERS, strict=False):
        axes.plot(values, color=colour, marker=marker, label=label)
    axes.set_xticks(range(len(levels)))
    axes.set_xlabel("level")
    axes.set_ylabel("from 0 to 1")
    axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    axes.set_title("Levels", loc="left", fontweight="bold")


def _draw_plane(axes: Any, colours: Array, leaves: Array, extent: tuple[float, ...]) -> None:
    """Draw a map of colours, with lines where one leaf's region ends."""
    borders = np.zeros(leaves.shape, bool)
    borders[:, 1:] |= leaves[:, 1:] != leaves[:, :-1]
    borders[1:] |= leaves[1:] != leaves[:-1]
    colours[borders] = (0, 0, 0, 1)
    axes.imshow(
        colours, origin="lower", extent=extent, aspect="auto", interpolation="nearest", alpha=0.7
    )


def _limits(rows: Array) -> tuple[Array, Array]:
    """Return the corners of the plane around rows, with a margin on each side."""
    low, high = rows.min(axis=0).astype(np.float64), rows.max(axis=0).astype(np.float64)
    margin = np.where(high > low, 0.05 * (high - low), 0.5)
    return low - margin, high + margin


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
