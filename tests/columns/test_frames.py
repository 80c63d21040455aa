"""Data frames of several libraries, taken by the names of their columns."""

from __future__ import annotations

import datetime
from collections import Counter

import numpy as np
import pandas
import polars
import pyarrow
import pytest

from fffcpu.columns.frames import encode_frame, frame_array, is_frame
from fffcpu.data import Column, Encoding
from fffcpu.errors import DataError

COLUMNS = {
    "age": [31.0, 5.5, 70.0],
    "member": [True, False, True],
    "colour": ["red", "blue", "green"],
    "since": [
        datetime.datetime(1970, 1, 2),
        datetime.datetime(1970, 1, 1, 12),
        datetime.datetime(1971, 1, 1),
    ],
    "id": ["x", "y", "z"],
}
ENCODING = Encoding(
    ["since", "age", "member", "colour"],
    [Column("date"), Column(), Column(), Column("category", ("blue", "red"))],
)
EXPECTED = [[1, 31, 1, 1], [0.5, 5.5, 0, 0], [365, 70, 1, -1]]

FRAMES = {
    "mapping": COLUMNS,
    "pandas": pandas.DataFrame(COLUMNS),
    "pandas with nullable types": pandas.DataFrame(COLUMNS).convert_dtypes(),
    "pandas with spaces": pandas.DataFrame(COLUMNS).rename(columns=lambda name: f" {name}"),
    "pandas categories": pandas.DataFrame(COLUMNS).astype({"colour": "category"}),
    "pandas in a zone": pandas.DataFrame(COLUMNS).assign(
        since=pandas.to_datetime(COLUMNS["since"]).tz_localize("UTC").tz_convert("Asia/Tokyo")
    ),
    "polars": polars.DataFrame(COLUMNS),
    "reversed": pandas.DataFrame(COLUMNS).iloc[:, ::-1],
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_every_frame_gives_the_same_table(frame):
    assert is_frame(frame)
    unknown = Counter()
    assert encode_frame(frame, ENCODING, unknown).tolist() == EXPECTED
    assert unknown == {("colour", "green"): 1}


def test_arrays_and_lists_are_no_frames():
    for x in (np.zeros((2, 2)), [[1, 2]], (1, 2), 3.0, pandas.Series([1])):
        assert not is_frame(x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop(columns="age"), "one column 'age', .* got no column"),
        (
            lambda frame: pandas.concat([frame, frame[["age"]]], axis=1),
            "one column 'age', .* got 2 columns of that name",
        ),
        (lambda frame: frame.assign(age=["1", "2", "x"]), "'age', row 2 .*: must be a number, got"),
        (
            lambda frame: frame.assign(age=[1, np.nan, 2]),
            "'age', row 1 .*: must be a finite number",
        ),
        (lambda frame: frame.assign(age=[1, None, 2]), "'age', row 1 .*: must be a"),
        (
            lambda frame: frame.assign(age=[1, 2, np.inf]),
            "'age', row 2 .*: must be a finite number",
        ),
        (lambda frame: frame.assign(since=[1, 2, 3]), "'since', row 0 .*: must be a date"),
        (lambda frame: frame.assign(since=pandas.NaT), "'since', row 0 .*: must be a"),
    ],
)
def test_what_is_wrong_with_a_frame_is_told_with_its_place(change, message):
    with pytest.raises(DataError, match=message):
        encode_frame(change(FRAMES["pandas"]), ENCODING)


@pytest.mark.parametrize("missing", [np.nan, None, pandas.NA, ""])
def test_missing_values_of_every_kind(missing):
    encoding = Encoding(
        ["age", "colour"],
        [Column(missing=True, fill=0.0), Column("category", ("red",), missing=True)],
    )
    frame = pandas.DataFrame({"age": [1.0, missing], "colour": ["red", missing]}, dtype=object)
    found = encode_frame(frame, encoding)
    assert np.isnan(found[:, 0]).tolist() == [False, True]
    assert found[:, 1].tolist() == [0, 1]


def test_integers_that_became_floats_beside_missing_values_are_the_same_category():
    encoding = Encoding(["zone"], [Column("category", ("1", "2"), missing=True)])
    frame = pandas.DataFrame({"zone": [1, None, 2]})
    assert frame.zone.dtype == float
    assert encode_frame(frame, encoding)[:, 0].tolist() == [0, 2, 1]


# --- pyarrow, masks and shapes --------------------------------------------------------------------

GAPS = pandas.DataFrame({"c": ["a", "b", None, "b"], "n": [1.5, None, 2.0, 3.0], "k": [1, 2, 3, 4]})
GAP_ENCODING = Encoding(
    ["c", "n", "k"],
    [
        Column("category", ("a", "b"), others=True, missing=True),
        Column(fill=0.0, missing=True),
        Column(),
    ],
)


def arrow_frames():
    table = pyarrow.Table.from_pandas(GAPS)
    coded = table.set_column(0, "c", table["c"].dictionary_encode())
    batch = table.to_batches()[0]
    yield from (table, coded, batch, {name: batch[name] for name in ("c", "n", "k")})


@pytest.mark.parametrize("frame", list(arrow_frames()), ids=["table", "coded", "batch", "mapping"])
def test_missing_values_of_pyarrow_are_missing(frame):
    found = encode_frame(frame, GAP_ENCODING)
    np.testing.assert_array_equal(found, encode_frame(GAPS, GAP_ENCODING))
    assert found[:, 0].tolist() == [0, 1, 3, 1]
    assert np.isnan(found[:, 1]).tolist() == [False, True, False, False]


def test_masked_numbers_are_missing():
    masked = np.ma.array([1.0, 2.0], mask=[False, True])
    found = encode_frame({"n": masked}, Encoding(["n"], [Column(fill=0.0)]))
    assert np.isnan(found[:, 0]).tolist() == [False, True]


def test_columns_have_one_value_per_row_and_a_name_of_their_own():
    with pytest.raises(DataError, match=r"'age' must have one value per row, got shape \(3, 2\)"):
        encode_frame({"age": np.ones((3, 2))}, Encoding(["age"], [Column()]))
    with pytest.raises(DataError, match=r"column 'a' must have one value per row"):
        frame_array({"a": np.ones((2, 3)), "b": np.ones((3, 2))})
    with pytest.raises(DataError, match="one column 'a', got 2 of that name"):
        frame_array(pandas.DataFrame(np.ones((3, 2)), columns=["a", "a"]))
    with pytest.raises(DataError, match="must be equally long, got 2 and 3 values"):
        frame_array({"a": [1, 2], "b": [1, 2, 3]})


def test_bytes_are_texts():
    encoding = Encoding(["c"], [Column("category", ("blue",))])
    assert encode_frame({"c": np.array([b"blue", b"red"])}, encoding).tolist() == [[0], [-1]]
