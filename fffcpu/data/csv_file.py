"""Tables in CSV files: columns of numbers and one of labels, read in blocks of rows.

`fffcpu.data.records` has the rules of CSV files. Spaces around numbers and labels do not count.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.data.files import list_names, locate
from fffcpu.data.records import Records, check_names, find_columns, locate_field, open_csv
from fffcpu.errors import DataError, describe

__all__ = [
    "CsvBlock",
    "choose_columns",
    "csv_blocks",
    "finite_kind",
    "is_number",
    "read_column_names",
]


class CsvBlock(NamedTuple):
    """Some rows of a CSV file."""

    numbers: NDArray[Any]
    """(rows, columns) of the columns that hold numbers."""
    texts: list[str]
    """Fields of the column of text, without spaces around them; empty if there is no column."""
    lines: list[int]
    """The line on which each row starts, from 1."""
    position: int
    """Number of bytes of the file that are read, counted before unpacking."""


def read_column_names(path: str) -> list[str]:
    """Return the names of a CSV file's columns, without spaces around them.

    Raises
    ------
    DataError
        If there is no header.
    """
    with open_csv(path) as file:
        return file.names


def choose_columns(
    path: str, names: Sequence[str], features: Sequence[str] | None, targets: Sequence[int] = ()
) -> list[int]:
    """Return the numbers of the columns that hold features.

    Parameters
    ----------
    path : str
        The file.
    names : sequence of str
        Names of its columns.
    features : sequence of str or None
        The columns to take, in this order. None: all columns that are not targets.
    targets : sequence of int
        Numbers of the columns that hold targets.

    Raises
    ------
    DataError
        If there are no features, if one is missing or also a target, if one has no name or the
        name of another, or if the names of all columns are numbers, so that the first line seems
        to be a row (0, 1, 2, ... may be names).
    """
    if features is None:
        if all(map(is_number, names)) and names != [str(column) for column in range(len(names))]:
            raise DataError(
                f"{locate(path, 'line 1')}: must have the names of columns, got only numbers: "
                f"{list_names(names)}"
            )
        chosen = [column for column in range(len(names)) if column not in targets]
        check_names(path, names, chosen)
    else:
        chosen = find_columns(path, names, features)
        for column in chosen:
            if column in targets:
                raise DataError(
                    f"{locate_field(path, column, names[column], 1)}: must be a feature or a "
                    "target, got both"
                )
    if not chosen:
        raise DataError(
            f"{locate(path, 'line 1')}: must have a column of features besides the target, "
            f"got {list_names(names)}"
        )
    return chosen


def csv_blocks(
    path: str, columns: Sequence[int], text: int | None, rows: int, dtype: str
) -> Iterator[CsvBlock]:
    """Read a CSV file in blocks of up to ``rows`` rows.

    Parameters
    ----------
    path : str
        The file.
    columns : sequence of int
        Numbers of the columns to read as numbers, in this order.
    text : int or None
        Number of a column to read as text.
    rows : int
        Largest number of rows per block.
    dtype : str
        dtype of the numbers, ``"float32"`` or ``"float64"``.

    Yields
    ------
    CsvBlock
        With at least one row.

    Raises
    ------
    DataError
        If a row has more or fewer fields than the header, or a field has a wrong value.
    """
    with open_csv(path) as file:
        plan = _Plan(path, file.names, columns, text, dtype)
        while True:
            block = _read_block(plan, file.records, rows)
            if not block.lines:
                return
            yield block._replace(position=file.raw.tell())


def is_number(text: str) -> bool:
    """Whether a field is a number: as for Python's float, but without forms like 1_000 and ٣."""
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and "_" not in text


def finite_kind(number: float, dtype: str) -> str:
    """Return the requirement that a number violates: to be finite, or finite in this dtype."""
    return f"a number that {dtype} can hold" if math.isfinite(number) else "a finite number"


class _Plan(NamedTuple):
    """The plan of a reading: the arguments of `csv_blocks`, and the names of all columns."""

    path: str
    names: Sequence[str]
    columns: Sequence[int]
    text: int | None
    dtype: str

    def locate(self, column: int, line: int) -> str:
        """Return the start of an error message about a field."""
        return locate_field(self.path, column, self.names[column], line)


def _read_block(plan: _Plan, records: Records, rows: int) -> CsvBlock:
    """Read the next rows; a block without rows is the end."""
    numbers, texts, lines = array("d"), list[str](), list[int]()
    for line, record in records:
        fields = [record[column] for column in plan.columns]
        joined = "".join(fields)
        try:
            if "_" in joined or not joined.isascii():
                raise ValueError  # float would accept some of these
            numbers.extend(map(float, fields))
        except ValueError:
            raise DataError(_explain_text(plan, line, fields)) from None
        if plan.text is not None:
            texts.append(record[plan.text].strip())
            if not texts[-1]:
                place = plan.locate(plan.text, line)
                raise DataError(f"{place}: must have a label, got an empty field")
        lines.append(line)
        if len(lines) == rows:
            break
    exact = np.asarray(numbers).reshape(len(lines), len(plan.columns))
    return CsvBlock(_round(plan, exact, lines), texts, lines, 0)


def _round(plan: _Plan, exact: NDArray[np.float64], lines: Sequence[int]) -> NDArray[Any]:
    """Return numbers in the requested dtype, all finite."""
    with np.errstate(over="ignore"):
        rounded: NDArray[Any] = exact.astype(plan.dtype)
    finite = np.isfinite(rounded)
    if not finite.all():
        row, chosen = np.argwhere(~finite)[0]
        came = float(exact[row, chosen])
        place = plan.locate(plan.columns[chosen], lines[row])
        raise DataError(f"{place}: must be {finite_kind(came, plan.dtype)}, got {came}")
    return rounded


def _explain_text(plan: _Plan, line: int, fields: Sequence[str]) -> str:
    """Return the error message about the first field that is not a number."""
    chosen = next(i for i, field in enumerate(fields) if not is_number(field))
    came = describe(fields[chosen]) if fields[chosen].strip() else "an empty field"
    return f"{plan.locate(plan.columns[chosen], line)}: must be a number, got {came}"
