"""Figures without a window: their creation, the style of their lines, and how they are saved."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from fffcpu.errors import ArgumentError, require_extra
from fffcpu.system.files import write_atomically

__all__ = [
    "MARKERS",
    "check_plot_path",
    "colours",
    "legend_below",
    "new_figure",
    "save",
    "text_colour",
]

MARKERS = "osD^vP*Xd<>p"
"""Markers of the lines, in order."""

DOTS_PER_INCH = 130
"""Resolution of raster images, in dots per inch."""


def check_plot_path(path: str | os.PathLike[str]) -> None:
    """Raise if no picture can be written to a path. Call it before long measurements.

    Raises
    ------
    MissingExtraError
        If the extra ``plot`` is not installed.
    ArgumentError
        If the ending is not that of a known picture format.
    FileNotFoundError
        If the folder does not exist.
    """
    formats = new_figure().canvas.get_supported_filetypes()
    ending = Path(path).suffix.removeprefix(".").lower()
    if ending not in formats:
        known = ", ".join(f".{name}" for name in sorted(formats))
        raise ArgumentError(f"argument 'plot' must end in one of {known}, got '{os.fspath(path)}'")
    folder = Path(path).parent
    if not folder.is_dir():
        raise FileNotFoundError(2, "No such folder", str(folder))


def new_figure(width: float = 13, height: float = 11) -> Any:
    """Return an empty figure without a window, of a size in inches."""
    return require_extra("matplotlib.figure", "plot").Figure((width, height), layout="constrained")


def save(figure: Any, path: str | os.PathLike[str], title: str) -> None:
    """Write a figure to a file, under a title."""
    figure.suptitle(title, fontsize=11)
    ending = Path(path).suffix.removeprefix(".").lower()
    with write_atomically(path) as temporary:
        figure.savefig(temporary, format=ending, dpi=DOTS_PER_INCH)


def colours(count: int) -> list[Any]:
    """Return colours from dark to light, each dark enough on white."""
    palette = require_extra("matplotlib", "plot").colormaps["viridis"]
    return [palette(share) for share in np.linspace(0, 0.85, count)]


def text_colour(background: Any) -> str:
    """Return "black" or "white", whichever has more contrast with a background.

    Contrast is a ratio of luminances, each plus 0.05, as in the Web Content Accessibility
    Guidelines: black has luminance 0, white has 1.
    """
    rgb = np.asarray(require_extra("matplotlib.colors", "plot").to_rgb(background))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    light = float(linear @ (0.2126, 0.7152, 0.0722)) + 0.05
    return "black" if light / 0.05 > 1.05 / light else "white"


def legend_below(axes: Any) -> None:
    """Name the lines of a panel below it, where the names cover nothing."""
    _, labels = axes.get_legend_handles_labels()
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.14),
        ncols=len(labels),
        fontsize=9,
        frameon=False,
        columnspacing=1.2,
    )
