"""Figures without a window: their creation, the style of their lines, and how they are saved."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from fffcpu.errors import ArgumentError, require_extra
from fffcpu.system.files import write_atomically

__all__ = ["MARKERS", "check_plot_path", "colours", "new_figure", "save"]

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
