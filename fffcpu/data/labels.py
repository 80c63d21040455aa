"""Labels of rows in a file, converted to class numbers or numbers to predict."""

from __future__ import annotations

import operator
import re
from array import array
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from fffcpu.data.csv_file import finite_kind, is_number
from fffcpu.data.files import list_names
from fffcpu.errors import ArgumentError, ArgumentTypeError, DataError, describe

__all__ = [
    "Classes",
    "Labels",
    "Targets",
    "TextLabels",
    "array_targets",
    "check_classes",
    "text_targets",
]

Classes = tuple[str, ...] | tuple[int, ...]

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
"""Pattern of texts that are integers; longer ones would not fit into 64 bits."""

Place = Callable[[int], str]
"""Maps the place of a label (its line or row) to the start of an error message about it."""


class Targets(NamedTuple):
    """The targets of rows."""

    y: NDArray[Any]
    """(rows,) int64 class numbers, or (rows, outputs) floats."""
    classes: Classes | None
    """Label of each class number; None for floats."""


class Labels(NamedTuple):
    """The distinct labels of a column."""

    values: Sequence[Any]
    """The distinct labels, all text or all integers."""
    first: Sequence[int]
    """The place where each of them first occurs."""
    numbers: NDArray[np.int64]
    """(rows,) index of each row's label."""


