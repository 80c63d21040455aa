"""Tables whose columns have names, in CSV or Parquet files, read in blocks.

`fffcpu.data.records` has the rules of CSV files, `fffcpu.columns.fields` those of their fields.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fffcpu.columns.encoding import FieldValues, Unknown
from fffcpu.columns.fields import is_number
from fffcpu.data.files import locate
from fffcpu.data.parquet import is_parquet, open_parquet
from fffcpu.data.records import (
    NO_HEADER_HINT,
    Records,
    check_names,
    find_named,
    locate_field,
    open_csv,
)
from fffcpu.errors import DataError, list_names

__all__ = [
    "CsvBlock",
    "Reader",
    "choose_columns",
    "csv_blocks",
    "open_table",
    "read_column_names",
]

FIELDS = 1 << 20
"""Most fields that are held as text at a time."""


class Reader(Protocol):
    """What turns the fields of a column into numbers; `fffcpu.columns.encoding.Column` is one."""

    def read(
        self, fields: Sequence[str], name: str = "", unknown: Unknown | None = None
    ) -> FieldValues:
        """Return the values of fields."""

    def explain(self, field: str) -> str:
        """Return the error about a field that the column cannot hold."""


class CsvBlock(NamedTuple):
    """Some rows of a CSV file."""

    numbers: NDArray[np.float64]
    """(rows, columns) of the columns that a reader turned into numbers."""
    texts: list[tuple[str, ...]]
    """The fields of the columns of text, column by column."""
    lines: list[int]
    """The line on which each row starts, from 1."""
    position: int
    """Number of bytes of the file that are read, counted before unpacking."""


class TableFile(NamedTuple):
    """An open table whose columns have names."""

    names: list[str]
    records: Records
    """The line on which each record starts, or its row in a Parquet file, and its fields."""
    position: Callable[[], int]
    """Returns the number of bytes that are read."""


@contextlib.contextmanager
def open_table(path: str, separator: str = ",") -> Iterator[TableFile]:
    """Open a CSV or Parquet file.

    Raises
    ------
    DataError, MissingExtraError, OSError
        As for `fffcpu.data.records.open_csv` and `fffcpu.data.parquet.open_parquet`.
    """
    if is_parquet(path):
        with open_parquet(path) as (names, rows):
            yield TableFile(names, rows, lambda: 0)
    else:
        with open_csv(path, separator=separator) as file:
            yield TableFile(file.names, file.records, file.raw.tell)


def read_column_names(path: str, separator: str = ",") -> list[str]:
    """Return the names of a CSV file's columns, without spaces around them.

    Raises
    ------
    DataError
        If there is no header.
    """
    with open_table(path, separator) as file:
        return file.names


def choose_columns(
    path: str, names: Sequence[str], features: Sequence[str] | None, others: Sequence[int] = ()
) -> list[int]:
    """Return the numbers of the columns that hold features.

    Parameters
    ----------
    path : str
        The file.
    names : sequence of str
        Names of its columns.
    features : sequence of str or None
        The columns to take, in this order. None: all columns but the others.
    others : sequence of int
        Numbers of the columns that hold no features: targets, and columns to drop.

    Raises
    ------
    DataError
        If there are no features, if one is missing or also a target, if a target is to be dropped,
        if a feature has no name or the name of another, or if the names of all columns are numbers,
        so that the first line seems to be a row (0, 1, 2, ... may be names).
    """
    for column, times in Counter(others).items():
        if times > 1:
            raise DataError(
                f"{locate_field(path, column, names[column], 1)}: must be a target or dropped, "
                "got both"
            )
    if features is None:
        if all(map(is_number, names)) and names != [str(column) for column in range(len(names))]:
            raise DataError(
                f"{locate(path, 'line 1')}: must have the names of columns, got only numbers: "
                f"{list_names(names)}{NO_HEADER_HINT}"
            )
        left_out = set(others)
        chosen = [column for column in range(len(names)) if column not in left_out]
        check_names(path, names, chosen)
    else:
        chosen = find_named(path, names, features)
        for column in chosen:
            if column in others:
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
    path: str,
    readers: Mapping[int, Reader],
    texts: Sequence[int] = (),
    rows: int = 4096,
    *,
    separator: str = ",",
    unknown: Unknown | None = None,
) -> Iterator[CsvBlock]:
    """Read a CSV file in blocks of up to ``rows`` rows.

    Parameters
    ----------
    path : str
        The file.
    readers : mapping of int to Reader
        The columns to read as numbers, by their numbers in the file, in the order of the result.
    texts : sequence of int
        Numbers of columns to read as text.
    rows : int
        Largest number of rows per block.
    separator : str
        The character between fields.
    unknown : Counter, optional
        Counts the texts that are no categories.

    Yields
    ------
    CsvBlock
        With at least one row.

    Raises
    ------
    DataError
        If a row has more or fewer fields than the header, or a field has a wrong value.
    """
    with open_table(path, separator) as file:
        plan = _Plan(path, file.names, readers, texts, unknown)
        held = max(1, FIELDS // max(1, len(file.names)))
        while True:
            block = _read_block(plan, file.records, rows, held)
            if not block.lines:
                return
            yield block._replace(position=file.position())


class _Plan(NamedTuple):
    """The arguments of `csv_blocks`, and the names of all columns."""

    path: str
    names: Sequence[str]
    readers: Mapping[int, Reader]
    texts: Sequence[int]
    unknown: Unknown | None


def _read_block(plan: _Plan, records: Records, rows: int, held: int) -> CsvBlock:
    """Read the next rows, at most ``held`` at a time; a block without rows is the end."""
    numbers, lines = list[NDArray[Any]](), list[int]()
    texts: list[list[str]] = [[] for _ in plan.texts]
    while len(lines) < rows:
        some = list(itertools.islice(records, min(held, rows - len(lines))))
        if not some:
            break
        starts, fields = zip(*some, strict=True)
        columns = list(zip(*fields, strict=True))
        numbers.append(_read_numbers(plan, columns, starts))
        lines.extend(starts)
        for whole, column in zip(texts, plan.texts, strict=True):
            whole.extend(columns[column])
    numbers = numbers or [np.empty((0, len(plan.readers)))]
    return CsvBlock(np.concatenate(numbers), list(map(tuple, texts)), lines, 0)


def _read_numbers(
    plan: _Plan, columns: Sequence[Sequence[str]], lines: Sequence[int]
) -> NDArray[np.float64]:
    """Return the numbers of some rows; the error is about the first wrong field in the file."""
    numbers = np.empty((len(lines), len(plan.readers)))
    wrong: tuple[int, int] | None = None
    for place, (column, reader) in enumerate(plan.readers.items()):
        values, first = reader.read(columns[column], plan.names[column], plan.unknown)
        if first is not None:
            wrong = min(wrong or (first, column), (first, column))
        numbers[:, place] = values
    if wrong is not None:
        row, column = wrong
        where = locate_field(plan.path, column, plan.names[column], lines[row])
        raise DataError(f"{where}: {plan.readers[column].explain(columns[column][row])}")
    return numbers
