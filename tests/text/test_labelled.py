"""Labelled texts from CSV and JSON lines."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from fffcpu.errors import DataError
from fffcpu.text import read_labelled


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_csv_and_json_lines_give_the_same(tmp_path):
    table = write(tmp_path / "a.csv", '\ufefftext,label\n"a, b",yes\n"two\nlines",no\n')
    lines = tmp_path / "a.jsonl.gz"
    rows = [{"text": "a, b", "label": "yes"}, {"text": "two\nlines", "label": "no"}]
    with gzip.open(lines, "wt") as file:
        file.write("\n\n".join(json.dumps(row) for row in rows))
    for path in (table, str(lines)):
        data = read_labelled(path)
        assert data.texts == ["a, b", "two\nlines"]
        assert data.classes == ("no", "yes")
        assert data.labels.tolist() == [1, 0]
        assert data.labels.dtype == np.int64


def test_names_of_columns_numbers_and_known_classes(tmp_path):
    path = write(tmp_path / "a.csv", "q,rating\nx,1.5\ny,-2\n")
    data = read_labelled(path, "q", "rating", regression=True)
    assert data.classes is None
    assert data.labels.tolist() == [1.5, -2]
    known = read_labelled(path, "q", "rating", classes=("0", "-2", "1.5"))
    assert known.labels.tolist() == [2, 1]
    with pytest.raises(DataError, match="label '-2' is not one of the classes"):
        read_labelled(path, "q", "rating", classes=("1.5",))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "text\nx\n", "line 1: must have a column 'label', got 'text'"),
        ("a.csv", "text,label\n", "must hold texts, got none"),
        ("a.csv", 'text,label\nx,y\n"x,y\nx,y\n', r"line 3: must be valid CSV \(unexpected end"),
        ("a.csv", 'text,"label\nx,y\n', r"line 1: must be valid CSV \(unexpected end"),
        ("a.csv", "text,label\nx,y\nx,\n", "line 3: must have text or an integer as label, got ''"),
        ("a.csv", "text,label\nx, \n", "line 2: must have text or an integer as label, got ''"),
        ("a.jsonl", '{"text": "x", "label": "y"}\n' + "[" * 100_000, "line 2: must be JSON"),
        ("a.jsonl", '{"text": "x", "label": NaN}', "line 1: must have text or an integer .* nan"),
        ("a.jsonl", '{"text": "x", "label": 1.0}', "line 1: must have text or an integer .* 1.0"),
        ("a.jsonl", '{"text": "x", "label": ["y"]}', "line 1: must have text or an integer as"),
        ("a.jsonl", '{"text": "x", "label": {}}', "line 1: must have text or an integer as label"),
        ("a.jsonl", "{", "line 1: must be JSON"),
        ("a.jsonl", "[1]", "line 1: must have a 'text'"),
        ("a.jsonl", '{"text": 3, "label": "x"}', "line 1: must have a 'text'"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(name, text, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_labelled(write(tmp_path / name, text))


def test_labels_of_json_are_texts_integers_and_truth_values(tmp_path):
    rows = [json.dumps({"text": "x", "label": label}) for label in ("1", 1, -2, True, "no")]
    data = read_labelled(write(tmp_path / "a.jsonl", "\n".join(rows)))
    assert data.classes == ("-2", "1", "True", "no")
    assert data.labels.tolist() == [1, 1, 0, 2, 3]


def test_spaces_around_labels_do_not_count(tmp_path):
    table = write(tmp_path / "a.csv", "text,label\nx,pos\ny,pos \nz, neg\n")
    lines = write(
        tmp_path / "a.jsonl",
        "\n".join(
            json.dumps({"text": text, "label": label})
            for text, label in (("x", "pos"), ("y", "pos "), ("z", " neg"))
        ),
    )
    for path in (table, lines):
        data = read_labelled(path)
        assert data.classes == ("neg", "pos")
        assert data.labels.tolist() == [1, 1, 0]


def test_files_that_are_no_text(tmp_path):
    with pytest.raises(DataError, match=r"file '.*a\.txt': must end with \.csv or \.jsonl"):
        read_labelled(write(tmp_path / "a.txt", "x"))
    path = tmp_path / "a.csv"
    path.write_bytes(b"text,label\n\xff,x\n")
    with pytest.raises(DataError, match="must be UTF-8"):
        read_labelled(str(path))
    path.write_text("text,label\nx,inf\n")
    with pytest.raises(DataError, match="line 2: must be a number, got 'inf'"):
        read_labelled(str(path), regression=True)
    huge = write(tmp_path / "a.jsonl", '{"text": "x", "label": 1' + "0" * 400 + "}")
    with pytest.raises(DataError, match="line 1: must be a number, got 10000"):
        read_labelled(huge, regression=True)
