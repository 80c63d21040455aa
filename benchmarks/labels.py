"""Places for labels of points in a picture, where they cover neither each other nor a marker."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

__all__ = ["MARKER", "Box", "box_of", "distance", "move_labels", "placed"]

MARKER = 8.0
"""Width of the box, in points of 1/72 inch, that a marker keeps free of labels."""

DIRECTIONS = ((-1, 1), (1, -1), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, -1))
"""Where a label goes, in the order in which it is tried. Slower layers are better, so the first two
directions lead away from the other layers of a family."""

DISTANCES = (0.5, 10.0, 20.0, 32.0, 46.0)
"""Distances of a label from its marker, in points, in the order in which they are tried."""

LINE_FROM = 10.0
"""Distance from which a line joins a label and its marker."""


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


def move_labels(
    axes: Any, notes: Sequence[Any], boxes: Sequence[Box], found: Sequence[Box]
) -> None:
    """Move labels from their markers to the places that `placed` found for them.

    Parameters
    ----------
    axes : Axes
        The axes of the labels.
    notes : sequence of Annotation
        The labels, written in the middle of their markers.
    boxes, found : sequence of Box
        Argument and result of `placed`.
    """
    for note, box, label in zip(notes, boxes, found, strict=True):
        offset = label.x - box.x, label.y - box.y
        note.set_position(offset)
        note.set_in_layout(False)
        if distance(label, box) >= LINE_FROM:
            line = {"arrowstyle": "-", "color": note.get_color(), "linewidth": 0.5}
            axes.annotate(
                "", note.xy, xytext=offset, textcoords="offset points", arrowprops=line
            ).set_in_layout(False)


def candidates(box: Box) -> Iterator[Box]:
    """Yield places for a label around its marker, the nearest first."""
    for gap, (across, along) in itertools.product(DISTANCES, DIRECTIONS):
        room = gap + MARKER / 2
        yield box._replace(
            x=box.x + across * (box.width + room), y=box.y + along * (box.height + room)
        )
