"""Pictures of R2 against time, a panel for each kind of call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.accuracy.worth.models import DENSE, FAST, LEAF, TWO_SIDED
from benchmarks.labels import Box, box_of, move_labels, placed

STYLES = {
    DENSE: ("D", "tab:orange"),
    FAST: ("o", "#998ec3"),
    TWO_SIDED: ("o", "#542788"),
    LEAF: ("s", "#3690c0"),
}
"""Marker and colour of each family: purple for FFFs, as in `fffcpu.plots`."""


class Point(NamedTuple):
    """A layer in a plane of time and quality."""

    model: str
    family: str
    microseconds: float
    r2: float


LEGEND = {
    DENSE: "dense layers: neurons",
    FAST: "trees × depth",
    TWO_SIDED: "two-sided trees × depth",
    LEAF: "depth, neurons of a leaf",
}


def label_of(model: str) -> str:
    """Return the sizes of a layer, as the legend explains them.

    >>> label_of("two-8x7"), label_of("dense-256")
    ('8 × 7', '256')
    """
    return model.partition("-")[2].replace("x", " × ")


def draw(panels: dict[str, list[Point]], path: Path) -> None:
    """Draw a panel for each kind of call, with labels that do not overlap."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((6.0 * len(panels), 4.6), layout="constrained")
    canvas: Any = FigureCanvasAgg(figure)
    every = [figure.add_subplot(1, len(panels), k + 1) for k in range(len(panels))]
    for axes, (name, points) in zip(every, panels.items(), strict=True):
        draw_panel(axes, name, points)
    # Equal figures give equal files, and text stays text.
    with matplotlib.rc_context({"svg.hashsalt": "worth", "svg.fonttype": "none"}):
        figure.draw_without_rendering()  # now the places of all points are known
        for axes, points in zip(every, panels.values(), strict=True):
            add_labels(axes, points, canvas.get_renderer())
        figure.savefig(path, metadata={"Date": None})


def draw_panel(axes: Any, name: str, points: list[Point]) -> None:
    """Draw one panel, with a line through the dense layers."""
    from matplotlib.ticker import LogLocator, NullFormatter

    for family, (marker, colour) in STYLES.items():
        own = sorted(point[2:] for point in points if point.family == family)
        if own:
            style = {"marker": marker, "color": colour, "label": LEGEND[family]}
            axes.plot(*zip(*own, strict=True), ls="-" if family == DENSE else "", **style)
    axes.margins(x=0.12, y=0.1)  # room for labels
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.set_xlabel("µs per row, logarithmic")
    axes.set_ylabel("R2 on held-out tokens")
    axes.set_title(name, loc="left", fontweight="bold")
    axes.grid(which="major", alpha=0.3)
    axes.legend(fontsize=9, loc="lower right")


def add_labels(axes: Any, points: Sequence[Point], renderer: Any) -> None:
    """Write the names of the points next to them."""
    scale = 72 / axes.figure.dpi
    places = scale * axes.transData.transform([point[2:] for point in points])
    notes = [
        axes.annotate(
            label_of(point.model), point[2:], xytext=(0, 0), textcoords="offset points",
            ha="center", va="center", fontsize=9, color=STYLES[point.family][1],
        )
        for point in points
    ]  # fmt: skip
    sizes = [note.get_window_extent(renderer) for note in notes]
    boxes = [
        Box(x, y, scale * size.width / 2, scale * size.height / 2)
        for (x, y), size in zip(places, sizes, strict=True)
    ]
    legend, frame = (
        box_of(artist.get_window_extent(renderer), scale)
        for artist in (axes.get_legend(), axes.patch)
    )
    move_labels(axes, notes, boxes, placed(boxes, frame, [legend]))
