"""The progress bar: what it shows, and that it can be hidden."""

from __future__ import annotations

import pytest

from fffcpu.training.progress import StepBar


def test_shows_the_mean_loss_the_best_and_the_time_left(capsys):
    with StepBar(4, 1, "tokens", True) as bar:
        bar.advance(1.0, 10, 0.5)
        bar.advance(2.0, 10, 0.25, ("accuracy", 0.875), 90.0)
        bar._bar.refresh()
    told = capsys.readouterr().err
    for words in ("3/4", "loss=1.5000", "lr=2.50e-01", "best accuracy=0.8750", "left=90 s"):
        assert words in told
    assert "tokens/s=" in told


@pytest.mark.parametrize("shown", [False, None], ids=["hidden", "no terminal"])
def test_may_be_hidden(shown, capsys):
    with StepBar(None, 0, "rows", shown) as bar:
        bar.advance(1.0, 10, 0.5)
    assert capsys.readouterr() == ("", "")
