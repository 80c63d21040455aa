"""CSV files: a line with the names of columns, then a line a row, read in blocks of rows.

Fields are separated by commas and may be quoted; the text is UTF-8, with or without a byte-order
mark. Every complaint names the line on which the row starts, as an editor counts them: a quoted
field may go over several lines.
"""

from __future__ import annotations

import contextlib
import csv
import io
import math
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.data.files import list_names, locate, open_file
from fffcpu.errors import DataError, describe

__all__ = [
    "CsvBlock",
    "choose_columns",
    "csv_blocks",
    "find_column",
    "finite_kind",
    "is_number",
    "locate_field",
    "read_header",
]

Records = Iterator[tuple[int, list[str]]]


class CsvBlock(NamedTuple):
    """Some rows of a CSV file."""

    numbers: NDArray[Any]
    """(rows, columns) of the columns that hold numbers."""
    texts: list[str]
    """What stands in the column of text, without spaces around it; empty if there is none."""
    lines: list[int]
    """The line on which each row starts, from 1."""
    position: int
    """How many bytes of the file are read, of the gzipped one if it is."""


def read_header(path: str) -> list[str]:
    """Return the names of a CSV file's columns, without spaces around them.

    Raises
    ------
    DataError
        If there is no header, or a name is missing or given twice.
    """
    with _open_records(path) as (records, _):
        _, header = next(records)
    names = [name.strip() for name in header]
    first: dict[str, int] = {}
    for column, name in enumerate(names):
        if not name:
            raise DataError(
                f"{locate(path, 'line 1', f'column {column + 1}')}: must have a name, "
                "got an empty field"
            )
        if first.setdefault(name, column) != column:
            raise DataError(
                f"{locate_field(path, column, name, 1)}: must have a name of its own, "
                f"got that of column {first[name] + 1}"
            )
    return names


def find_column(path: str, names: Sequence[str], name: str) -> int:
    """Return the number of a column, from 0.

    Raises
    ------
    DataError
        If there is none of this name.
    """
    if name not in names:
        raise DataError(
            f"{locate(path, 'line 1')}: must have a column {name!r}, got {list_names(names)}"
        )
    return list(names).index(name)


def choose_columns(
    path: str, names: Sequence[str], features: Sequence[str] | None, targets: Sequence[int] = ()
) -> list[int]:
    """Return the numbers of the columns that hold features.

    Parameters
    ----------
    path : str
        The file.
    names : sequence of str
        Of its columns.
    features : sequence of str or None
        The columns to take, in this order. None: all that are not targets.
    targets : sequence of int
        Numbers of the columns that hold targets.

    Raises
    ------
    DataError
        If there are no features, one is missing or also a target, or the names of all columns are
        numbers, so that the first line seems to be a row (0, 1, 2, ... may be names).
    """
    if features is None:
        if all(map(is_number, names)) and names != [str(column) for column in range(len(names))]:
            raise DataError(
                f"{locate(path, 'line 1')}: must have the names of columns, got only numbers: "
                f"{list_names(names)}"
            )
        chosen = [column for column in range(len(names)) if column not in targets]
    else:
        places = {name: column for column, name in enumerate(names)}
        chosen = [
            places[name] if name in places else find_column(path, names, name) for name in features
        ]
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
        Most rows of a block.
    dtype : str
        Of the numbers, ``"float32"`` or ``"float64"``.

    Yields
    ------
    CsvBlock
        With at least one row.

    Raises
    ------
    DataError
        If a row has more or fewer fields than the header, or a field does not hold what it should.
    """
    with _open_records(path) as (records, raw):
        _, header = next(records)
        plan = _Plan(path, [name.strip() for name in header], columns, text, dtype)
        while True:
            block = _read_block(plan, records, rows)
            if not block.lines:
                return
            yield block._replace(position=raw.tell())


def is_number(text: str) -> bool:
    """Tell whether a field is a number: what Python's float takes, but no 1_000 and no ٣."""
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and "_" not in text


def finite_kind(number: float, dtype: str) -> str:
    """Say what a number should be that is not finite, or not as this dtype."""
    return f"a number that {dtype} can hold" if math.isfinite(number) else "a finite number"


def locate_field(path: str, column: int, name: str, line: int) -> str:
    """Return the start of a complaint about a field, of the column numbered ``column`` from 0."""
    return locate(path, f"line {line}", f"column {column + 1} ({name!r})")


class _Plan(NamedTuple):
    """What is read from a file: the arguments of `csv_blocks`, and the names of all columns."""

    path: str
    names: Sequence[str]
    columns: Sequence[int]
    text: int | None
    dtype: str

    def locate(self, column: int, line: int) -> str:
        """Return the start of a complaint about a field."""
        return locate_field(self.path, column, self.names[column], line)


def _read_block(plan: _Plan, records: Records, rows: int) -> CsvBlock:
    """Read the next rows; a block without rows is the end."""
    numbers, texts, lines = array("d"), list[str](), list[int]()
    for line, record in records:
        fields = [record[column] for column in plan.columns]
        joined = "".join(fields)
        try:
            if "_" in joined or not joined.isascii():
                raise ValueError  # float would take some of these
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
    """Return numbers in the dtype that is asked for, all finite."""
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
    """Return the complaint about the first field that is no number."""
    chosen = next(i for i, field in enumerate(fields) if not is_number(field))
    came = describe(fields[chosen]) if fields[chosen].strip() else "an empty field"
    return f"{plan.locate(plan.columns[chosen], line)}: must be a number, got {came}"


@contextlib.contextmanager
def _open_records(path: str) -> Iterator[tuple[Records, io.BufferedReader]]:
    """Open a file; give its records, and the file to tell how far it is read."""
    with (
        open_file(path) as file,
        io.TextIOWrapper(file.content, "utf-8-sig", errors="surrogateescape", newline="") as text,
    ):
        yield _records(path, text), file.raw


def _records(path: str, file: io.TextIOWrapper) -> Records:
    """Yield the line on which each record starts, and its fields: the header first.

    Empty lines at the end count for nothing. In other places they may be a mistake, or a missing
    value of a file with one column.
    """
    reader = csv.reader(_lines(path, file), strict=True, skipinitialspace=True)
    width = empty = 0
    while True:
        line = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise DataError(
                f"{locate(path, f'line {line}')}: must be valid CSV ({error})"
            ) from error
        if not record:
            empty = empty or line
            continue
        if empty:
            raise DataError(f"{locate(path, f'line {empty}')}: must not be empty")
        width = width or len(record)
        if len(record) != width:
            raise DataError(
                f"{locate(path, f'line {line}')}: must have {width} fields, as the header has, "
                f"got {len(record)}"
            )
        yield line, record
    if not width:
        raise DataError(f"{locate(path)}: must have the names of columns, got an empty file")


def _lines(path: str, file: io.TextIOWrapper) -> Iterator[str]:
    """Yield the lines of a file, checked to be UTF-8."""
    for number, line in enumerate(file, 1):
        if not line.isascii():
            _check_decoded(path, number, line)
        yield line


def _check_decoded(path: str, number: int, line: str) -> None:
    """Raise if a line has bytes that are not UTF-8, which decoding has marked."""
    try:
        line.encode()
    except UnicodeEncodeError as error:
        byte = line[error.start].encode(errors="surrogateescape")
        raise DataError(
            f"{locate(path, f'line {number}')}: must be UTF-8 text, got byte {byte!r}"
        ) from None