class TextLabels:
    """Collects the labels of a CSV file's column, block by block."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._first: list[int] = []
        self._rows = array("q")

    def add(self, texts: Sequence[str], lines: Sequence[int]) -> None:
        """Add the labels of more rows, and their lines."""
        for text, line in zip(texts, lines, strict=True):
            number = self._numbers.setdefault(text, len(self._first))
            if number == len(self._first):
                self._first.append(line)
            self._rows.append(number)

    def labels(self) -> Labels:
        """Return all added labels."""
        return Labels(list(self._numbers), self._first, np.array(self._rows, np.int64))


def check_classes(classes: Any) -> Classes | None:
    """Return known classes as a tuple, or raise.

    Raises
    ------
    ArgumentError
        If there are no classes, one is given twice, or they are neither all text nor all integers.
    ArgumentTypeError
        If they are not a sequence.
    """
    if classes is None:
        return None
    if isinstance(classes, str) or not isinstance(classes, Sequence | np.ndarray):
        raise ArgumentTypeError(
            f"argument 'classes' must be a sequence of labels, got {describe(classes)}"
        )
    try:
        texts = all(isinstance(label, str) for label in classes)
        known: Any = tuple(map(str if texts else operator.index, classes))
    except TypeError:
        known = ()
    if not known or len(set(known)) < len(known):
        raise ArgumentError(
            "argument 'classes' must be different labels, all text or all integers, "
            f"got {describe(classes)}"
        )
    return cast(Classes, known)


def text_targets(
    labels: Labels, place: Place, task: str | None, classes: Classes | None, dtype: str
) -> Targets:
    """Convert a column of text to targets: integers and other texts to classes, or numbers.

    Parameters
    ----------
    labels : Labels
        Labels that are text.
    place : callable
        Returns the start of an error about a line.
    task : str or None
        ``"classification"``, or None to decide by the labels.
    classes : tuple or None
        Known classes; if given, the task is classification.
    dtype : str
        dtype of numbers to predict.

    Raises
    ------
    DataError
        If the labels do not fit each other, or the classes.
    """
    integers = all(_INTEGER.fullmatch(text) for text in labels.values)
    if task is None and classes is None and _are_numbers(labels, place) and not integers:
        return Targets(_text_to_numbers(labels, place, dtype), None)
    if classes is not None:
        integers = isinstance(classes[0], int)
    if integers:
        values = [int(text) if _INTEGER.fullmatch(text) else text for text in labels.values]
        labels = labels._replace(values=values)
    return _number_classes(labels, place, classes)


def array_targets(
    labels: NDArray[Any],
    rows: int,
    where: str,
    task: str | None,
    classes: Classes | None,
    dtype: str,
) -> Targets:
    """Convert an array to targets: integers and text to classes, floats to numbers to predict.

    Parameters
    ----------
    labels : array of shape (rows,), (rows, 1) or, of numbers to predict, (rows, outputs)
        A label per row.
    rows : int
        Required number of rows.
    where : str
        The start of an error message about the array.
    task : str or None
        ``"classification"``, ``"regression"``, or None to decide by the dtype.
    classes : tuple or None
        Known classes; if given, the task is classification.
    dtype : str
        dtype of numbers to predict that are not stored as floats.

    Raises
    ------
    DataError
        If shape or dtype do not fit, or a label is NaN, infinite or not among the classes.
    """
    kind = labels.dtype.kind
    if kind not in "fiubU":
        raise DataError(f"{where}: must hold real numbers or text, got dtype {labels.dtype}")
    if labels.ndim not in (1, 2) or len(labels) != rows or labels.size < rows:
        raise DataError(f"{where}: must have {rows} labels, one per row, got shape {labels.shape}")
    columns = labels.reshape(rows, -1)

    def place(row: int) -> str:
        return f"{where}, row {row} (counted from 0)"

    if kind == "f" and not np.isfinite(columns).all():
        row, column = np.argwhere(~np.isfinite(columns))[0]
        raise DataError(f"{place(row)}: must be a finite number, got {columns[row, column]}")
    if classes is None and (task == "regression" or (task is None and kind == "f")):
        if kind == "U":
            raise DataError(f"{where}: must hold numbers for a regression, got text")
        return Targets(columns if kind == "f" else columns.astype(dtype), None)
    if columns.shape[1] != 1:
        raise DataError(
            f"{where}: must have one class per row, shape ({rows},), got shape {labels.shape}"
        )
    return _number_classes(_distinct(columns[:, 0], place), place, classes)


def _are_numbers(labels: Labels, place: Place) -> bool:
    """Whether all labels are numbers; raise if only some are, because one may be a mistake."""
    numeric = [is_number(text) for text in labels.values]
    if len(set(numeric)) > 1:
        other = numeric.index(not numeric[0])
        wanted = "a number" if numeric[0] else "no number"
        raise DataError(
            f"{place(labels.first[other])}: must be {wanted}, like the labels before it, got "
            f"{describe(labels.values[other])} (task='classification' makes each label a class)"
        )
    return numeric[0]


def _text_to_numbers(labels: Labels, place: Place, dtype: str) -> NDArray[Any]:
    """Return labels that are all numbers as an array of shape (rows, 1)."""
    exact = [float(text) for text in labels.values]
    with np.errstate(over="ignore"):
        values = np.array(exact).astype(dtype)
    for number in np.flatnonzero(~np.isfinite(values))[:1]:
        raise DataError(
            f"{place(labels.first[number])}: must be {finite_kind(exact[number], dtype)}, "
            f"got {exact[number]}"
        )
    return values[labels.numbers, np.newaxis]


def _distinct(labels: NDArray[Any], place: Place) -> Labels:
    """Return the labels of an array of integers, whole floats or text."""
    values, first, numbers = np.unique(labels, return_index=True, return_inverse=True)
    if labels.dtype.kind == "f":
        for number in np.flatnonzero(values != np.floor(values))[:1]:
            raise DataError(
                f"{place(int(first[number]))}: must be an integer, as classes are, "
                f"got {values[number]}"
            )
    texts = labels.dtype.kind == "U"
    return Labels(
        values.tolist() if texts else [int(value) for value in values], first.tolist(), numbers
    )


def _number_classes(labels: Labels, place: Place, classes: Classes | None) -> Targets:
    """Return the class number of each row: by the known classes, or the sorted labels."""
    known = classes if classes is not None else tuple(sorted(set(labels.values)))
    order: dict[str | int, int] = {label: number for number, label in enumerate(known)}
    for value, first in zip(labels.values, labels.first, strict=True):
        if value not in order:
            raise DataError(
                f"{place(first)}: must be one of the classes {list_names(known)}, "
                f"got {describe(value)}"
            )
    numbers = np.array([order[value] for value in labels.values], np.int64)
    return Targets(numbers[labels.numbers], known)
