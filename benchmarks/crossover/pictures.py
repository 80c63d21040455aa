"""Pictures of accuracy against cost, a panel for each set."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from benchmarks.crossover.models import DENSE, FAST, LEAF, MLP, TREES
from benchmarks.crossover.verdicts import Point, front

STYLES = {
    FAST: ("o", "#542788"),
    LEAF: ("s", "#998ec3"),
    DENSE: ("D", "tab:orange"),
    MLP: ("^", "#8c510a"),
    TREES: ("P", "0.45"),
}
"""Marker and colour of each family: purple for FFFs, as in `fffcpu.plots`."""

LEAST_ERROR = 1e-4
"""Height at which a model without an error is drawn."""

BEYOND = 10.0
"""Largest cost that is drawn, over that of the costliest layer. Models beyond it are counted."""


def draw(panels: dict[str, list[Point]], label: str, path: Path) -> None:
    """Draw a panel for each set, with the front as a line of steps."""
    import matplotlib
    from matplotlib.figure import Figure

    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure((6.5 * columns, 4.2 * lines + 0.5), layout="constrained")
    for number, (data, points) in enumerate(panels.items(), start=1):
        draw_set(figure.add_subplot(lines, columns, number), data, points, label)
    figure.suptitle(
        "Test accuracy; where the line runs, nothing cheaper is as accurate", fontsize=11
    )
    # Equal figures give equal files, and text stays text.
    with matplotlib.rc_context({"svg.hashsalt": "crossover", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})


def draw_set(axes: Any, data: str, points: list[Point], label: str) -> None:
    """Draw one panel. The axis of errors is logarithmic, so that the best models lie apart."""
    from matplotlib.ticker import LogLocator, NullFormatter

    def height(point: Point) -> float:
        return max(1 - point.accuracy, LEAST_ERROR)

    # With the costliest models on the axis the others would overlap.
    layers = [point.cost for point in points if point.family not in (MLP, TREES)]
    limit = BEYOND * max(layers, default=math.inf)
    slow = [point for point in points if point.cost > limit]
    if slow:
        text = ", ".join(sorted({point.family for point in slow}))
        what = f"not drawn, {BEYOND:g} times beyond the layers: {len(slow)} of {text}"
        axes.set_title(what, loc="right", fontsize=8)
    points = [point for point in points if point.cost <= limit]
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
    for point in edge:
        axes.annotate(
            point.model, (point.cost, height(point)), xytext=(-4, 4),
            textcoords="offset points", ha="right", fontsize=7,
        )  # fmt: skip
    axes.margins(x=0.12, y=0.08)  # room for labels
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.invert_yaxis()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
        axis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * (1 - value):g}%")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.set_xlabel(label)
    axes.set_ylabel("test accuracy")
    axes.set_title(data, loc="left", fontweight="bold")
    axes.grid(which="major", alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
