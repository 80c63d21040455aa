"""Pictures of R2 against time, a panel for each kind of call."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.accuracy.worth.models import DENSE, FAST, LEAF, TWO_SIDED

STYLES = {
    DENSE: ("D", "tab:orange"),
    FAST: ("o", "#998ec3"),
    TWO_SIDED: ("o", "#542788"),
    LEAF: ("s", "#8c510a"),
}
"""Marker and colour of each family: purple for FFFs, as in `fffcpu.plots`."""

MARKER = 8.0
"""Width of the box, in points of 1/72 inch, that a marker keeps free of labels."""

DIRECTIONS = ((-1, 1), (1, -1), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, -1))
"""Where a label goes, in the order in which it is tried. Slower layers are better, so the first two
directions lead away from the other layers of a family."""

DISTANCES = (0.5, 10.0, 20.0, 32.0, 46.0)
"""Distances of a label from its marker, in points, in the order in which they are tried."""

LINE_FROM = 10.0
"""Distance from which a line joins a label and its marker."""


class Point(NamedTuple):
    """A layer in a plane of time and quality."""

    model: str
    family: str
    microseconds: float
    r2: float


class Box(NamedTuple):
    """A rectangle: its centre, and half of its width and height."""

    x: float
    y: float
    width: float
    height: float

    def overlap(self, other: Box) -> float:
        """Return the area that two rectangles share."""
        across = self.width + other.width - abs(self.x - other.x)
        along = self.height + other.height - abs(self.y - other.y)
        return max(0.0, across) * max(0.0, along)

    def within(self, frame: Box) -> bool:
        """Whether this rectangle lies in another."""
        return (
            abs(self.x - frame.x) + self.width <= frame.width
            and abs(self.y - frame.y) + self.height <= frame.height
        )


def draw(panels: dict[str, list[Point]], path: Path) -> None:
    """Draw a panel for each kind of call, with labels that do not overlap."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((7.5 * len(panels), 6.0), layout="constrained")
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
            style = {"marker": marker, "color": colour, "label": family}
            axes.plot(*zip(*own, strict=True), ls="-" if family == DENSE else "", **style)
    axes.margins(x=0.12, y=0.1)  # room for labels
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.set_xlabel("us per row")
    axes.set_ylabel("R2 on the tokens held out")
    axes.set_title(name, loc="left", fontweight="bold")
    axes.grid(which="major", alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")


def add_labels(axes: Any, points: Sequence[Point], renderer: Any) -> None:
    """Write the names of the points next to them."""
    scale = 72 / axes.figure.dpi
    places = scale * axes.transData.transform([point[2:] for point in points])
    notes = [
        axes.annotate(
            point.model, point[2:], xytext=(0, 0), textcoords="offset points",
            ha="center", va="center", fontsize=8, color=STYLES[point.family][1],
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
    for note, box, label in zip(notes, boxes, placed(boxes, frame, [legend]), strict=True):
        offset = label.x - box.x, label.y - box.y
        note.set_position(offset)
        note.set_in_layout(False)
        if distance(label, box) >= LINE_FROM:
            line = {"arrowstyle": "-", "color": note.get_color(), "linewidth": 0.5}
            axes.annotate(
                "", note.xy, xytext=offset, textcoords="offset points", arrowprops=line
            ).set_in_layout(False)


def box_of(extent: Any, scale: float) -> Box:
    """Return the rectangle of an artist in points."""
    x, y = scale * (extent.x0 + extent.x1) / 2, scale * (extent.y0 + extent.y1) / 2
    return Box(x, y, scale * extent.width / 2, scale * extent.height / 2)


def distance(label: Box, place: Box) -> float:
    """Return the distance between a label and the middle of its marker, in points."""
    across = max(0.0, abs(label.x - place.x) - label.width)
    along = max(0.0, abs(label.y - place.y) - label.height)
    return math.hypot(across, along)


def placed(boxes: Sequence[Box], frame: Box, taken: Sequence[Box]) -> list[Box]:
    """Return places for labels, near their markers, where they cover nothing.

    Parameters
    ----------
    boxes : sequence of Box
        For each label: the middle of its marker, and half of the label's width and height.
    frame : Box
        The rectangle that labels must not leave.
    taken : sequence of Box
        Rectangles that labels must not cover, such as the legend.

    Returns
    -------
    list of Box
        The first place of each label that is free, or the one that covers the least.
    """
    markers = [Box(box.x, box.y, MARKER / 2, MARKER / 2) for box in boxes]
    result: list[Box] = []
    for box in boxes:
        obstacles = [*taken, *markers, *result]
        best, least = box, math.inf
        for place in candidates(box):
            covered = sum(place.overlap(other) for other in obstacles)
            covered += 0.0 if place.within(frame) else 4 * place.width * place.height
            if covered < least:
                best, least = place, covered
            if not least:
                break
        result.append(best)
    return result


def candidates(box: Box) -> Iterator[Box]:
    """Yield places for a label around its marker, the nearest first."""
    for gap, (across, along) in itertools.product(DISTANCES, DIRECTIONS):
        room = gap + MARKER / 2
        yield box._replace(
            x=box.x + across * (box.width + room), y=box.y + along * (box.height + room)
        )
