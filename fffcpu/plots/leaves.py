"""Plots of leaves: the region of each leaf in a plane, and its mean row as an image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.checks import as_real_array
from fffcpu.diagnosis import reached_leaves
from fffcpu.errors import ShapeError, require_extra
from fffcpu.plots.figure import new_figure, save

__all__ = ["plot_prototypes", "plot_regions"]

Array = NDArray[Any]

REGION_CELLS = 400
"""Number of points along each side of a map of regions."""

OPACITY = 0.7
"""Opacity of a map of regions, so that the rows on it can be seen."""

IMAGES_IN_A_ROW = 8


def plot_regions(
    layer: Any,
    x: Any,
    path: str | os.PathLike[str],
    title: str,
    *,
    tree: int = 0,
    classes: Sequence[object] = (),
) -> None:
    """Draw the region of each leaf in a plane, and the predicted class.

    Parameters
    ----------
    layer : FastFeedForward, LeafFeedForward or one of the quantized layers
        A layer that reads two features.
    x : array_like of shape (B, 2)
        At least one row. The rows are drawn as dots, and their range is the drawn part.
    path : path
        File to write. Its ending determines the format.
    title : str
        One line above the picture.
    tree : int
        Number of the tree whose leaves are drawn.
    classes : sequence, optional
        Names of the classes, if the outputs are their scores. Without names, no classes are drawn.

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
    figure = new_figure(7.5 * (1 + bool(classes)), 7)
    low, high = _limits(rows)
    sides = [np.linspace(low[i], high[i], REGION_CELLS) for i in (0, 1)]
    points = np.stack(np.meshgrid(*sides), axis=-1)
    leaves = reached_leaves(layer, points, tree)
    extent = (low[0], high[0], low[1], high[1])
    panels = [figure.add_subplot(1, 1 + bool(classes), 1)]
    palettes = require_extra("matplotlib", "plot").colormaps
    # Steps of the golden ratio give distant colours to neighbours in the tree.
    _draw_plane(panels[0], palettes["turbo"](leaves * 0.618034 % 1), leaves, extent)
    panels[0].set_title("Region of each leaf", loc="left", fontweight="bold")
    if classes:
        panels.append(figure.add_subplot(1, 2, 2))
        palette = palettes["tab10" if len(classes) <= 10 else "tab20"]
        predicted = layer(points).argmax(axis=-1)
        _draw_plane(panels[1], palette(predicted % palette.N), leaves, extent)
        panels[1].set_title("Predicted class", loc="left", fontweight="bold")
        patch = require_extra("matplotlib.patches", "plot").Patch
        handles = [
            patch(color=palette(i % palette.N), alpha=OPACITY, label=str(classes[i]))
            for i in np.unique(predicted)[: palette.N].tolist()
        ]
        # Beside the plane: inside, the names would cover rows.
        panels[1].legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1))
    for axes in panels:
        axes.scatter(*rows.T, s=6, color="white", edgecolors="black", linewidths=0.5)
        axes.set_xlabel("feature 0")
        axes.set_ylabel("feature 1")
    save(figure, path, title)


def plot_prototypes(
    images: Any, captions: Sequence[str], path: str | os.PathLike[str], title: str
) -> None:
    """Draw images in rows, all on the same scale of grey.

    Parameters
    ----------
    images : array_like of shape (images, height, width)
        At least one image. Large values are dark.
    captions : sequence of str
        A caption for each image.
    path : path
        File to write. Its ending determines the format.
    title : str
        One line above the picture.

    Raises
    ------
    MissingExtraError
        If the extra ``plot`` is not installed.
    ShapeError
        If ``images`` has another shape, or the numbers of images and captions differ.
    """
    shades = as_real_array(images, "images")
    if shades.ndim != 3 or not len(shades) or len(captions) != len(shades):
        raise ShapeError(
            f"argument 'images' must have shape ({len(captions)}, height, width), one per caption, "
            f"got shape {shades.shape}"
        )
    columns = min(IMAGES_IN_A_ROW, len(shades))
    lines = -(-len(shades) // columns)
    figure = new_figure(max(6, 1.6 * columns), 0.8 + 2 * lines)
    low, high = float(shades.min()), float(shades.max())
    for i, (image, caption) in enumerate(zip(shades, captions, strict=True)):
        axes = figure.add_subplot(lines, columns, i + 1)
        axes.imshow(image, cmap="Greys", vmin=low, vmax=high, interpolation="nearest")
        axes.set_title(caption, fontsize=8)
        axes.set_axis_off()
    save(figure, path, title)


def _draw_plane(axes: Any, colours: Array, leaves: Array, extent: tuple[float, ...]) -> None:
    """Draw a map of colours, with lines between the regions of leaves."""
    borders = np.zeros(leaves.shape, bool)
    borders[:, 1:] |= leaves[:, 1:] != leaves[:, :-1]
    borders[1:] |= leaves[1:] != leaves[:-1]
    colours[borders] = (0, 0, 0, 1)
    axes.imshow(
        colours,
        origin="lower",
        extent=extent,
        aspect="auto",
        interpolation="nearest",
        alpha=OPACITY,
    )


def _limits(rows: Array) -> tuple[Array, Array]:
    """Return the lower and upper limits of the rows' plane, with a margin on each side."""
    low, high = rows.min(axis=0).astype(np.float64), rows.max(axis=0).astype(np.float64)
    margin = np.where(high > low, 0.05 * (high - low), 0.5)
    return low - margin, high + margin
