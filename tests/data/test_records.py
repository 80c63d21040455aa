"""CSV records: tables and texts read the same file by the same rules, and refuse it alike."""

from __future__ import annotations

import csv
import gzip
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.data import read_blocks, read_table
from fffcpu.data import records as records_module
from fffcpu.data.records import (
    JsonRows,
    Lines,
    check_names,
    find_named,
    guess_separator,
    open_csv,
    with_errors,
)
from fffcpu.errors import ArgumentError, DataError
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
    assert find_named("a.csv", ["x", "y", "z"], ["z", "x"]) == [2, 0]
    assert find_named("a.csv", ["", "y", "", "y", "z"], ["z"]) == [4]
    with pytest.raises(DataError, match=r"column 4 \('y'\): must have a name of its own, .* 2$"):
        find_named("a.csv", ["", "y", "", "y", "z"], ["y"])
    with pytest.raises(DataError, match="must have a column 'w', got 'x', 'y'"):
        find_named("a.csv", ["x", "y"], ["x", "w"])


@pytest.mark.parametrize(
    ("names", "wanted", "hint"),
    [
        (["1", "2", "3"], "y", "; if the file has no header, add a first line of names"),
        (["5.1", "3.5", "setosa"], "y", "; if the file has no header, add a first line of names"),
        (["country", "2019", "2020"], "y", ""),
        (["x", "y"], "Y", "; did you mean 'y'?"),
        (["Colour", "Price"], "colours", "; did you mean 'Colour'?"),
        (["x\ty"], "y", "; the fields seem to be separated by '\\t': pass --separator 'tab'"),
        (["x;1"], "X;1", "; the fields seem to be separated by ';': pass --separator ';'"),
    ],
)
def test_a_name_without_a_column_leads_to_what_was_meant(names, wanted, hint):
    with pytest.raises(DataError) as caught:
        find_named("a.csv", names, [wanted])
    start = f"file 'a.csv', line 1: must have a column {wanted!r}, got "
    end = f" (separator={names[0][1]!r})" if "separator" in hint else ""
    assert str(caught.value) == f"{start}{', '.join(map(repr, names))}{hint}{end}"


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


def lines_of(text, **options):
    """The lines of a text, as of a file that does not translate line ends."""
    return Lines(io.StringIO(text, newline="\n"), "file 'a.jsonl'", **options)


def test_json_rows_are_objects_and_blank_lines_are_left_out():
    rows = JsonRows(lines_of('{"a": 1}\n  \n[1]\n{\n{"b": null}'))
    (first, second, error, last) = with_errors(rows)
    assert [first, second, last] == [(1, {"a": 1}), (3, {}), (5, {"b": None})]
    assert str(error).startswith("file 'a.jsonl', line 4: must be JSON (")
    with pytest.raises(DataError, match=r"file 'a.jsonl', line 1: must be JSON \("):
        list(JsonRows(lines_of("{")))


# --- Lines ----------------------------------------------------------------------------------------

