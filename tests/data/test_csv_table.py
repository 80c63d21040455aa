"""Columns of a CSV file as features and targets: chosen, dropped, left out."""

from __future__ import annotations

import numpy as np
import pytest

from fffcpu.data import read_table
from fffcpu.errors import ArgumentError, DataError


def test_columns_are_chosen_and_dropped(read):
    columns = {"a": [1, 2], "": [0, 1], "b": [3, 4], "b ": [5, 6], "y": [0, 1]}
    with pytest.raises(DataError, match="column 2: must have a name, got an empty field"):
        read(columns, "y")
    assert read(columns, "y", features=["a"]).features == ("a",)
    only = {name: values for name, values in columns.items() if name != "b "}
    assert read(only, "y", drop=[""]).features == ("a", "b")
    assert read(only, "y", drop=[" a"], features=["a", "b"]).features == ("b",)
    with pytest.raises(DataError, match="must have a column 'c'"):
        read(only, "y", drop=["c"])


@pytest.mark.parametrize(("separator", "name"), [(";", "a.csv"), ("\t", "a.tsv"), ("|", "a.csv")])
def test_other_separators(read, separator, name):
    table = read({"a,b": [1, 2], "c": ["x", "y"]}, "c", name=name, separator=separator)
    assert table.features == ("a,b",)
    assert table.classes == ("x", "y")


def test_rows_without_a_target_are_an_error_or_left_out(read):
    for target in (["1.5", "NA", "2.5", ""], ["a", "", "b", ""]):
        columns = {"x": ["1", "2", "3", "4"], "y": target}
        with pytest.raises(DataError, match=r"line (3|5), column 2 \('y'\): .*--drop-missing"):
            read(columns, "y")
        table = read(columns, "y", drop_missing=True)
        assert table.x.ravel().tolist() == [1, 3]
        assert len(table.y) == 2
    columns = {"x": ["1", "2"], "y": ["1", ""], "z": ["", "2"]}
    with pytest.raises(DataError, match="must have a target in at least one row"):
        read(columns, "y,z", drop_missing=True)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"encoding": "learn"}, "encoding"),
        ({"categories": ["a"]}, "categories"),
        ({"separator": ",,"}, "separator"),
        ({"drop": ["a", "a"]}, "drop"),
    ],
)
def test_impossible_options(tmp_path, options, named):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ArgumentError, match=f"'{named}'"):
        read_table(tmp_path / "a.csv", **options)


def test_files_without_names_have_no_such_options(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 2)))
    for options in ({"encoding": "auto"}, {"drop": ["a"]}):
        with pytest.raises(ArgumentError, match="for a file without names of columns"):
            read_table(tmp_path / "x.npy", **options)


def test_categories_are_features(read):
    for options in ({"target": "b"}, {"drop": ["b"]}, {"features": ["a"]}):
        with pytest.raises(ArgumentError, match=r"'categories' .* got 'b', which is the target or"):
            read({"a": [1, 2], "b": [1, 2]}, categories=["b"], **options)


def test_a_target_is_not_dropped(read):
    with pytest.raises(
        DataError, match="column 2 \\('b'\\): must be a target or dropped, got both"
    ):
        read({"a": [1, 2], "b": [1, 2]}, "b", drop=["b"])
