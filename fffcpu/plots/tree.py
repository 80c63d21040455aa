"""The usage of one tree: its nodes, its leaves and its levels.

The nodes are drawn level by level. All nodes of a level are equally wide, and their colour shows
their visits::

    level 0 |            root             |
    level 1 |      1       |       2      |
    level 2 |  3   |   4   |   5  |   6   |
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from fffcpu.diagnosis import TreeUsage
from fffcpu.errors import require_extra
from fffcpu.plots.figure import legend_below, new_figure, save, text_colour
from fffcpu.tree import level_start

__all__ = ["plot_tree"]

DRAWN_LEVELS = 11
"""Largest number of drawn levels. The last of them has 1,024 nodes, each wider than a pixel."""

OUTLINED_LEVELS = 7
NUMBERED_LEVELS = 4
"""Numbers of levels with nodes wide enough for lines between them, and for numbers."""

EXTREME = 4
"""Colours range from 2**-4 to 2**4 times the even share of a level."""

MEASURES = {
    "nodes reached": ("tab:blue", "o"),
    "balance of splits": ("tab:purple", "s"),
    "near ties": ("tab:orange", "D"),
    "choice entropy / log 2": ("tab:green", "^"),
}
"""Colour and marker of each measure, in every picture, whichever measures a tree has."""


def plot_tree(usage: TreeUsage, path: str | os.PathLike[str], title: str) -> None:
    """Draw the usage of one tree: visits of nodes, shares of leaves, measures of levels.

    Parameters
    ----------
    usage : TreeUsage
        The tree. The first panel shows at most 11 levels, the last of them with 1,024 nodes.
    path : path
        File to write. Its ending determines the format: ``.png``, ``.svg``, ``.pdf`` or any other
        of Matplotlib.
    title : str
        One line above the picture.

    Raises
    ------
    MissingExtraError
        If the extra ``plot`` is not installed.
    """
    figure = new_figure()
    grid = figure.add_gridspec(2, 2, height_ratios=(1.3, 1))
    _draw_nodes(figure, figure.add_subplot(grid[0, :]), usage)
    _draw_leaves(figure.add_subplot(grid[1, 0]), usage)
    _draw_levels(figure.add_subplot(grid[1, 1]), usage)
    save(figure, path, title)


def _draw_nodes(figure: Any, axes: Any, usage: TreeUsage) -> None:
    """Draw the tree level by level. Colours compare visits with an even share."""
    levels = min(usage.depth + 1, DRAWN_LEVELS)
    shares = [
        usage.visits[level_start(level) : level_start(level + 1)] / usage.rows
        for level in range(levels)
    ]
    palette = require_extra("matplotlib", "plot").colormaps["PuOr"].with_extremes(bad="0.3")
    meshes = []
    for level, line in enumerate(shares):
        ratios = line * len(line)
        logs = np.log2(np.maximum(ratios, 2.0**-EXTREME))
        # Cells with edges, and not an image, which filters would make of neighbours' mixtures.
        mesh = axes.pcolormesh(
            np.linspace(0, 1, len(line) + 1),
            [level - 0.5, level + 0.5],
            np.ma.masked_array(logs, ratios == 0)[np.newaxis],
            cmap=palette,
            vmin=-EXTREME,
            vmax=EXTREME,
            edgecolors="none",
            antialiased=False,
        )
        meshes.append(mesh)
    axes.set_xlim(0, 1)
    axes.set_ylim(levels - 0.5, -0.5)
    axes.hlines(np.arange(levels - 1) + 0.5, 0, 1, color="white", linewidth=1)
    for level, line in enumerate(shares[:OUTLINED_LEVELS]):
        borders = np.arange(1, len(line)) / len(line)
        axes.vlines(borders, level - 0.5, level + 0.5, color="white", linewidth=1)
        fills = mesh.to_rgba(meshes[level].get_array().ravel())
        for i, share in enumerate(line if level < NUMBERED_LEVELS else ()):
            place, colour = ((i + 0.5) / len(line), level), text_colour(fills[i])
            axes.annotate(_percentage(share), place, ha="center", va="center", color=colour)
    axes.set_yticks(range(levels))
    axes.set_xticks([])
    axes.set_ylabel("level")
    axes.set_xlabel(f"nodes of each level, from left to right; {_levels(levels, usage.depth + 1)}")
    what = "Rows per node. Purple: more than an even share. Orange: fewer. Dark grey: none"
    axes.set_title(what, loc="left", fontweight="bold")
    bar = figure.colorbar(mesh, ax=axes, pad=0.01)
    ticks = range(-EXTREME, EXTREME + 1)
    labels = [f"{2**tick}x" if tick >= 0 else f"1/{2**-tick}x" for tick in ticks]
    bar.set_ticks(list(ticks), labels=labels)
    bar.set_label("rows, relative to an even share")


def _percentage(share: float) -> str:
    """Return the text of a share. A node that no row visits differs from one that few rows do."""
    if share == 0:
        return "none"
    return f"{share:.1%}" if share >= 0.0005 else "<0.1%"


def _levels(shown: int, held: int) -> str:
    """Return the number of levels that are drawn, and of those that the tree has."""
    if shown < held:
        return f"the first {shown} of {held} levels"
    return f"{held} level" + ("" if held == 1 else "s")


def _draw_leaves(axes: Any, usage: TreeUsage) -> None:
    """Draw the cumulative share of the rows by leaves, the most visited first."""
    visits = np.sort(usage.leaf_visits)[::-1]
    leaves = np.arange(len(visits) + 1)
    served = np.concatenate([[0.0], np.cumsum(visits) / usage.rows])
    axes.plot(leaves, served, color="tab:purple", label="this tree")
    axes.plot(
        [0, len(visits)], [0, 1], color="black", linestyle="--", linewidth=1, label="even shares"
    )
    axes.axvline(usage.effective_leaves, color="tab:orange", label="effective leaves")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("number of leaves, starting with the most visited")
    axes.set_ylabel("share of the rows that reach them")
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3)
    legend_below(axes)
    what = f"Leaves: {np.count_nonzero(visits):,} of {len(visits):,} reached"
    axes.set_title(f"{what}, balance {usage.balance:.2f}", loc="left", fontweight="bold")


def _draw_levels(axes: Any, usage: TreeUsage) -> None:
    """Draw the measures of each level that lie between 0 and 1."""
    levels = usage.levels
    entropies = [level.choice_entropy for level in levels if level.choice_entropy is not None]
    measures: dict[str, list[float]] = {
        "nodes reached": [level.reached / level.nodes for level in levels],
        "balance of splits": [level.balance for level in levels if level.balance is not None],
        "near ties": [level.near_ties for level in levels if level.near_ties is not None],
        "choice entropy / log 2": [value / np.log(2) for value in entropies],
    }
    for label, values in measures.items():
        if values:
            colour, marker = MEASURES[label]
            axes.plot(values, color=colour, marker=marker, label=label)
    axes.set_xticks(range(len(levels)))
    axes.set_xlabel("level")
    axes.set_ylabel("value, from 0 to 1")
    axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.3)
    legend_below(axes)
    axes.set_title("Measures of each level", loc="left", fontweight="bold")
