"""What the columns of a CSV file hold, found out from the file; read again, it is the same."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.data import Column, read_table
from fffcpu.data.learning import MOST_CATEGORIES, Vocabulary, describe_form
from fffcpu.errors import DataError


def test_each_kind_of_column_is_recognised(read):
    table = read(
        {
            "size": ["1", "2.5", "-3e1"],
            "member": ["True", "False", "true"],
            "age": ["31", "NA", ""],
            "colour": ["red", "blue", "red"],
            "shape": ["round", "", "square"],
            "day": ["2013-01-31", "2013-02-01", ""],
        }
    )
    assert table.features == ("size", "member", "age", "colour", "shape", "day")
    number, there, date = Column(fill=0.0), Column(fill=0.0, missing=True), "date"
    assert table.encoding.columns == (
        *(number, number, there),
        Column("category", ("blue", "red")),
        Column("category", ("round", "square"), missing=True),
        Column(date, fill=0.0, missing=True),
    )
    np.testing.assert_array_equal(
        table.x,
        [
            [1, 1, 31, 1, 0, 15736],
            [2.5, 0, np.nan, 0, 2, 15737],
            [-30, 1, np.nan, 1, 1, np.nan],
        ],
    )
    assert table.left_out == {}
    assert table.inputs == 4 + 2 + 3 + 8


def test_rare_texts_share_an_input(read):
    texts = [f"common {k % 3}" for k in range(990)] + [f"rare {k}" for k in range(10)]
    (column,) = read({"text": texts}).encoding.columns
    assert column == Column("category", ("common 0", "common 1", "common 2"), others=True)
    many = [f"text {k % 300:03}" for k in range(30_000)]
    table = read({"text": many})
    (column,) = table.encoding.columns
    assert len(column.categories) == MOST_CATEGORIES
    assert column.others
    assert table.x.max() == MOST_CATEGORIES
    assert (table.x == MOST_CATEGORIES).sum() == 100 * (300 - MOST_CATEGORIES)


def test_identifiers_and_empty_columns_are_left_out_and_named(read):
    rows = 60
    table = read(
        {
            "name": [f"person {k}" for k in range(rows)],
            "nothing": [""] * rows,
            "x": list(range(rows)),
        }
    )
    assert table.features == ("x",)
    assert table.x.shape == (rows, 1)
    assert table.left_out == {
        "name": "seems to be an identifier: 60 different texts in 60 rows",
        "nothing": "has no value",
    }
    names = {"name": [f"person {k}" for k in range(rows)]}
    with pytest.raises(DataError, match="features that can be used; 'name' seems to be an ident"):
        read(names)
    assert read(names, categories=["name"]).inputs == rows


def test_texts_that_look_like_numbers_are_categories_if_named(read):
    columns = {"zip": ["02116", "10001", "02116"], "x": [1, 2, 3]}
    assert read(columns).encoding.columns[0].kind == "number"
    table = read(columns, categories=["zip"])
    assert table.encoding.columns[0].categories == ("02116", "10001")
    with pytest.raises(DataError, match="must have a column 'zap', got 'zip', 'x'; did you mean"):
        read(columns, categories=["zap"])


def test_a_mistake_does_not_turn_numbers_into_categories(read):
    for at in (3, 6000):
        numbers = [*(str(k % 7) for k in range(at)), "1O", *map(str, range(10))]
        with pytest.raises(
            DataError, match=rf"line {at + 2}, column 1 \('n'\): .*'1O', .*--category"
        ):
            read({"n": numbers})
        assert read({"n": numbers, "x": numbers}, features=["n"], categories=["n"]).inputs > 1


@given(data=st.data())
def test_a_table_read_again_with_its_encoding_is_the_same(tmp_path_factory, data):
    text = st.sampled_from(["a", "b", "", "c d", "é"])
    number = st.one_of(st.just(""), st.integers(-9, 9).map(str), st.sampled_from(["NA", "1e-3"]))
    rows = data.draw(st.integers(1, 12))
    columns = {
        "t": data.draw(st.lists(text, min_size=rows, max_size=rows)),
        "n": data.draw(st.lists(number, min_size=rows, max_size=rows)),
        "x": [str(k) for k in range(rows)],
    }
    path = tmp_path_factory.mktemp("again") / "a.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    first = read_table(path, encoding="auto")
    again = read_table(path, encoding=first.encoding)
    np.testing.assert_array_equal(first.x, again.x)
    assert again.features == first.features
    inputs = first.encoding.expand(first.x)
    assert np.isfinite(inputs).all()
    assert inputs.shape == (rows, first.inputs)


# --- Forms ----------------------------------------------------------------------------------------

COMMA = "looks like numbers with a decimal comma: write a point"
ORDER = "looks like dates in another order: write 2013-01-31"


@pytest.mark.parametrize(
    ("texts", "form"),
    [
        (["0,105", "12,5", "-3,0"], COMMA),
        (["1.234,5", "", "NA"], COMMA),
        (["1,234,567", "1,234.5"], "looks like numbers with commas between thousands: leave"),
        (["31.01.2013", "1.2.2013"], ORDER),
        (["1/28/2013", "12/1/2013 10:30"], ORDER),
        (["31.01.13"], ORDER),
        (["2013/01/31"], ORDER),
        (["31 Jan 2013", "1-February-2013"], ORDER),
        (["Jan 31, 2013"], ORDER),
        (["2013-01-31", "2013-02-01"], None),
        (["red", "blue"], None),
        (["1,5", "red"], None),
        (["10-20-30", "192.168.0.1", "555-1234"], None),
        ([""], None),
    ],
)
def test_texts_that_are_numbers_or_dates_for_people(texts, form):
    assert describe_form(texts).startswith(form) if form else describe_form(texts) == ""


def test_a_field_in_another_form_is_named(read):
    with pytest.raises(DataError, match=f"got '1,5'; the field {COMMA}"):
        read({"a": [1, 2, "1,5"], "b": [1, 2, 3]})


def test_what_an_identifier_looks_like_is_kept_when_it_is_forgotten(monkeypatch):
    monkeypatch.setattr("fffcpu.data.learning.MANY_TEXTS", 10)
    reader = Vocabulary()
    reader.read([f"{k},5" for k in range(20)])
    reader.read(["red"])
    assert reader.is_identifier
    assert reader.form == COMMA