SPLITTERS = ["\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]
"""What `str.splitlines` takes for the end of a line, and ``wc -l`` does not."""


@pytest.mark.parametrize("inside", SPLITTERS, ids=ascii)
def test_only_line_feeds_end_lines(inside, written):
    text = f"one{inside}still one"
    assert list(lines_of(f"{text}\ntwo\r\nthree")) == [f"{text}\n", "two\r\n", "three"]
    path = written(f'text,n\r\n"{text}",1\r\nlast,2,3')
    with pytest.raises(DataError, match="line 3: must have 2 fields"):
        list(read_texts(path))
    first, error = with_errors(records_of(path))
    assert first == (2, [text, "1"])
    assert "line 3" in str(error)


def records_of(path, **options):
    """The records of a file, one after the other."""
    with open_csv(path, **options) as file:
        while True:
            try:
                yield from file.records
                return
            except DataError as error:
                yield error


@given(parts=st.lists(st.sampled_from(["a", "\r", "\n", "\r\n", "\x85", '"']), max_size=12))
def test_lines_are_counted_as_by_wc(parts):
    text = "".join(parts)
    lines = lines_of(text)
    assert "".join(lines) == text
    assert lines.number == text.count("\n") + (not text.endswith("\n") and text != "")


@pytest.mark.parametrize("classic", [False, True], ids=["as wc counts", "an old Mac's"])
def test_a_carriage_return_in_a_csv_file(classic, written):
    end = "\r" if classic else "\n"
    path = written(f'a,b{end}1,"x\ry"{end}2,"z"{end}3{end}')
    *found, error = records_of(path)
    assert found == [(2, ["1", "x\ry"]), (4 if classic else 3, ["2", "z"])]
    assert f"line {5 if classic else 4}: must have 2 fields" in str(error)


def test_a_carriage_return_without_quotes_is_an_error_and_no_end(written):
    path = written("text\none\rstill one\ntwo\n")
    error, last = records_of(path)
    assert "line 2: must have a carriage return (\\r) only at the end of a line or in" in str(error)
    assert last == (3, ["two"])
    many = written("text\n" + "\r" * 5000 + "\n2\n")
    assert next(reversed(list(records_of(many)))) == (3, ["2"])


def test_a_bad_record_does_not_hide_the_others(written):
    path = written(b'a,b\n1,2\n\n\n3\n4,"5"6\n7,8\n\xe9,9\n10,11\n\n')
    found = list(records_of(path))
    assert [item for item in found if isinstance(item, tuple)] == [
        (2, ["1", "2"]),
        (7, ["7", "8"]),
        (9, ["10", "11"]),
    ]
    errors = [str(item) for item in found if isinstance(item, DataError)]
    assert [re.search(r"line (\d+)", error)[1] for error in errors] == ["3", "4", "5", "6", "8"]


# --- Long fields ----------------------------------------------------------------------------------


@pytest.mark.parametrize("quote", ["", '"'])
def test_fields_may_be_long(quote, written):
    long = "long, " * 40_000 if quote else "long " * 40_000
    path = written(f"x,note,label\n1,{quote}{long}{quote},a\n2,,b\n")
    limit = csv.field_size_limit()
    assert len(long) > limit
    assert records(path)[1] == [(2, ["1", long, "a"]), (3, ["2", "", "b"])]
    assert list(read_texts(path, "note")) == [long, ""]
    (block,) = read_blocks(path, features=["x"])
    assert block.tolist() == [[1], [2]]
    # The limit of other readers of the process is theirs.
    assert csv.field_size_limit() == limit
    with pytest.raises(csv.Error, match="field larger than field limit"):
        list(csv.reader([long.replace(",", "")]))


@pytest.mark.parametrize(
    "record",
    ["1," + "x" * 99, '"' + "x" * 99 + '",1', '"' + "x\n" * 50 + '",1', ",".join("x" * 60)],
    ids=["field", "quoted", "many lines", "many fields"],
)
def test_a_record_has_a_limit_that_is_stated(record, written, monkeypatch):
    monkeypatch.setattr(records_module, "MOST_CHARACTERS", 99)
    path = written(f"a,b\n1,2\n{record}\n")
    found = list(records_of(path))
    assert found[0] == (2, ["1", "2"])
    message = "line 3: must have at most 99 characters, got more: is a line end or a closing quote"
    assert message in str(found[1])
    (first, error, last) = with_errors(lines_of("x\n" + "y" * 500 + "\nz"))
    assert (first, last) == ("x\n", "z")
    assert "line 2: must have at most 99 characters" in str(error)


def test_an_open_quote_does_not_fill_the_memory(written, monkeypatch):
    monkeypatch.setattr(records_module, "MOST_CHARACTERS", 99)
    path = written('a,b\n1,"2\n' + "3,4\n" * 1000)
    found = list(records_of(path))
    assert "line 2: must have at most 99 characters" in str(found[0])


# --- Separators -----------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_other_separators(separator, written):
    path = written(f'text{separator} label\n"a{separator}b, c"{separator} x\n')
    assert records(path, separator=separator) == (
        ["text", "label"],
        [(2, [f"a{separator}b, c", "x"])],
    )
    assert list(read_texts(path, separator=separator)) == [f"a{separator}b, c"]
    assert read_labelled(path, separator=separator).classes == ("x",)
    hint = re.escape(f"the fields seem to be separated by {separator!r}: pass --separator")
    for reader in (read_texts, lambda path: iter(read_labelled(path).texts)):
        with pytest.raises(DataError, match=f"must have a column 'text', got .*; {hint}"):
            next(reader(path))


def test_a_row_with_a_decimal_comma_leads_to_the_separator(written):
    path = written("a;b\n1,5;2\n")
    with pytest.raises(DataError, match=r"must have 1 field, .* got 2; .* separated by ';'"):
        records(path)


@pytest.mark.parametrize("separator", ["", ",,", '"', "\n", "\r", None, 1])
def test_a_separator_is_one_character(separator, written):
    with pytest.raises(ArgumentError, match="argument 'separator' must be one character"):
        records(written("a,b\n"), separator=separator)


def test_separators_are_guessed():
    assert guess_separator(["a;b;c"]) == ";"
    assert guess_separator(["a\tb"]) == "\t"
    assert guess_separator(["a,b|c"]) in (",", "|")
    assert guess_separator(["a;b", "c;d"]) == ";"
    assert guess_separator(["a", "b;c"]) is None
    assert guess_separator(["a"]) is None
    assert guess_separator([]) is None
