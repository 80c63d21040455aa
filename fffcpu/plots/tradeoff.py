"""Quality against time: encoders as points, a panel for each shape of calls."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fffcpu.errors import ArgumentError
from fffcpu.plots.figure import MARKERS, colours, new_figure, save

__all__ = ["Timed", "plot_tradeoff"]


class Timed(NamedTuple):
    """A model that was timed."""

    name: str
    microseconds: float
    quality: float


def plot_tradeoff(
    panels: Mapping[str, Sequence[Timed]],
    path: str | os.PathLike[str],
    title: str,
    *,
    time: str = "µs per token",
    quality: str = "similarity",
) -> None:
    """Draw quality against time.

    Parameters
    ----------
    panels : mapping of str to sequence of Timed
        The points of each panel, by its title. The best points are left and at the top.
    path : path
        File to write. Its ending determines the format.
    title : str
        One line above the picture.
    time, quality : str
        Labels of the axes.

    Raises
    ------
    MissingExtraError
        If the extra ``plot`` is not installed.
    ArgumentError
        If there is no panel, or one without points.
    """
    if not panels or not all(panels.values()):
        raise ArgumentError("argument 'panels' must have a panel, and a point in each, got none")
    figure = new_figure(4.5 * len(panels), 4.5)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for own, (name, points) in zip(axes, panels.items(), strict=True):
        _draw_panel(own, name, points)
        own.set_xlabel(time)
    axes[0].set_ylabel(quality)
    axes[0].legend()
    save(figure, path, title)


def _draw_panel(axes: Any, name: str, points: Sequence[Timed]) -> None:
    """Draw the points of a panel; time begins at 0, so that distances are differences."""
    for point, colour, marker in zip(points, colours(len(points)), MARKERS, strict=False):
        place = ([point.microseconds], [point.quality])
        axes.plot(*place, marker, color=colour, markersize=9, label=point.name)
    axes.set_xlim(0, 1.15 * max(point.microseconds for point in points))
    axes.set_title(name, loc="left", fontweight="bold")
    axes.grid(alpha=0.3)
