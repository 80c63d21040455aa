"""Pictures of accuracy against cost, a panel for each set."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.crossover.models import (
    DENSE,
    FAST,
    LEAF,
    LIGHTGBM,
    MLP,
    OTHERS,
    TREES,
    TWO_SIDED,
)
from benchmarks.crossover.verdicts import Point, front
from benchmarks.labels import MARKER, Box, box_of, move_labels, placed

STYLES = {
    TWO_SIDED: ("o", "#542788"),
    FAST: ("h", "#998ec3"),
    LEAF: ("s", "#3690c0"),
    DENSE: ("D", "tab:orange"),
    MLP: ("^", "#8c510a"),
    TREES: ("P", "0.45"),
    LIGHTGBM: ("X", "#1b7837"),
}
"""Marker and colour of each family: purple for FFFs, as in `fffcpu.plots`."""

LEAST_ERROR = 3e-5
"""Height at which a model without an error is drawn: less than one error in the largest test."""

BEYOND = 10.0
"""Largest cost that is drawn, over that of the costliest layer. Models beyond it are counted."""

STEPS = (
    (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9),
    (1, 2, 3, 4, 5, 6, 7, 8, 9),
    (1, 2, 3, 5, 7),
    (1, 2, 5),
    (1, 3),
    (1,),
)
"""Numbers in a decade that may have a tick, from many to few."""

MOST_TICKS = 6
"""Largest number of ticks of an axis: the numbers of more would touch."""

GAP = 1.5
"""Width of the free space around a label, in points of 1/72 inch."""


def draw(panels: dict[str, list[Point]], label: str, path: Path) -> None:
    """Draw a panel for each set, with the front as a line of steps."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure((6.5 * columns, 4.2 * lines + 0.8), layout="constrained")
    canvas: Any = FigureCanvasAgg(figure)
    every = [figure.add_subplot(lines, columns, k + 1) for k in range(len(panels))]
    for axes, (data, points) in zip(every, panels.items(), strict=True):
        draw_set(axes, data, points, label)
    add_legend(figure)
    figure.suptitle(
        "Test accuracy; where the line runs, nothing cheaper is as accurate", fontsize=11
    )
    # Equal figures give equal files, and text stays text.
    with matplotlib.rc_context({"svg.hashsalt": "crossover", "svg.fonttype": "none"}):
        figure.draw_without_rendering()  # now the places of all points are known
        for axes, points in zip(every, panels.values(), strict=True):
            add_labels(axes, drawn(points), canvas.get_renderer())
        figure.savefig(path, metadata={"Date": None})


def add_legend(figure: Any) -> None:
    """Draw one legend for all panels, below them, where it covers no point."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, family in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(family, handle)
    families = [family for family in STYLES if family in handles]
    figure.legend(
        [handles[family] for family in families], families,
        loc="outside lower center", ncols=len(families), fontsize=8,
    )  # fmt: skip


def height(point: Point) -> float:
    """Return the error of a point, which the axis shows."""
    return max(1 - point.accuracy, LEAST_ERROR)


def drawn(points: Sequence[Point]) -> list[Point]:
    """Return the points that are drawn. With the others on the axis, these would overlap."""
    layers = [point.cost for point in points if point.family not in OTHERS]
    limit = BEYOND * max(layers, default=math.inf)
    return [point for point in points if point.cost <= limit]


def draw_set(axes: Any, data: str, points: list[Point], label: str) -> None:
    """Draw one panel. The axis of errors is logarithmic, so that the best models lie apart."""
    from matplotlib.ticker import LogLocator, NullFormatter

    slow = set(points) - set(drawn(points))
    if slow:
        text = ", ".join(sorted({point.family for point in slow}))
        what = f"not drawn, {BEYOND:g} times beyond the layers: {len(slow)} of {text}"
        axes.set_title(what, loc="right", fontsize=8)
    points = drawn(points)
    edge = front(points)
    axes.step(
        [point.cost for point in edge],
        [height(point) for point in edge],
        where="post", color="black", linewidth=1, zorder=1,
    )  # fmt: skip
    for family, (marker, colour) in STYLES.items():
        own = [point for point in points if point.family == family]
        if own:
            place = ([point.cost for point in own], [height(point) for point in own])
            axes.scatter(*place, marker=marker, color=colour, label=family, zorder=2)
    axes.margins(x=0.12, y=0.08)  # room for labels
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.invert_yaxis()
    for axis, bounds in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        axis.set_major_locator(LogLocator(subs=steps(*bounds)))
        axis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * (1 - value):g}%")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.set_xlabel(f"{label}, logarithmic")
    axes.set_ylabel("test accuracy")
    axes.set_title(data, loc="left", fontweight="bold")
    axes.grid(which="major", alpha=0.3)


def steps(low: float, high: float) -> tuple[float, ...]:
    """Return the numbers in a decade that have a tick on a logarithmic axis."""
    low, high = sorted((low, high))
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    for some in STEPS:
        ticks = [step * 10**decade for decade, step in itertools.product(decades, some)]
        if sum(low <= tick <= high for tick in ticks) <= MOST_TICKS:
            return some
    return STEPS[-1]


def add_labels(axes: Any, points: Sequence[Point], renderer: Any) -> None:
    """Write the names of the points on the front, where they cover no point and no other name."""
    edge = front(points)[::-1]  # the upper ones first, above the line, as most names are
    scale = 72 / axes.figure.dpi
    notes = [
        axes.annotate(
            point.model, (point.cost, height(point)), xytext=(0, 0), textcoords="offset points",
            ha="center", va="center", fontsize=7, color=STYLES[point.family][1],
        )
        for point in edge
    ]  # fmt: skip
    boxes = []
    for note, (x, y) in zip(notes, places(axes, edge), strict=True):
        size = note.get_window_extent(renderer)
        boxes.append(Box(x, y, scale * size.width / 2 + GAP, scale * size.height / 2 + GAP))
    others = [point for point in points if point not in edge]
    taken = [Box(x, y, MARKER / 2, MARKER / 2) for x, y in places(axes, others)]
    taken += stairs(places(axes, edge[::-1]))
    frame = box_of(axes.patch.get_window_extent(renderer), scale)
    move_labels(axes, notes, boxes, placed(boxes, frame, taken))


def places(axes: Any, points: Sequence[Point]) -> list[tuple[float, float]]:
    """Return where models lie in the figure, in points of 1/72 inch."""
    scale = 72 / axes.figure.dpi
    pixels = (axes.transData.transform((point.cost, height(point))) for point in points)
    return [(scale * float(x), scale * float(y)) for x, y in pixels]


def stairs(corners: Sequence[tuple[float, float]]) -> list[Box]:
    """Return the steps of the front through places of models, as rectangles without an area."""
    boxes = []
    for (x, y), (next_x, next_y) in itertools.pairwise(corners):
        boxes.append(Box((x + next_x) / 2, y, abs(next_x - x) / 2, 0.0))
        boxes.append(Box(next_x, (y + next_y) / 2, 0.0, abs(next_y - y) / 2))
    return boxes
