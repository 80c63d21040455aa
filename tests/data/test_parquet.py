"""Parquet files: the same tables as in CSV files."""

from __future__ import annotations

import datetime
import sys

import numpy as np
import pandas
import pytest

from fffcpu.data import read_blocks, read_table
from fffcpu.errors import DataError, MissingExtraError

FRAME = pandas.DataFrame(
    {
        "size": [0.1, 1e-9, 3.0] * 4000,
        "count": pandas.array([1, None, 3] * 4000, "Int64"),
        "colour": ["red", "blue", None] * 4000,
        "member": [True, False, True] * 4000,
        "day": [datetime.datetime(2013, 1, 31, 12, 30, 0, 5)] * 12000,
        "label": ["a", "b", "c d"] * 4000,
    }
)


def test_a_table_is_the_same_as_in_a_csv(tmp_path):
    FRAME.to_parquet(tmp_path / "a.parquet")
    FRAME.to_csv(tmp_path / "a.csv", index=False)
    first, second = (
        read_table(tmp_path / name, "label", encoding="auto") for name in ("a.parquet", "a.csv")
    )
    np.testing.assert_array_equal(first.x, second.x)
    assert first.y.tolist() == second.y.tolist()
    assert first.classes == second.classes == ("a", "b", "c d")
    assert first.encoding.columns == second.encoding.columns
    blocks = read_blocks(tmp_path / "a.parquet", 5000, ["size", "member"])
    np.testing.assert_array_equal(np.concatenate(list(blocks)), first.x[:, [0, 3]])


@pytest.mark.slow
def test_commands_take_it(tmp_path, command):
    FRAME.to_parquet(tmp_path / "a.parquet")
    out = tmp_path / "model"
    arguments = ["--target", "label", "--out", out, "--epochs", "1"]
    assert command("train", tmp_path / "a.parquet", *arguments)[0] == 0
    status, printed, _ = command("predict", out, tmp_path / "a.parquet", "--id", "colour")
    assert status == 0
    assert printed.splitlines()[0] == "colour,label"


def test_wrong_files_are_named(tmp_path):
    FRAME.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(
        DataError, match=r"a\.parquet', row 1, column 3 \('colour'\): must be a numb"
    ):
        read_table(tmp_path / "a.parquet", "label")
    content = (tmp_path / "a.parquet").read_bytes()
    for name, damaged in (("b", content[:-20]), ("c", b""), ("d", b"PAR1" * 9)):
        (tmp_path / f"{name}.parquet").write_bytes(damaged)
        with pytest.raises(DataError, match=f"{name}.parquet': must be a whole Parquet file"):
            read_table(tmp_path / f"{name}.parquet", "label")
    pandas.DataFrame({"x": [[1, 2]]}).to_parquet(tmp_path / "e.parquet")
    with pytest.raises(DataError, match="one value per row and column, got several in 'x'"):
        read_table(tmp_path / "e.parquet")


def test_what_is_missing_is_told_how_to_install(tmp_path, monkeypatch):
    FRAME.to_parquet(tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fffcpu\[parquet\]'"):
        read_table(tmp_path / "a.parquet", "label")
