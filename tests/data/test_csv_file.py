"""CSV files: what is written comes back, and every fault is told with its place."""

from __future__ import annotations

import csv
import gzip
import io
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fffcpu.columns.fields import is_number
from fffcpu.data import read_blocks, read_table
from fffcpu.data.csv_file import read_column_names
from fffcpu.errors import DataError


@pytest.fixture
def written(tmp_path):
    """Write bytes or text to a file; returns its path as text."""

    def write(content, name="a.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


RUBBISH = {
    "empty file": ("", "y", None, "", "must have the names of columns, got an empty file"),
    "empty lines only": ("\n\n", "y", None, "", "must have the names of columns"),
    "byte-order mark only": ("\ufeff", "y", None, "", "must have the names of columns"),
    "no rows": ("a,y\n", "y", None, "", "must have at least one row, got only the header"),
    "empty line first": ("\na,y\n1,2\n", "y", None, ", line 1", "must not be empty"),
    "empty line amid": ("a,y\n1,2\n\n\n3,4\n", "y", None, ", line 3", "must not be empty"),
    "missing value": (
        "a,y\n1,2\n,4\n",
        "y",
        None,
        ", line 3, column 1 ('a')",
        "got an empty field",
    ),
    "blank value": (
        "a,y\n1,2\n  ,4\n",
        "y",
        None,
        ", line 3, column 1 ('a')",
        "got an empty field",
    ),
    "missing label": (
        "a,y\n1,2\n3,\n",
        "y",
        None,
        ", line 3, column 2 ('y')",
        "got an empty field",
    ),
    "blank label": ("a,y\n1,x\n3, \n", "y", None, ", line 3, column 2 ('y')", "got an empty field"),
    "missing number to predict": (
        *("a,y\n1,2\n3,\n", "y", "regression"),
        *(", line 3, column 2 ('y')", "must have a target, got an empty field; --drop-missing"),
    ),
    "text": ("a,b,y\n1,2,3\n4,five,6\n", "y", None, ", line 3, column 2 ('b')", "got 'five'"),
    "hexadecimal": ("a,y\n0x10,1\n", "y", None, ", line 2, column 1 ('a')", "got '0x10'"),
    "underscore": ("a,y\n1_000,1\n", "y", None, ", line 2, column 1 ('a')", "got '1_000'"),
    "other digits": ("a,y\n1,1\n٣,1\n", "y", None, ", line 3, column 1 ('a')", "got '٣'"),
    "NaN": (
        "a,b,y\n1,1,1\n1,nan,1\n",
        "y",
        None,
        ", line 3, column 2 ('b')",
        "finite number, got nan",
    ),
    "infinity": ("a,y\n1,1\n-inf,1\n", "y", None, ", line 3, column 1 ('a')", "got -inf"),
    "NaN to predict": (
        "a,y\n1,.5\n1,NaN\n",
        "y",
        None,
        ", line 3, column 2 ('y')",
        "must have a target, got 'NaN'; --drop-missing",
    ),
    "infinite to predict": (
        "a,y\n1,.5\n1,1e999\n",
        "y",
        None,
        ", line 3, column 2 ('y')",
        "must be a finite number, got inf",
    ),
    "infinite of several to predict": (
        *("a,y,z\n1,2,3\n1,2,inf\n", "y,z", None),
        *(", line 3, column 3 ('z')", "must be a finite number, got inf"),
    ),
    "too few fields": (
        "a,y\n1,2\n3\n",
        "y",
        None,
        ", line 3",
        "must have 2 fields, as the header has, got 1",
    ),
    "too many fields": (
        "a,y\n1,2\n3,4,5\n",
        "y",
        None,
        ", line 3",
        "must have 2 fields, as the header has, got 3",
    ),
    "spaces in a line": (
        "a,y\n1,2\n  \n",
        "y",
        None,
        ", line 3",
        "must have 2 fields, as the header has, got 1",
    ),
    "no such target": ("a,b\n1,2\n", "y", None, ", line 1", "must have a column 'y', got 'a', 'b'"),
    "no such target of several": ("a,b\n1,2\n", "b,y", None, ", line 1", "must have a column 'y'"),
    "only the target": ("y\n1\n", "y", None, ", line 1", "must have a column of features"),
    "name twice": (
        "a,b, a\n1,2,3\n",
        "b",
        None,
        ", line 1, column 3 ('a')",
        "got that of column 1",
    ),
    "no name": (",a,y\n1,2,3\n", "y", None, ", line 1, column 1", "must have a name, got an empty"),
    "no header": ("5.1,3.5\n4.9,3.0\n", None, None, ", line 1", "got only numbers: '5.1', '3.5'"),
    "label among numbers": (
        *("a,y\n1,2.5\n1,3.5\n1,cat\n", "y", None),
        *(", line 4, column 2 ('y')", "must be a number, like the labels before it, got 'cat'"),
    ),
    "number among labels": (
        *("a,y\n1,cat\n1,cat\n1,7\n", "y", None),
        *(", line 4, column 2 ('y')", "must be no number, like the labels before it, got '7'"),
    ),
    "text to predict": (
        *("a,y\n1,2\n1,cat\n", "y", "regression"),
        *(", line 3, column 2 ('y')", "must be a number, got 'cat'"),
    ),
    "byte that is not UTF-8": (
        b"a,y\n1,2\n1,caf\xe9\n",
        "y",
        None,
        ", line 3",
        r"UTF-8 text, got byte b'\xe9'",
    ),
    "not UTF-8 in a header": (b"\xff\xfea,y\n", "y", None, ", line 1", r"got byte b'\xff'"),
    "quote without end": ('a,y\n1,2\n3,"4\n5,6\n', "y", None, ", line 3", "must be valid CSV"),
    "text behind a quote": ('a,y\n1,2\n3,"4"5\n', "y", None, ", line 3", "must be valid CSV"),
    "field without end": (
        *("a,y\n" + "x" * 200_000 + ",1", "y", None),
        *(", line 2, column 1 ('a')", "must be a number, got 'xxx"),
    ),
    "after a field of several lines": (
        *('a,y,b\n1,"x\ny\r\nz",2\n3,u,v\n', "y", None),
        *(", line 5, column 3 ('b')", "must be a number, got 'v'"),
    ),
    "in a row of several lines": (
        *('a,y,b\n1,u,2\n1,"x\ny",z\n', "y", None),
        *(", line 3, column 3 ('b')", "must be a number, got 'z'"),
    ),
    "lines of Windows": ("a,y\r\n1,2\r\nx,2\r\n", "y", None, ", line 3, column 1 ('a')", "got 'x'"),
    "lines of old Macs": ("a,y\r1,2\rx,2\r", "y", None, ", line 3, column 1 ('a')", "got 'x'"),
}
"""By name: the content, target and task, then where the complaint points and what it says."""


@pytest.mark.parametrize(
    ("content", "target", "task", "where", "what"), RUBBISH.values(), ids=RUBBISH
)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
def test_each_fault_is_told_with_its_place(written, content, target, task, where, what, packed):
    content = content if isinstance(content, bytes) else content.encode()
    path = written(gzip.compress(content) if packed else content)
    with pytest.raises(DataError) as caught:
        read_table(path, target, task)
    message = str(caught.value)
    assert message.startswith(f"file {path!r}{where}: ")
    assert what in message
    assert len(message) < 500


def test_numbers_that_float32_cannot_hold_are_told_where_it_is_wanted(written):
    for content, where in (("a,y\n1e39,1\n", "column 1 ('a')"), ("a,y\n1,.5\n2,1e39\n", "('y')")):
        path = written(content)
        assert read_table(path, "y").x.dtype == np.float64
        with pytest.raises(DataError) as caught:
            read_table(path, "y", dtype="float32")
        assert where in str(caught.value)
        assert "must be a number that float32 can hold, got 1e+39" in str(caught.value)


@pytest.mark.parametrize(
    ("features", "where", "what"),
    [
        (["a", "c"], ", line 1", "must have a column 'c', got 'a', 'b', 'y'"),
        (["a", "y"], ", line 1, column 3 ('y')", "must be a feature or a target, got both"),
        (["y", "a"], ", line 1, column 3 ('y')", "must be a feature or a target, got both"),
    ],
)
def test_features_must_be_there_and_no_targets(written, features, where, what):
    path = written("a,b,y\n1,2,3\n")
    with pytest.raises(DataError, match=re.escape(f"file {path!r}{where}: {what}")):
        read_table(path, "y", features=features)


def test_a_fault_far_down_is_found_at_its_line(written):
    lines = ["a,b"] + ["1,2"] * 10_000
    lines[9_877] = "1,2e999"
    path = written("\n".join(lines))
    with pytest.raises(DataError, match=r"line 9878, column 2 \('b'\): must be a finite number"):
        read_table(path)
    blocks = read_blocks(path, 1000)
    assert sum(len(next(blocks)) for _ in range(9)) == 9000
    with pytest.raises(DataError, match="line 9878"):
        next(blocks)


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("tail", ["", "{0}", "{0}{0}"])
def test_line_endings_byte_order_marks_and_empty_lines_at_the_end(written, ending, start, tail):
    path = written(start + ending.join(["a,y", "1,2", "3,4"]) + tail.format(ending))
    table = read_table(path, "y")
    assert table.x.tolist() == [[1], [3]]
    assert table.features == ("a",)
    assert table.classes == (2, 4)


def test_spaces_and_quotes_around_names_numbers_and_labels(written):
    path = written('"a, b", " c "\n" 1.5", x y \n2 , "x, z"\n')
    header = read_column_names(path)
    table = read_table(path, header[1])
    assert header == ["a, b", "c"]
    assert table.x.tolist() == [[1.5], [2]]
    assert table.classes == ("x y", "x, z")


def test_columns_that_are_not_asked_for_may_hold_anything(written):
    path = written("id,b,note,a\nx7,1,,2\n,3,nan,4\n")
    table = read_table(path, "a", "regression", features=["b"])
    assert table.x.tolist() == [[1], [3]]
    assert np.concatenate(list(read_blocks(path, 1, ["a", "b"]))).tolist() == [[2, 1], [4, 3]]


def test_numbered_columns_are_names(written):
    assert read_table(written("0,1,2\n5,6,7\n"), "2").x.tolist() == [[5, 6]]
    assert read_table(written("5,6,y\n5,6,7\n"), "y").features == ("5", "6")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("True", False),
        ("1", True),
        ("-.5e-3", True),
        (" 7 ", True),
        ("nan", True),
        ("", False),
        ("1,5", False),
        ("1_0", False),
        ("１", False),  # noqa: RUF001
        ("1\u00a0", False),
    ],
)
def test_what_is_a_number(text, expected):
    assert is_number(text) == expected


