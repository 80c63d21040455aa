"""Labels: what is a class, what is a number to predict, and what is neither."""

from __future__ import annotations

import numpy as np
import pytest

from fffcpu.data import read_table
from fffcpu.errors import ArgumentError, ArgumentTypeError, DataError


@pytest.fixture
def read(tmp_path):
    """Read a table with these labels, of a CSV column if they are text, else of a .npy file."""

    def table(labels, *options, **named):
        if isinstance(labels, str):
            path, target = tmp_path / "a.csv", "y"
            path.write_text("x,y\n" + "".join(f"0,{label}\n" for label in labels.split()))
        else:
            path, target = tmp_path / "x.npy", tmp_path / "y.npy"
            np.save(path, np.zeros((len(labels), 2)))
            np.save(target, labels)
        return read_table(path, target, *options, **named)

    return table


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [
        ("3 1 3 10", (1, 3, 10), [1, 0, 1, 2]),
        ("-1 3 3", (-1, 3), [0, 1, 1]),
        ("02116 10001 2116", ("02116", "2116", "10001"), [0, 2, 1]),
        ("03 +3 -1", ("-1", "+3", "03"), [2, 1, 0]),
        ("0.0 1.0 1.0", ("0.0", "1.0"), [0, 1, 1]),
        ("True False True", ("False", "True"), [1, 0, 1]),
        ("dog cat dog", ("cat", "dog"), [1, 0, 1]),
        (np.array([3, 1, 3, 10]), (1, 3, 10), [1, 0, 1, 2]),
        (np.array([[3], [1]], np.uint8), (1, 3), [1, 0]),
        (np.array([True, False]), (False, True), [1, 0]),
        (np.array([1.0, 0.0]), (0.0, 1.0), [1, 0]),
        (np.array(["dog", "cat"]), ("cat", "dog"), [1, 0]),
        (np.array([2**64 - 1, 5], np.uint64), (5, 2**64 - 1), [1, 0]),
    ],
)
@pytest.mark.parametrize("task", [None, "classification"])
def test_integers_and_text_are_classes(read, labels, classes, numbers, task):
    table = read(labels, task)
    assert table.classes == classes
    assert [type(label) for label in table.classes] == [type(label) for label in classes]
    assert table.y.dtype == np.int64
    assert table.y.tolist() == numbers


@pytest.mark.parametrize(
    ("labels", "task", "expected"),
    [
        ("1.5 2 -3e1", None, [[1.5], [2], [-30]]),
        ("1 2 2", "regression", [[1], [2], [2]]),
        (" ".join(map(str, range(21))), None, [[k] for k in range(21)]),
        (
            "-1 " * 500 + " ".join(map(str, range(20))),
            None,
            [[-1]] * 500 + [[k] for k in range(20)],
        ),
        (np.arange(21), None, [[k] for k in range(21)]),
        (np.array([1.5, 2]), None, [[1.5], [2]]),
        (np.array([[1.5, 2], [3, 4]]), None, [[1.5, 2], [3, 4]]),
        (np.array([[1, 2], [3, 4]]), "regression", [[1, 2], [3, 4]]),
    ],
)
def test_other_numbers_are_to_be_predicted(read, labels, task, expected):
    table = read(labels, task)
    assert table.classes is None
    assert table.y.tolist() == expected
    stored = isinstance(labels, np.ndarray) and labels.dtype.kind == "f"
    assert table.y.dtype == (labels.dtype if stored else np.float64)
    assert stored or read(labels, task, dtype="float32").y.dtype == np.float32


def test_classification_makes_classes_of_any_text_and_of_whole_floats(read):
    assert read("1.5 N/A 2", "classification").classes == ("1.5", "2", "N/A")
    assert read(np.array([2.0, 1.0, 2.0]), "classification").classes == (1.0, 2.0)
    with pytest.raises(DataError, match=r"row 1 \(counted from 0\): must be an integer.*got 1\.5"):
        read(np.array([2.0, 1.5]), "classification")


