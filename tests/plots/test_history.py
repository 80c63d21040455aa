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
