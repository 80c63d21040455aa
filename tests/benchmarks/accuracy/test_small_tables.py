"""The defaults on small tables: every model is scored on the rows that it did not see."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from benchmarks.accuracy import small_tables


def test_a_quarter_of_the_rows_is_for_the_test():
    x, y = np.arange(40).reshape(20, 2), np.arange(20)
    training, test = small_tables.split(x, y, 1)
    assert len(test[1]) == 5
    assert sorted([*training[1], *test[1]]) == list(range(20))
    np.testing.assert_array_equal(test[0], x[test[1]])


@pytest.mark.slow  # hundreds of steps
@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_every_model_learns_a_line(kind):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 3))
    y = x[:, 0] + x[:, 1]
    models = small_tables.regressions()
    if kind == "classes":
        y, models = (y > 0).astype(int), small_tables.classifiers()
    training, test = small_tables.split(x, y, 0)
    for name, score in models.items():
        assert 0.75 < score(training, test, 0) <= 1, name


@pytest.mark.slow
def test_the_table(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["small_tables", "--quick", "--splits", "2"])
    monkeypatch.setattr(small_tables, "tables", lambda: {"iris": IRIS, "other": IRIS})
    small_tables.main()
    *_, line = capsys.readouterr().out.splitlines()
    assert line.startswith("| iris | 60 x 2 |")
    assert line.count("±") == 4


IRIS = (
    np.repeat([[0.0, 1.0], [1.0, 0.0]], 30, axis=0)
    + 0.1 * np.random.default_rng(0).standard_normal((60, 2)),
    np.repeat([0, 1], 30),
)
