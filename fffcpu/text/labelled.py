"""Texts with labels, from CSV files and JSON lines: the data to fine-tune a classifier on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.data.files import locate
from fffcpu.data.records import JsonRows, clean_label, find_named, open_csv, open_lines
from fffcpu.errors import DataError, describe

__all__ = ["LabelledTexts", "read_labelled"]

_KINDS = (".csv", ".jsonl")


Labelled = Iterator[tuple[str, str, Any]]
"""The place of a row, its text, and its label."""


class LabelledTexts(NamedTuple):
    """Texts and their labels."""

    texts: list[str]
    """R texts."""
    labels: NDArray[Any]
    """Numbers of classes, int64 (R,), or float64 numbers (R,) of a regression."""
    classes: tuple[str, ...] | None
    """Names of the classes; None for a regression."""


def read_labelled(
    path: str,
    text: str = "text",
    label: str = "label",
    *,
    regression: bool = False,
    classes: tuple[str, ...] | None = None,
    separator: str = ",",
) -> LabelledTexts:
    """Read texts and their labels.

    Parameters
    ----------
    path : str
        A CSV file with a header (``.csv``), by the rules of `fffcpu.data.records`, or JSON lines
        (``.jsonl``); either gzipped (``.gz``) or not.
    text, label : str
        The names of the columns, or of the fields.
    regression : bool
        Whether labels are numbers to predict, and not names of classes.
    classes : tuple of str, optional
        The names of the classes, if they are already known. The default is the sorted labels.
        Spaces around a name are ignored.
    separator : str
        The character that separates the fields of a CSV file.

    Raises
    ------
    DataError
        If the file has another format or an error, such as an empty label, or a fraction instead
        of the name of a class; the message names the line.
    OSError
        If it cannot be read.
    """
    name = Path(path).name.lower().removesuffix(".gz")
    if not name.endswith(_KINDS):
        raise DataError(f"{locate(path)}: must end with .csv or .jsonl, or these with .gz")
    texts: list[str] = []
    labels: list[Any] = []
    rows = (
        _csv_rows(path, text, label, separator)
        if name.endswith(".csv")
        else _json_rows(path, text, label)
    )
    for where, words, value in rows:
        texts.append(words)
        labels.append(_number(value, where) if regression else _name(value, where))
    if not texts:
        raise DataError(f"{locate(path)}: must hold texts, got none")
    if regression:
        return LabelledTexts(texts, np.array(labels, np.float64), None)
    known = tuple(sorted(set(labels))) if classes is None else classes
    numbers = {name: number for number, name in enumerate(known)}
    strange = sorted(set(labels) - set(known))
    if strange:
        raise DataError(f"{locate(path)}: label {strange[0]!r} is not one of the classes")
    return LabelledTexts(texts, np.array([numbers[name] for name in labels], np.int64), known)


def _csv_rows(path: str, text: str, label: str, separator: str) -> Labelled:
    """Yield the rows of a CSV file."""
    with open_csv(path, separator=separator) as file:
        texts, labels = find_named(path, file.names, [text, label])
        for line, fields in file.records:
            yield file.lines.place(line), fields[texts], fields[labels]


def _json_rows(path: str, text: str, label: str) -> Labelled:
    """Yield the rows of JSON lines."""
    with open_lines(path) as lines:
        for _, row in JsonRows(lines):
            if not isinstance(row.get(text), str) or row.get(label) is None:
                raise DataError(
                    f"{lines.place()}: must have a '{text}' and a '{label}', "
                    f"got {', '.join(repr(key) for key in row) or 'nothing'}"
                )
            yield lines.place(), row[text], row[label]


def _name(value: Any, where: str) -> str:
    """Return the name of a class."""
    # A float can be written in several ways, and NaN is not a class.
    name = clean_label(str(value)) if isinstance(value, (str, int)) else ""
    if not name:
        raise DataError(f"{where}: must have text or an integer as label, got {describe(value)}")
    return name


def _number(value: Any, where: str) -> float:
    """Return a finite number."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        found = float("nan")
    if not np.isfinite(found):
        raise DataError(f"{where}: must be a number, got {describe(value)}")
    return found
