"""Plots of a training run by step: losses, learning rate and norms of gradients."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from fffcpu.errors import ArgumentError
from fffcpu.plots.figure import new_figure, save

__all__ = ["plot_history"]


LOSSES = {"train_loss": ("-", "tab:blue"), "validation_loss": ("o-", "tab:orange")}
"""Style and colour of each loss, in every picture, whichever losses a history has."""


def plot_history(
    history: Sequence[Mapping[str, Any]], path: str | os.PathLike[str], title: str
) -> None:
    """Draw a training run by step: losses, learning rate and norms of gradients.

    Parameters
    ----------
    history : sequence of mapping
        Lines of the history of a `fffcpu.training.Trainer`.
    path : path
        File to write. Its ending determines the format.
    title : str
        One line above the picture.

    Raises
    ------
    MissingExtraError
        If the extra ``plot`` is not installed.
    ArgumentError
        If the history is empty.
    """
    if not history:
        raise ArgumentError("argument 'history' must have at least one line, got none")
    figure = new_figure(height=7)
    grid = figure.add_gridspec(2, 1, height_ratios=(2.5, 1))
    losses = figure.add_subplot(grid[0])
    for name, (style, colour) in LOSSES.items():
        _draw_quantity(losses, history, name, style, name.replace("_", " "), color=colour)
    losses.set_ylabel("loss")
    rates = figure.add_subplot(grid[1], sharex=losses)
    norms = rates.twinx()
    _draw_quantity(rates, history, "lr", "-", "learning rate", color="tab:green")
    _draw_quantity(norms, history, "gradient_norm", ":", "norm of gradients", color="tab:gray")
    rates.set_ylabel("learning rate")
    norms.set_ylabel("norm of gradients, dotted")
    rates.set_xlabel("step")
    losses.grid(alpha=0.3)
    losses.legend()
    save(figure, path, title)


def _draw_quantity(
    axes: Any, history: Sequence[Mapping[str, Any]], name: str, style: str, label: str, **more: Any
) -> None:
    """Draw one quantity of a history, at the steps with a value."""
    points = [(line["step"], line[name]) for line in history if line.get(name) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), style, label=label, markersize=3, **more)
