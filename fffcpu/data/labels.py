"""Labels of rows in a file, converted to class numbers or numbers to predict."""

from __future__ import annotations

import dataclasses
import re
from array import array
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from fffcpu.columns.fields import Classes, is_missing, is_number
from fffcpu.data.records import clean_label
from fffcpu.errors import ArgumentError, ArgumentTypeError, DataError, describe, list_names

__all__ = [
    "Labels",
    "TargetOptions",
    "Targets",
    "TextLabels",
    "are_continuous",
    "array_targets",
    "check_classes",
    "missing_target",
    "no_target",
    "text_targets",
]


Place = Callable[[int], str]
"""Maps the place of a label (its line or row) to the start of an error message about it."""

FEW_VALUES = 20
"""Numbers to predict have more different values, in more than `SHARE` of the rows."""

SHARE = 0.05

_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
"""Pattern of texts that an integer of 64 bits is written as."""


class Targets(NamedTuple):
    """The targets of rows."""

    y: NDArray[Any]
    """(rows,) int64 class numbers, or (rows, outputs) floats."""
    classes: Classes | None
    """Label of each class number; None for floats."""


@dataclasses.dataclass(frozen=True)
class TargetOptions:
    """The caller's requirements on the targets."""

    task: str | None
    classes: Classes | None
    dtype: str

    def __post_init__(self) -> None:
        if self.task not in (None, "classification", "regression"):
            raise ArgumentError(
                f"argument 'task' must be classification or regression, got {describe(self.task)}"
            )
        if self.task == "regression" and self.classes is not None:
            raise ArgumentError(
                f"argument 'classes' must be None for a regression, got {describe(self.classes)}"
            )
        if self.dtype not in ("float32", "float64"):
            raise ArgumentError(
                f"argument 'dtype' must be float32 or float64, got {describe(self.dtype)}"
            )

    @property
    def is_classification(self) -> bool:
        """Whether targets have to be classes."""
        return self.task == "classification" or self.classes is not None

    def check_unused(self) -> None:
        """Raise if there are requirements on targets but no targets."""
        if self.task is not None or self.classes is not None:
            raise ArgumentError(
                "argument 'target' must be given where 'task' or 'classes' is, got None"
            )


class Labels(NamedTuple):
    """The distinct labels of a column."""

    values: Sequence[Any]
    """The distinct labels: texts, integers, floats or truth values."""
    first: Sequence[int]
    """The place where each of them first occurs."""
    numbers: NDArray[np.int64]
    """(rows,) index of each row's label; -1 for a missing one."""


class TextLabels:
    """Collects the labels of a CSV file's column, block by block, without spaces around them."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._first: list[int] = []
        self._rows = array("q")

    def add(self, texts: Sequence[str], lines: Sequence[int]) -> None:
        """Add the labels of more rows, and their lines."""
        for text, line in zip(map(clean_label, texts), lines, strict=True):
            number = self._numbers.setdefault(text, len(self._first))
            if number == len(self._first):
                self._first.append(line)
            self._rows.append(number)

    def labels(self, place: Place, wanted: TargetOptions, drop_missing: bool) -> Labels:
        """Return all added labels.

        An empty field is a missing label. Where all other labels are numbers, NA, NaN and the like
        are missing as well, unless the caller wants each label as a class.

        Parameters
        ----------
        place : callable
            Returns the start of an error about a line.
        wanted : TargetOptions
            The caller's requirements.
        drop_missing : bool
            Whether labels may be missing. Otherwise the first missing one is an error.

        Raises
        ------
        DataError
            If a label is missing.
        """
        numbers = np.array(self._rows, np.int64)
        others = [text for text in self._numbers if not is_missing(text)]
        as_written = wanted.task == "classification" and wanted.classes is None
        numeric = bool(others) and all(map(is_number, others)) and not as_written
        known = set(map(str, wanted.classes or ()))
        missing = [
            text
            for text in self._numbers
            if (is_missing(text) if numeric else not text) and text not in known
        ]
        if missing and not drop_missing:
            raise missing_target(place(self._first[self._numbers[missing[0]]]), missing[0])
        kept = [text for text in self._numbers if text not in missing]
        index = np.full(len(self._numbers), -1, np.int64)
        index[[self._numbers[text] for text in kept]] = np.arange(len(kept))
        first = [self._first[self._numbers[text]] for text in kept]
        return Labels(kept, first, index[numbers])


def missing_target(place: str, text: str) -> DataError:
    """Return the error about a row without a target."""
    came = describe(text) if text else "an empty field"
    return DataError(
        f"{place}: must have a target, got {came}; --drop-missing (drop_missing=True) leaves out "
        "rows without one" + (", --task classification makes it a class" if text else "")
    )


def no_target(place: str) -> DataError:
    """Return the error about a file in which no row has a target."""
    return DataError(f"{place}: must have a target in at least one row, got none")


def check_classes(classes: Any) -> Classes | None:
    """Return known classes as a tuple, or raise.

    Raises
    ------
    ArgumentError
        If there are no classes, one is given twice, or they differ in type.
    ArgumentTypeError
        If they are not a sequence.
    """
    if classes is None:
        return None
    if isinstance(classes, str) or not isinstance(classes, Sequence | np.ndarray):
        raise ArgumentTypeError(
            f"argument 'classes' must be a sequence of labels, got {describe(classes)}"
        )
    known = tuple(label.item() if isinstance(label, np.generic) else label for label in classes)
    kinds = {type(label) for label in known}
    if len(kinds) != 1 or not kinds <= {str, int, float, bool} or len(set(known)) < len(known):
        raise ArgumentError(
            "argument 'classes' must be different labels, all text, all integers, all floats or "
            f"all truth values, got {describe(classes)}"
        )
    return cast(Classes, known)


def text_targets(
    labels: Labels, place: Place, task: str | None, classes: Classes | None, dtype: str
) -> Targets:
    """Convert a column of text to targets: classes, or numbers to predict.

    Parameters
    ----------
    labels : Labels
        Labels that are text, none of them missing.
    place : callable
        Returns the start of an error about a line.
    task : str or None
        ``"classification"``, ``"regression"``, or None to decide by the labels: see
        `are_continuous`.
    classes : tuple or None
        Known classes; if given, the task is classification.
    dtype : str
        dtype of numbers to predict.

    Raises
    ------
    DataError
        If the labels do not fit each other, or the classes.
    """
    if classes is not None:
        return _number_classes(_as_classes(labels, classes), place, classes)
    if task == "regression" or (task is None and _are_numbers(labels, place)):
        values = _text_to_numbers(labels, place, dtype)
        if task == "regression" or are_continuous(values, len(labels.numbers)):
            return Targets(values[labels.numbers, np.newaxis], None)
    if all(map(_INTEGER.fullmatch, labels.values)):
        labels = labels._replace(values=list(map(int, labels.values)))
    return _number_classes(labels, place, None)


def are_continuous(values: NDArray[Any], rows: int) -> bool:
    """Return whether numbers are to be predicted as numbers; otherwise each is a class.

    Numbers with fractions are. Whole numbers are, if there are more than 20 different ones, and
    they are more than 5% of the rows, or some are negative.

    Parameters
    ----------
    values : array
        The different numbers.
    rows : int
        Number of rows that have them.
    """
    if not (values == np.floor(values)).all():
        return True
    distinct = len(np.unique(values))
    return distinct > FEW_VALUES and (distinct > SHARE * rows or bool((values < 0).any()))


def array_targets(
    labels: NDArray[Any],
    rows: int,
    where: str,
    task: str | None,
    classes: Classes | None,
    dtype: str,
) -> Targets:
    """Convert an array to targets: classes, or numbers to predict.

    Parameters
    ----------
    labels : array of shape (rows,), (rows, 1) or, of numbers to predict, (rows, outputs)
        A label per row.
    rows : int
        Required number of rows.
    where : str
        The start of an error message about the array.
    task : str or None
        ``"classification"``, ``"regression"``, or None to decide by the labels: see
        `are_continuous`.
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
    several = columns.shape[1] != 1
    if classes is None and task is None and kind in ("f" if several else "fiu"):
        task = "regression" if several or are_continuous(np.unique(columns), rows) else None
    if classes is None and task == "regression":
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
            f"{describe(labels.values[other])}; with --task classification "
            "(task='classification') each label is a class"
        )
    return numeric[0]


