"""Pictures of a training."""

from __future__ import annotations

import pytest

from fffcpu.errors import ArgumentError
from fffcpu.plots import (
    plot_history,
)


def test_a_history(tmp_path):
    history = [
        {"step": 1, "train_loss": 3.0, "lr": 0.1, "gradient_norm": 1.0},
        {"step": 2, "train_loss": 2.0, "lr": 0.2, "validation_loss": None},
        {"step": 3, "lr": 0.1, "validation_loss": 2.5},
    ]
    path = tmp_path / "history.svg"
    plot_history(history, path, "A run")
    assert "<svg" in path.read_text()
    with pytest.raises(ArgumentError, match="'history' must have at least one line"):
        plot_history([], path, "A run")


def test_a_loss_has_its_colour_in_every_picture(figures, tmp_path):
    both = {"step": 1, "lr": 0.1, "train_loss": 3.0, "validation_loss": 2.0}
    one = {"step": 1, "lr": 0.1, "validation_loss": 2.0}
    for line in (both, one):
        plot_history([line], tmp_path / "history.png", "A run")
    first, second = (
        {line.get_label(): line.get_color() for line in figure.axes[0].lines} for figure in figures
    )
    assert first["train loss"] != first["validation loss"] == second["validation loss"]
