"""Tables made of packages' files, and their test rows."""

from __future__ import annotations

import sys

import numpy as np
import pandas
import pytest

from benchmarks.data import tables
from fffcpu.data import Table, read_table


@pytest.mark.parametrize("name", ["letters", "satellite", "shuttle", "dna"])
def test_rows_to_test_on_are_always_the_same(name, monkeypatch):
    monkeypatch.setattr(tables, "TEST_ROWS", {name: 30})
    numbers = np.arange(100)
    table = Table(numbers[:, np.newaxis], numbers % 3, classes=(0, 1, 2))
    training, test = tables.split_test(table, name)
    assert len(test.x) == 30
    assert sorted([*training.x[:, 0], *test.x[:, 0]]) == list(numbers)
    for half in (training, test):
        np.testing.assert_array_equal(half.y, half.x[:, 0] % 3)
    last = list(test.x[:, 0]) == list(range(70, 100))
    assert last == (name != "satellite")
    np.testing.assert_array_equal(tables.split_test(table, name)[1].x, test.x)


def test_tables_of_packages_are_made_readable(tmp_path, monkeypatch):
    names = [*tables.IMAGES, *(f"{name}.gz" for name in tables.IMAGES)]
    (tmp_path / "package").mkdir()
    for name in names:
        (tmp_path / "package" / name).write_text(name)
    monkeypatch.setattr(sys, "argv", ["tables", str(tmp_path), str(tmp_path / "out")])
    tables.main()
    for name in names:
        folder = "fashion-mnist" if name.endswith(".gz") else "mnist"
        assert (tmp_path / "out" / folder / name).read_text() == name
    frame = pandas.DataFrame({"kind": pandas.Categorical(["b", "a", "b"]), "x": [2.0, 0.5, 1.0]})
    tables.write_table(tmp_path / "letters.csv", frame, "kind")
    table = read_table(tmp_path / "letters.csv", "class")
    assert (table.classes, table.features) == (("a", "b"), ("x",))
    assert (list(table.y), list(table.x[:, 0])) == ([1, 0, 1], [2.0, 0.5, 1.0])


def test_every_data_frame_becomes_a_table(tmp_path, monkeypatch):
    for name, _ in tables.FRAMES.values():
        (tmp_path / f"{name}.rda").touch()
    targets = dict(tables.FRAMES.values())

    def frame_of(path, name):
        assert path == tmp_path / f"{name}.rda"
        # A factor of numbers, as those of DNA, and the class.
        columns = {"V1": pandas.Categorical(["0", "1", "1"]), targets[name]: list("bab")}
        return pandas.DataFrame(columns)

    monkeypatch.setattr(tables, "frame_of", frame_of)
    monkeypatch.setattr(sys, "argv", ["tables", str(tmp_path), str(tmp_path)])
    tables.main()
    assert set(tables.FRAMES) == set(tables.TEST_ROWS)
    for name in tables.FRAMES:
        table = read_table(tmp_path / f"{name}.csv", "class")
        assert (table.classes, table.features) == (("a", "b"), ("V1",))
        assert (list(table.y), list(table.x[:, 0])) == ([1, 0, 1], [0, 1, 1])
