"""Paths of pictures, checked before anything is drawn."""

from __future__ import annotations

import sys

import pytest

from fffcpu.errors import ArgumentError, MissingExtraError
from fffcpu.plots import (
    check_plot_path,
)
from fffcpu.plots.figure import text_colour


def test_paths_are_checked_beforehand(tmp_path):
    check_plot_path(tmp_path / "speed.PNG")
    with pytest.raises(ArgumentError, match=r"must end in one of .*\.png.*, got '.*speed'"):
        check_plot_path(tmp_path / "speed")
    with pytest.raises(FileNotFoundError, match="absent"):
        check_plot_path(tmp_path / "absent" / "speed.png")


def test_the_missing_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"fffcpu\[plot\]"):
        check_plot_path(tmp_path / "speed.png")


@pytest.mark.parametrize(
    ("background", "text"),
    [("white", "black"), ("yellow", "black"), ("navy", "white"), ("0.3", "white")],
)
def test_text_has_the_colour_that_is_read_best(background, text):
    assert text_colour(background) == text
