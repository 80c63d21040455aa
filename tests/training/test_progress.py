"""The bar and the lines of a run: what they show, where, and that they can be hidden."""

from __future__ import annotations

import pytest

from fffcpu.training.progress import StepBar, lines_in_logs

LINE = {
    "step": 1200,
    "rows": 38400,
    "seconds": 12.34,
    "lr": 0.001,
    "train_loss": 0.5,
    "gradient_norm": 1.0,
    "validation_loss": None,
    "validation_accuracy": 0.91,
}
SHOWN = (
    "step 1,200 of 6,000, train loss 0.5000, validation loss not finite, "
    "validation accuracy 0.9100, 12.3 s\n"
)


def test_the_bar_shows_the_mean_loss_the_best_and_the_time_left(capsys):
    with StepBar(4, 1, "tokens", True) as bar:
        bar.advance(1.0, 10)
        bar.advance(2.0, 10, ("validation_accuracy", 0.875), 90.0)
        bar._bar.refresh()
    told = capsys.readouterr().err
    for words in ("3/4", "loss=1.5000", "best accuracy=0.8750", "left=90 s", "tokens/s="):
        assert words in told


@pytest.mark.parametrize("steps", [120_000, None])
def test_the_figures_of_the_bar_fit_into_80_columns(steps, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with StepBar(steps, 0, "rows", True) as bar:
        bar._bar.ncols, bar._bar.dynamic_ncols = 80, False
        bar.advance(1.0, 256, ("validation_accuracy", 0.875))
        bar._bar.refresh()
    shown = capsys.readouterr().err.rpartition("best")[2]
    assert "accuracy=0.8750, loss=1.0000, rows/s=" in shown


def test_an_evaluation_is_a_line_that_stays(capsys):
    with StepBar(6000, 0, "rows", True) as bar:
        bar.advance(1.0, 10)
        bar.keep(LINE)
        bar.advance(1.0, 10)
    told = capsys.readouterr().err
    assert told.count(SHOWN) == 1
    assert told.index(SHOWN) > told.index("0/6000")


@pytest.mark.parametrize("shown", [False, None], ids=["hidden", "no terminal"])
def test_may_be_hidden(shown, capsys):
    with StepBar(None, 0, "rows", shown) as bar:
        bar.advance(1.0, 10)
        bar.keep(LINE)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("shown", [False, None], ids=["hidden", "no terminal"])
def test_logs_get_the_lines_and_no_bar(shown, capsys):
    with lines_in_logs(), StepBar(6000, 0, "rows", shown) as bar:
        bar.advance(1.0, 10)
        bar.keep(LINE)
    assert capsys.readouterr().err == (SHOWN if shown is None else "")
