"""The figures that a test draws."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def figures(monkeypatch):
    """The figures that a test draws."""
    made = []
    save = Figure.savefig

    def keep(figure, *arguments, **options):
        made.append(figure)
        return save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return made
