"""CSV records: tables and texts read the same file by the same rules, and refuse it alike."""

from __future__ import annotations

import csv
import gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.data import read_blocks, read_table
from fffcpu.data.records import check_names, find_columns, json_rows, open_csv
from fffcpu.errors import DataError
from fffcpu.text import read_labelled, read_texts


@pytest.fixture
def written(tmp_path):
    """Write bytes or text to a file; returns its path as text."""

    def write(content, name="a.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def records(path, **options):
    """The names of a file's columns, and all of its records."""
    with open_csv(path, **options) as file:
        return file.names, list(file.records)


READERS = {
    "table": lambda path: read_table(path, "label"),
    "texts": lambda path: list(read_texts(path, "text")),
    "labelled": lambda path: read_labelled(path),
}

BROKEN = {
    "a comma in a text without quotes": (
        "text,label\na red, round fruit,plant\n",
        "line 2: must have 2 fields, as the header has, got 3",
    ),
    "a field too few": ("text,label\n1,a\n2\n", "line 3: must have 2 fields, as the header has"),
    "an empty line amid": ("text,label\n1,a\n\n2,b\n", "line 3: must not be empty"),
    "a quote without end": ('text,label\n1,a\n2,"b\n', r"line 3: must be valid CSV \(unexpected"),
    "text behind a quote": ('text,label\n1,"a"b\n', "line 2: must be valid CSV"),
    "no such column": ("title,body\n1,a\n", "line 1: must have a column '(text|label)', got"),
    "no column but a header": ("title\n", "line 1: must have a column"),
    "empty file": ("", "must have the names of columns, got an empty file"),
    "a name twice": (
        "text,text,label,label\n1,1,a,a\n",
        r"line 1, column (2 \('text'\)|4 \('label'\)): must have a name of its own, got that of",
    ),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=BROKEN)
def test_every_reader_refuses_the_same_files(reader, content, message, written):
    with pytest.raises(DataError, match=message):
        reader(written(content))


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
def test_every_reader_takes_the_same_files(ending, packed, written):
    lines = ["\ufefftext , label", '1, "a, b"', '" 2",c ', '"3", c', "", ""]
    content = ending.join(lines).encode()
    path = written(gzip.compress(content) if packed else content)
    table, labelled = read_table(path, "label"), read_labelled(path)
    assert table.classes == labelled.classes == ("a, b", "c")
    assert table.y.tolist() == labelled.labels.tolist() == [0, 1, 1]
    assert table.x.tolist() == [[1], [2], [3]]
    assert labelled.texts == list(read_texts(path)) == ["1", " 2", "3"]


def test_lines_are_those_on_which_records_start(written):
    path = written('a,b\n1,"x\ny\r\nz"\n3,4\n\n\n')
    assert records(path) == (["a", "b"], [(2, ["1", "x\ny\r\nz"]), (5, ["3", "4"])])


def test_bytes_that_are_not_utf_8_are_an_error_or_replaced(written):
    path = written(b"text,label\nfine,a\n\xe9,b\n")
    for reader in (records, read_labelled):
        with pytest.raises(DataError, match=r"line 3: must be UTF-8 text, got byte b'\\xe9'"):
            reader(path)
    assert records(path, replace=True)[1] == [(2, ["fine", "a"]), (3, ["\ufffd", "b"])]
    with pytest.warns(UserWarning, match="not entirely UTF-8"):
        assert list(read_texts(path)) == ["fine", "\ufffd"]


FIELDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)


@given(rows=st.lists(st.tuples(FIELDS, FIELDS, FIELDS), max_size=6))
def test_what_is_written_comes_back(rows, tmp_path_factory):
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("a", "b", "c"), *rows])
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_bytes(text.getvalue().encode())
    assert [tuple(fields) for _, fields in records(str(path))[1]] == rows


def test_columns_are_found_by_name_in_the_order_asked_for():
    assert find_columns("a.csv", ["x", "y", "z"], ["z", "x"]) == [2, 0]
    assert find_columns("a.csv", ["", "y", "", "y", "z"], ["z"]) == [4]
    with pytest.raises(DataError, match=r"column 4 \('y'\): must have a name of its own, .* 2$"):
        find_columns("a.csv", ["", "y", "", "y", "z"], ["y"])
    with pytest.raises(DataError, match="must have a column 'w', got 'x', 'y'"):
        find_columns("a.csv", ["x", "y"], ["x", "w"])


def test_names_are_checked_where_they_matter():
    check_names("a.csv", ["", "y", "", "y"], [1])
    with pytest.raises(DataError, match="line 1, column 3: must have a name, got an empty field"):
        check_names("a.csv", ["x", "y", ""], [0, 2])
    with pytest.raises(DataError, match=r"column 4 \('y'\): must have a name of its own"):
        check_names("a.csv", ["x", "y", "", "y"], [1, 3])


def test_a_model_does_not_mind_the_names_of_other_columns(written):
    path = written(",b,a,c,c\n0,1,2,x,y\n")  # as pandas' to_csv writes an index
    (block,) = read_blocks(path, features=["a", "b"])
    assert block.tolist() == [[2, 1]]
    with pytest.raises(DataError, match="line 1, column 1: must have a name"):
        read_table(path, "a")


def test_json_rows_are_objects_and_blank_lines_are_left_out():
    lines = ['{"a": 1}\n', "  \n", "[1]\n", '{"b": null}']
    assert list(json_rows(lines, "a.jsonl")) == [(1, {"a": 1}), (3, {}), (4, {"b": None})]
    with pytest.raises(DataError, match=r"file 'a.jsonl', line 2: must be JSON \("):
        list(json_rows(["{}", "{"], "a.jsonl"))
