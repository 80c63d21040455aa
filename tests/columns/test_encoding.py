"""Columns of numbers, categories and dates as inputs of a layer."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.columns.fields import clean_name
from fffcpu.data import Column, Encoding
from fffcpu.errors import ArgumentError, ShapeError

COLOURS = Column("category", ("blue", "red"), others=True, missing=True)


def test_each_kind_has_its_inputs():
    encoding = Encoding(
        ["size", "colour", "day"],
        [Column(missing=True, fill=2.0), COLOURS, Column("date", fill=0.0)],
    )
    assert encoding.inputs == (
        *("size", "size missing"),
        *("colour=blue", "colour=red", "colour: other", "colour missing"),
        *("day (days)", "day (s of year)", "day (c of year)", "day (s of week)"),
        *("day (c of week)", "day (s of day)", "day (c of day)"),
    )
    assert encoding.width == len(encoding.inputs)
    rows = encoding.expand(np.array([[1.5, 1, 0], [np.nan, 3, 0.25], [0, -1, 7]]))
    assert rows[:, :6].tolist() == [
        [1.5, 0, 0, 1, 0, 0],
        [2.0, 1, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0],
    ]
    assert rows[:, 6].tolist() == [0, 0.25, 7]
    np.testing.assert_allclose(
        rows[:, 9:11],
        [[0, 1], [math.sin(math.tau / 28), math.cos(math.tau / 28)], [0, 1]],
        atol=1e-12,
    )
    np.testing.assert_allclose(rows[1, 11:], [1, 0], atol=1e-12)


@given(
    offset=st.floats(-1e12, 1e12),
    value=st.floats(-1e3, 1e3),
    scale=st.floats(1e-6, 1e6),
)
def test_offsets_are_subtracted_before_anything_is_rounded(offset, value, scale):
    column = Column(offset=offset, scale=scale)
    found = Encoding(["t"], [column]).expand(np.array([[offset + value]]))
    assert found[0, 0] == (offset + value - offset) * (1.0 / scale)


@given(values=st.lists(st.floats(allow_nan=True), min_size=1, max_size=20))
def test_limits_and_missing_values(values):
    column = Column(fill=0.5, low=-1.0, high=2.0, missing=True)
    found = Encoding(["x"], [column]).expand(np.array(values)[:, np.newaxis])
    expected = [[0.5, 1] if math.isnan(v) else [min(max(v, -1.0), 2.0), 0] for v in values]
    assert found.tolist() == expected


@given(shape=st.lists(st.integers(0, 3), max_size=3))
def test_leading_axes_stay(shape):
    encoding = Encoding(["a", "b"], [Column(), COLOURS])
    assert encoding.expand(np.zeros((*shape, 2))).shape == (*shape, 5)
    with pytest.raises(ShapeError, match="must have 2 columns, as the model was trained on"):
        encoding.expand(np.zeros((*shape, 3)))


def test_fields_of_categories_are_found_and_others_counted():
    unknown = Counter()
    codes = COLOURS.read(["red", " blue ", "", "green", "green", "Red"], "colour", unknown)
    assert codes.numbers.tolist() == [1, 0, 3, 2, 2, 2]
    assert codes.wrong is None
    assert unknown == {("colour", "green"): 2, ("colour", "Red"): 1}
    plain = Column("category", ("1", "2"))
    assert plain.read(["2.0", "1", "", "3"]).numbers.tolist() == [1, 0, -1, -1]


@pytest.mark.parametrize(
    ("column", "fields", "wrong", "reason"),
    [
        (Column(), ["1", "x"], 1, "must be a number, got 'x'"),
        (Column(), ["", "1"], 0, "must be a number, got an empty field"),
        (Column(), ["NA"], 0, "must be a number, got 'NA'"),
        (Column(), ["1", "nan"], 1, "must be a finite number, got nan"),
        (Column(), ["inf"], 0, "must be a finite number, got inf"),
        (Column(fill=0.0), ["-inf"], 0, "must be a finite number, got -inf"),
        (Column(fill=0.0), ["1_0"], 0, "must be a number, got '1_0'"),
        (Column("date"), ["2013-01-01", "1/2/2013"], 1, "must be a date such as 2013-01-31, got"),
        (Column("date"), [""], 0, "must be a date such as 2013-01-31, got an empty field"),
        (Column("date", fill=0.0), ["2013-02-30"], 0, "must be a date such as"),
    ],
)
def test_the_first_wrong_field_is_explained(column, fields, wrong, reason):
    assert column.read(fields).wrong == wrong
    assert column.explain(fields[wrong]).startswith(reason)


def test_missing_values_that_training_did_not_see_are_counted():
    unknown = Counter()
    found = Column(fill=1.0).read(["1", "NA", ""], "age", unknown)
    assert np.isnan(found.numbers).tolist() == [False, True, True]
    assert unknown == {("age", ""): 2}
    assert Column(fill=1.0, missing=True).read(["NA"], "age", unknown).wrong is None
    assert unknown == {("age", ""): 2}


def test_names_have_no_spaces_around_them():
    assert [clean_name(name) for name in (" age", "age ", 3)] == ["age", "age", "3"]
    assert Encoding([" age "], [Column()]).names == ("age",)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"kind": "text"}, "kind"),
        ({"categories": ("a",)}, "categories"),
        ({"kind": "category", "categories": ("a", "a")}, "categories"),
        ({"missing": True}, "fill"),
        ({"scale": 0.0}, "scale"),
        ({"offset": math.inf}, "offset"),
    ],
)
def test_impossible_columns(options, named):
    with pytest.raises(ArgumentError, match=f"'{named}'"):
        Column(**options)


def test_impossible_encodings():
    with pytest.raises(ArgumentError, match="'names'"):
        Encoding(["a"], [])
    with pytest.raises(ArgumentError, match="must have an input"):
        Encoding(["a"], [Column("category")])


# --- Dates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("time", ["", "T10:20:00", " 23:59:59.5"])
def test_a_time_of_day_that_is_always_the_same_gives_equal_numbers(time):
    column = Column("date", fill=0.0)
    days = [f"{year}-{month:02}-17{time}" for year in range(1971, 2030) for month in (1, 5, 9)]
    inputs = Encoding(["day"], [column]).expand(column.read(days).numbers[:, np.newaxis])
    assert len(np.unique(inputs[:, 5])) == len(np.unique(inputs[:, 6])) == 1


def test_dates_after_the_range_keep_week_year_and_time():
    limited = Column("date", fill=0.0, low=0.0, high=100.0)
    free = Column("date", fill=0.0)
    later = np.array([[5000.25]])
    found, expected = (Encoding(["day"], [column]).expand(later) for column in (limited, free))
    assert found[0, 0] == 100
    assert found[0, 1:].tolist() == expected[0, 1:].tolist()


# --- Categories that are written in another way ---------------------------------------------------


@pytest.mark.parametrize(
    ("categories", "field", "code"),
    [
        (("02116", "10001"), "2116", 0),
        (("1.0", "2.0"), "2", 1),
        (("1", "01"), "1.0", -1),  # two texts have this value
        (("false", "true"), "True", 1),
        (("A", "NA"), "", 1),
        (("v1",), "v1.0", -1),
        (("A", "NA"), "?", 1),
    ],
)
def test_a_value_in_another_spelling_is_the_same_category(categories, field, code):
    assert Column("category", categories).read([field]).numbers.tolist() == [code]


def test_a_missing_value_is_missing_though_a_category_is_called_na():
    column = Column("category", ("A", "NA"), missing=True)
    assert column.read(["", "NA"]).numbers.tolist() == [2, 1]