LABELS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=5
).filter(lambda text: text == text.strip() and text and not is_number(text))


@settings(deadline=None)
@given(data=st.data(), dtype=st.sampled_from(["float32", "float64"]))
def test_what_is_written_comes_back(tmp_path_factory, data, dtype):
    rows, width = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 4))
    bits = 32 if dtype == "float32" else 64
    numbers = st.floats(allow_nan=False, allow_infinity=False, width=bits)
    x = np.array([[data.draw(numbers) for _ in range(width)] for _ in range(rows)], dtype)
    names = data.draw(st.lists(LABELS, min_size=width + 1, max_size=width + 1, unique=True))
    labels = data.draw(st.lists(LABELS, min_size=rows, max_size=rows))
    at = data.draw(st.integers(0, width))
    text = io.StringIO()
    # With "\n" Python's writer leaves a "\r" in a field without quotes, if it may.
    ending, quoting = data.draw(
        st.sampled_from([("\r\n", csv.QUOTE_MINIMAL), ("\n", csv.QUOTE_ALL)])
    )
    writer = csv.writer(text, lineterminator=ending, quoting=quoting)
    writer.writerow(names)
    for row, label in zip(x.astype(str).tolist(), labels, strict=True):
        writer.writerow([*row[:at], label, *row[at:]])
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_bytes(text.getvalue().encode())

    table = read_table(path, [names[at]], dtype=dtype)
    assert table.x.dtype == dtype
    assert np.array_equal(table.x, x)
    assert [table.classes[number] for number in table.y] == labels
    assert list(table.classes) == sorted(set(labels))
    assert table.features == (*names[:at], *names[at + 1 :])
    assert table.target == (names[at],)
    blocks = read_blocks(path, data.draw(st.integers(1, 9)), table.features, dtype=dtype)
    assert np.array_equal(np.concatenate(list(blocks)), x)
