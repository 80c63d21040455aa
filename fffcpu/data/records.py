r"""Records of CSV files and of JSON lines, the sources of tables and texts.

The same rules hold for every CSV file:

===============  ===================================================================================
text             UTF-8, with or without a byte-order mark, gzipped or not
lines            end with ``\n``, ``\r\n`` or ``\r``
header           the first line names the columns; spaces around names do not count
fields           separated by commas; spaces after a comma do not count
quotes           a field in double quotes may contain commas, line ends and doubled quotes
width            every record has as many fields as the header
empty lines      ignored at the end, and errors elsewhere: a mistake, or a missing value of a file
                 with one column
===============  ===================================================================================

Every error names the line on which the record starts, as an editor counts lines: a quoted field may
span several.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from fffcpu.data.files import list_names, locate, open_file
from fffcpu.errors import DataError

__all__ = [
    "CsvFile",
    "check_names",
    "find_columns",
    "json_rows",
    "locate_field",
    "open_csv",
]

Records = Iterator[tuple[int, list[str]]]


class CsvFile(NamedTuple):
    """An open CSV file."""

    names: list[str]
    """Names of its columns, without spaces around them."""
    records: Records
    """The line on which each record after the header starts, from 1, and its fields."""
    raw: io.BufferedReader
    """The file itself; its position gives the number of bytes read."""


@contextlib.contextmanager
def open_csv(path: str, *, replace: bool = False, separator: str = ",") -> Iterator[CsvFile]:
    """Open a CSV file.

    Parameters
    ----------
    path : str
        The file, gzipped or not.
    replace : bool
        Whether bytes that are not UTF-8 become U+FFFD. By default they are an error.
    separator : str
        The character between fields.

    Yields
    ------
    CsvFile

    Raises
    ------
    DataError
        If the file violates one of the rules; also raised while its records are read.
    OSError
        If it cannot be read.
    """
    errors = "replace" if replace else "surrogateescape"
    with (
        open_file(path) as file,
        io.TextIOWrapper(file.content, "utf-8-sig", errors=errors, newline="") as text,
    ):
        lines = text if replace else _checked_lines(path, text)
        records = _records(path, lines, separator)
        _, header = next(records)
        yield CsvFile([name.strip() for name in header], records, file.raw)


def find_columns(path: str, names: Sequence[str], wanted: Iterable[str]) -> list[int]:
    """Return the numbers of columns, from 0.

    Parameters
    ----------
    path : str
        The file, for errors.
    names : sequence of str
        Names of its columns.
    wanted : iterable of str
        The names to find, in this order.

    Raises
    ------
    DataError
        If a name has no column, or more than one.
    """
    places: dict[str, int] = {}
    again: dict[str, int] = {}
    for column, name in enumerate(names):
        if places.setdefault(name, column) != column:
            again.setdefault(name, column)
    found = []
    for name in wanted:
        if name not in places:
            raise DataError(
                f"{locate(path, 'line 1')}: must have a column {name!r}, got {list_names(names)}"
            )
        if name in again:
            raise _name_given_twice(path, again[name], name, places[name])
        found.append(places[name])
    return found


def check_names(path: str, names: Sequence[str], columns: Iterable[int]) -> None:
    """Raise unless some columns have distinct names.

    Parameters
    ----------
    path : str
        The file, for errors.
    names : sequence of str
        Names of all its columns.
    columns : iterable of int
        Numbers of the columns to check, from 0.

    Raises
    ------
    DataError
        If a name is empty or given twice.
    """
    places: dict[str, int] = {}
    for column in columns:
        name = names[column]
        if not name:
            raise DataError(
                f"{locate(path, 'line 1', f'column {column + 1}')}: must have a name, "
                "got an empty field"
            )
        if places.setdefault(name, column) != column:
            raise _name_given_twice(path, column, name, places[name])


def locate_field(path: str, column: int, name: str, line: int) -> str:
    """Return the start of an error about a field, of the column numbered ``column`` from 0."""
    return locate(path, f"line {line}", f"column {column + 1} ({name!r})")


def json_rows(stream: Iterable[str], path: str) -> Iterator[tuple[int, dict[Any, Any]]]:
    """Yield the numbers and the objects of JSON lines.

    Blank lines are skipped; a value that is not an object counts as an empty object.
    """
    for number, line in enumerate(stream, 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                where = locate(path, f"line {number}")
                raise DataError(f"{where}: must be JSON ({error})") from error
            yield number, row if isinstance(row, dict) else {}


def _name_given_twice(path: str, column: int, name: str, first: int) -> DataError:
    return DataError(
        f"{locate_field(path, column, name, 1)}: must have a name of its own, "
        f"got that of column {first + 1}"
    )


def _records(path: str, lines: Iterable[str], separator: str) -> Records:
    """Yield the line on which each record starts, and its fields: the header first."""
    reader = csv.reader(lines, strict=True, skipinitialspace=True, delimiter=separator)
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


def _checked_lines(path: str, file: io.TextIOWrapper) -> Iterator[str]:
    """Yield the lines of a file, checked to be UTF-8."""
    for number, line in enumerate(file, 1):
        if not line.isascii():
            _check_decoded(path, number, line)
        yield line


def _check_decoded(path: str, number: int, line: str) -> None:
    """Raise if a line has bytes that are not UTF-8; decoding has marked them."""
    try:
        line.encode()
    except UnicodeEncodeError as error:
        byte = line[error.start].encode(errors="surrogateescape")
        raise DataError(
            f"{locate(path, f'line {number}')}: must be UTF-8 text, got byte {byte!r}"
        ) from None