def test_several_columns_are_predicted_together(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("u,x,v\n1,2,3\n4,5,6\n")
    for target in ("v,u", "v, u", ["v", "u"]):
        table = read_table(path, target)
        assert table.y.tolist() == [[3, 1], [6, 4]]
        assert table.x.tolist() == [[2], [5]]
        assert table.target == ("v", "u")
    with pytest.raises(ArgumentError, match="'target' must be one column for a classification"):
        read_table(path, "v,u", "classification")


def test_a_column_may_have_a_comma_in_its_name(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('"u,v",x\n1,2\n')
    assert read_table(path, "u,v").target == ("u,v",)


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [
        ("dog cat", ("dog", "owl", "cat"), [0, 2]),
        ("2 1", (1, 2, 3), [1, 0]),
        ("2 1", ("1", "2"), [1, 0]),
        ("2 2", [np.int64(2)], [0, 0]),
        (np.array([2, 1]), (1, 2, 3), [1, 0]),
        (np.array([2.0, 1.0]), np.array([1, 2, 3]), [1, 0]),
        (np.array(["dog"]), ("cat", "dog"), [1]),
    ],
)
def test_known_classes_keep_their_numbers(read, labels, classes, numbers):
    table = read(labels, classes=classes)
    assert table.y.tolist() == numbers
    assert table.classes == tuple(classes)


@pytest.mark.parametrize(
    ("labels", "classes", "where", "what"),
    [
        ("cat owl", ("cat", "dog"), "a.csv', line 3, column 2 ('y')", "'cat', 'dog', got 'owl'"),
        ("1 2", (1, 3), "a.csv', line 3, column 2 ('y')", "1, 3, got '2'"),
        ("1 01", (1, 3), "a.csv', line 3, column 2 ('y')", "1, 3, got '01'"),
        ("1 1.5", (1, 3), "a.csv', line 3, column 2 ('y')", "1, 3, got '1.5'"),
        (np.array([1, 2]), (1, 3), "y.npy', row 1 (counted from 0)", "1, 3, got 2"),
        (np.array([1]), ("1",), "y.npy', row 0 (counted from 0)", "'1', got 1"),
    ],
)
def test_other_labels_than_the_known_are_refused(read, labels, classes, where, what):
    with pytest.raises(DataError) as caught:
        read(labels, classes=classes)
    assert f"{where}: must be one of the classes {what}" in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "task", "what"),
    [
        (np.array([1, np.nan]), None, ", row 1 (counted from 0): must be a finite number, got nan"),
        (np.array([[1, 2], [3, np.inf]]), None, ", row 1 (counted from 0): must be a finite"),
        (np.array([1, np.nan]), "classification", ", row 1 (counted from 0): must be a finite"),
        (np.array(["a", "b"]), "regression", ": must hold numbers for a regression, got text"),
        (np.array([b"a", b"b"]), None, ": must hold real numbers or text, got dtype |S1"),
        (np.array([1j, 2]), None, ": must hold real numbers or text, got dtype complex128"),
        (np.eye(3, dtype=int), None, ": must have one class per row, shape (3,), got shape (3, 3)"),
        (np.zeros((2, 1, 1)), None, ": must have 2 labels, one per row, got shape (2, 1, 1)"),
        (np.zeros((2, 0)), None, ": must have 2 labels, one per row, got shape (2, 0)"),
    ],
)
def test_arrays_that_are_no_labels(read, labels, task, what):
    with pytest.raises(DataError) as caught:
        read(labels, task)
    assert f"y.npy'{what}" in str(caught.value)


@pytest.mark.parametrize(
    ("named", "error", "what"),
    [
        ({"task": "guess"}, ArgumentError, "'task' must be classification or regression"),
        ({"classes": ()}, ArgumentError, "'classes' must be different labels"),
        ({"classes": ("a", "a")}, ArgumentError, "'classes' must be different labels"),
        ({"classes": ("a", 1)}, ArgumentError, "'classes' must be different labels"),
        ({"classes": (1.5, 2)}, ArgumentError, "'classes' must be different labels"),
        ({"classes": "ab"}, ArgumentTypeError, "'classes' must be a sequence of labels"),
        ({"classes": 3}, ArgumentTypeError, "'classes' must be a sequence of labels"),
        ({"classes": (1,), "task": "regression"}, ArgumentError, "'classes' must be None for"),
        ({"dtype": "int8"}, ArgumentError, "'dtype' must be float32 or float64, got 'int8'"),
        ({"dtype": None}, ArgumentError, "'dtype' must be float32 or float64, got None"),
    ],
)
def test_impossible_arguments(read, named, error, what):
    with pytest.raises(error, match=what):
        read("1 2", **named)