def _text_to_numbers(labels: Labels, place: Place, dtype: str) -> NDArray[Any]:
    """Return the distinct labels as numbers, all finite in the dtype."""
    exact = np.empty(len(labels.values))
    for number, text in enumerate(labels.values):
        if not is_number(text):
            raise DataError(
                f"{place(labels.first[number])}: must be a number, got {describe(text)}"
            )
        exact[number] = float(text)
    with np.errstate(over="ignore"):
        values = exact.astype(dtype)
    for number in np.flatnonzero(~np.isfinite(values))[:1]:
        finite = bool(np.isfinite(exact[number]))
        wanted = f"a number that {dtype} can hold" if finite else "a finite number"
        raise DataError(f"{place(labels.first[number])}: must be {wanted}, got {exact[number]}")
    return values


def _distinct(labels: NDArray[Any], place: Place) -> Labels:
    """Return the labels of an array of integers, whole floats, truth values or text."""
    values, first, numbers = np.unique(labels, return_index=True, return_inverse=True)
    if labels.dtype.kind == "f":
        for number in np.flatnonzero(values != np.floor(values))[:1]:
            raise DataError(
                f"{place(int(first[number]))}: must be an integer, as classes are, "
                f"got {values[number]}"
            )
    return Labels(values.tolist(), first.tolist(), numbers)


def _as_classes(labels: Labels, classes: Classes) -> Labels:
    """Return texts as the known classes that they are; others stay texts."""
    if isinstance(classes[0], float):
        known: dict[Any, Any] = {label: label for label in classes}
        values = [
            known.get(float(text), text) if is_number(text) else text for text in labels.values
        ]
    else:
        known = {str(label): label for label in classes}
        values = [known.get(text, text) for text in labels.values]
    return labels._replace(values=values)


def _number_classes(labels: Labels, place: Place, classes: Classes | None) -> Targets:
    """Return the class number of each row: by the known classes, or the sorted labels."""
    known = classes if classes is not None else cast(Classes, tuple(_sorted(labels.values)))
    order: dict[Any, int] = {label: number for number, label in enumerate(known)}
    for value, first in zip(labels.values, labels.first, strict=True):
        if value not in order:
            raise DataError(
                f"{place(first)}: must be one of the classes {list_names(known)}, "
                f"got {describe(value)}"
            )
    numbers = np.array([order[value] for value in labels.values], np.int64)
    return Targets(numbers[labels.numbers], known)


def _sorted(values: Sequence[Any]) -> list[Any]:
    """Return labels in their order: texts that are all numbers by their values."""
    if all(isinstance(value, str) and is_number(value) for value in values):
        return sorted(values, key=lambda text: (float(text), text))
    return sorted(values)
