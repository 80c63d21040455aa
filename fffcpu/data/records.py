r"""Lines of text, records of CSV files and JSON lines: the sources of tables and texts.

There is one reader of lines, `Lines`, for files and for standard input. A line ends with ``\n`` or
``\r\n``, as ``wc -l`` counts; a ``\r`` alone does not end it, and the last line needs no end.

The same rules hold for every CSV file:

===============  ===================================================================================
text             UTF-8, with or without a byte-order mark, gzipped or not
lines            as above; in a file whose first line ends with ``\r`` alone, all lines may
header           the first line names the columns; spaces around names do not count
fields           separated by commas or by another character; spaces after it do not count
quotes           a field in double quotes may contain separators, line ends and doubled quotes
width            every record has as many fields as the header
empty lines      ignored at the end, and errors elsewhere: a mistake, or a missing value of a file
                 with one column
length           a line, and a record with all of its lines, has at most 33,554,432 characters
===============  ===================================================================================

Every error names the line on which the record starts: a quoted field may span several.

`Lines`, the records of `open_csv` and `JsonRows` are iterators that can be asked for the next
element after an error, so that one bad record does not hide the others: see `with_errors`.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import io
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType
from typing import IO, Any, NamedTuple, Self, TypeVar

from fffcpu.columns.fields import is_number
from fffcpu.data.files import locate, open_file
from fffcpu.errors import ArgumentError, DataError, describe, list_names

__all__ = [
    "MOST_CHARACTERS",
    "NO_HEADER_HINT",
    "SEPARATORS",
    "CsvFile",
    "JsonRows",
    "Lines",
    "check_names",
    "clean_label",
    "find_named",
    "guess_separator",
    "locate_field",
    "open_csv",
    "open_lines",
    "with_errors",
]

Record = tuple[int, list[str]]
Records = Iterator[Record]
T = TypeVar("T")

MOST_CHARACTERS = 1 << 25
"""Largest number of characters of a line, and of a record: so a file without line ends, or with a
quote that is never closed, cannot fill the memory."""

SEPARATORS = (",", ";", "\t", "|")
"""The usual separators of fields."""

NO_HEADER_HINT = "; if the file has no header, add a first line of names"
"""The end of errors about a header that seems to be a row."""

# --- Lines ----------------------------------------------------------------------------------------


class Lines:
    r"""The lines of a text, with their ends. After an error the next line can be read.

    Parameters
    ----------
    stream : text stream
        The text. It must not translate line ends. Bytes that are not UTF-8 are marked by
        ``surrogateescape``.
    source : str
        Name of the text in errors, such as ``"file 'a.txt'"``.
    replace : bool
        Whether bytes that are not UTF-8 become U+FFFD. By default they are an error.

    Attributes
    ----------
    number : int
        Number of the last line, from 1.
    replaced_on : int or None
        Number of the first line in which bytes were replaced.

    Raises
    ------
    DataError
        While lines are read: if one is too long, or has bytes that are not UTF-8.
    """

    def __init__(self, stream: IO[str], source: str, *, replace: bool = False) -> None:
        self.source, self.number = source, 0
        self.replaced_on: int | None = None
        self._stream, self._replace = stream, replace
        self._start, self._left = 1, MOST_CHARACTERS

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        """Return the next line, a record of its own."""
        self.start_record()
        line = self.read()
        if not line:
            raise StopIteration
        return line

    def place(self, number: int | None = None) -> str:
        """Return the start of an error message about a line; by default, the last one."""
        return f"{self.source}, line {self.number if number is None else number}"

    def start_record(self) -> None:
        """Count the characters of a record from the next line on."""
        self._start, self._left = self.number + 1, MOST_CHARACTERS

    def read(self) -> str:
        """Return the next line, which continues the record; "" at the end."""
        line = self._next_line(self._left + 1)
        self.number += bool(line)
        if len(line) > self._left:
            while line and not line.endswith("\n"):
                line = self._stream.readline(1 << 20)
            raise DataError(
                f"{self.place(self._start)}: must have at most {MOST_CHARACTERS:,} characters, got "
                "more: is a line end or a closing quote missing?"
            )
        self._left -= len(line)
        return line if line.isascii() else self._checked(line)

    def _next_line(self, most: int) -> str:
        """Return the next line, or that many of its characters."""
        return self._stream.readline(most)

    def _checked(self, line: str) -> str:
        """Return a line, whose bytes that are not UTF-8 are an error or replaced."""
        try:
            line.encode()
        except UnicodeEncodeError as error:
            if not self._replace:
                byte = line[error.start].encode(errors="surrogateescape")
                raise DataError(f"{self.place()}: must be UTF-8 text, got byte {byte!r}") from None
            self.replaced_on = self.replaced_on or self.number
            return line.encode(errors="surrogateescape").decode(errors="replace")
        return line


class _CsvLines(Lines):
    r"""Lines of a CSV file: of an old Mac's, whose first line ends with ``\r`` alone, too.

    The stream ends lines with ``\n``, ``\r\n`` and ``\r``, and does not translate them.
    """

    _old = False
    """Whether the file is an old Mac's."""

    def _next_line(self, most: int) -> str:
        parts = [self._stream.readline(most)]
        self._old = self._old or (self.number == 0 and parts[0].endswith("\r"))
        # Elsewhere a carriage return belongs to the line. It may stand at the end of the file.
        while not self._old and parts[-1].endswith("\r") and (most := most - len(parts[-1])):
            parts.append(self._stream.readline(most))
        return "".join(parts)


@contextlib.contextmanager
def open_lines(path: str, *, replace: bool = False) -> Iterator[Lines]:
    """Open a file of lines, gzipped or not; ``replace`` as for `Lines`.

    Raises
    ------
    DataError
        If it is not a regular file, or while lines are read.
    OSError
        If it cannot be read.
    """
    with (
        open_file(path) as file,
        io.TextIOWrapper(
            file.content, "utf-8-sig", errors="surrogateescape", newline="\n"
        ) as stream,
    ):
        yield Lines(stream, locate(path), replace=replace)


def with_errors(items: Iterator[T]) -> Iterator[T | DataError]:
    """Yield items, and in the place of one that cannot be read its error.

    Parameters
    ----------
    items : iterator
        An iterator that can continue after an error; a generator cannot.
    """
    while True:
        try:
            yield next(items)
        except StopIteration:
            return
        except DataError as error:
            yield error


# --- CSV ------------------------------------------------------------------------------------------


class CsvFile(NamedTuple):
    """An open CSV file."""

    names: list[str]
    """Names of its columns, without spaces around them."""
    records: Records
    """The line on which each record after the header starts, from 1, and its fields."""
    raw: io.BufferedReader
    """The file itself; its position gives the number of bytes read."""
    lines: Lines
    """Its lines."""


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
        The character that separates fields.

    Yields
    ------
    CsvFile

    Raises
    ------
    ArgumentError
        If the separator cannot be one.
    DataError
        If the file violates one of the rules; also raised while its records are read.
    OSError
        If it cannot be read.
    """
    _check_separator(separator)
    with (
        open_file(path) as file,
        io.TextIOWrapper(file.content, "utf-8-sig", errors="surrogateescape", newline="") as text,
    ):
        lines = _CsvLines(text, locate(path), replace=replace)
        records = _Records(lines, separator)
        yield CsvFile(records.names, records, file.raw, lines)


def find_named(path: str, names: Sequence[str], wanted: Iterable[str]) -> list[int]:
    """Return the numbers, from 0, of columns that a caller names.

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
        If a name has no column, or more than one. The message suggests the probable cause.
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
                f"{_column_hint(name, names)}"
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
                "got an empty field; if it is the index of a data frame, --drop '' (drop=['']) "
                "leaves it out"
            )
        if places.setdefault(name, column) != column:
            raise _name_given_twice(path, column, name, places[name])


def locate_field(path: str, column: int, name: str, line: int) -> str:
    """Return the start of an error about a field, of the column numbered ``column`` from 0."""
    unit = "row" if path.lower().endswith(".parquet") else "line"
    return locate(path, f"{unit} {line}", f"column {column + 1} ({name!r})")


def guess_separator(names: Sequence[str]) -> str | None:
    """Return the character that seems to separate the fields of a header, if they were not split.

    Parameters
    ----------
    names : sequence of str
        The header's fields, split by another character.

    Returns
    -------
    str or None
        One of `SEPARATORS` that stands in the fields more often than the header was split.
    """
    text = "".join(names)
    count, guess = max((text.count(separator), separator) for separator in SEPARATORS)
    return guess if count >= max(1, len(names)) else None


def clean_label(text: str) -> str:
    """Return the label that a text is, in tables, CSV files of texts and JSON lines alike.

    White space around a label does not count. A label without anything else is missing: "".
    """
    return text.strip()


# --- JSON lines -----------------------------------------------------------------------------------


class JsonRows:
    """The numbers of the lines and the objects of JSON lines; after an error the next can be read.

    Blank lines are skipped; a value that is not an object counts as an empty object.

    Parameters
    ----------
    lines : Lines
        The lines.

    Raises
    ------
    DataError
        While rows are read: if a line is not JSON.
    """

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[int, dict[Any, Any]]:
        for line in self._lines:
            if line.strip():
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise DataError(f"{self._lines.place()}: must be JSON ({error})") from error
                return self._lines.number, row if isinstance(row, dict) else {}
        raise StopIteration


# --- Parts ----------------------------------------------------------------------------------------


def _own_csv() -> ModuleType:
    """Return a second copy of the standard library's CSV module, for `_Records` alone.

    The module refuses fields of more than 131,072 characters, in columns that nobody reads, too.
    Its ``csv.field_size_limit`` would raise that for all readers of the process and all threads, so
    fffcpu has a copy with a limit of its own.
    """
    spec = importlib.util.find_spec("_csv")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.field_size_limit(MOST_CHARACTERS)
    return module


_CSV = _own_csv()


class _Records:
    """The line on which each record starts, and its fields; after an error the next can be read.

    Parameters
    ----------
    lines : Lines
        The lines of a CSV file. The first record, the header, is read at once.
    separator : str
        The character that separates fields.

    Attributes
    ----------
    names : list of str
        The fields of the header, without spaces around them.
    """

    def __init__(self, lines: Lines, separator: str) -> None:
        self._lines = lines
        self._reader = _CSV.reader(
            iter(lines.read, ""), delimiter=separator, strict=True, skipinitialspace=True
        )
        self._empty: deque[int] = deque()
        self._found: Record | DataError | None = None
        self._width = 0
        try:
            _, header = next(self)
        except StopIteration:
            raise DataError(
                f"{lines.source}: must have the names of columns, got an empty file"
            ) from None
        self._width = len(header)
        self.names = [name.strip() for name in header]

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Record:
        if self._found is None:
            self._found = self._read()
        if self._empty:
            raise DataError(f"{self._lines.place(self._empty.popleft())}: must not be empty")
        found, self._found = self._found, None
        if isinstance(found, DataError):
            raise found
        return found

    def _read(self) -> Record | DataError:
        """Read the next record, and the numbers of the empty lines before it."""
        while True:
            self._lines.start_record()
            line = self._lines.number + 1
            try:
                record: list[str] = next(self._reader)
            except _CSV.Error as error:
                return DataError(f"{self._lines.place(line)}: {_explained(error)}")
            except DataError as error:
                return error
            except StopIteration:
                self._empty.clear()  # those at the end do not count
                raise
            if record:
                return self._wrong_width(line, record) or (line, record)
            self._empty.append(line)

    def _wrong_width(self, line: int, record: Sequence[str]) -> DataError | None:
        """Return the error of a record with another number of fields than the header."""
        if not self._width or len(record) == self._width:
            return None
        fields = "1 field" if self._width == 1 else f"{self._width} fields"
        return DataError(
            f"{self._lines.place(line)}: must have {fields}, as the header has, got {len(record)}"
            f"{_separator_hint(self.names)}"
        )


def _check_separator(separator: Any) -> None:
    """Raise unless a character can separate fields."""
    if not isinstance(separator, str) or len(separator) != 1 or separator in '"\r\n':
        raise ArgumentError(
            "argument 'separator' must be one character, other than a quote and a line end, "
            f"got {describe(separator)}"
        )


def _explained(error: Exception) -> str:
    """Return what is wrong with a record; in our words where those of the CSV module mislead."""
    if "new-line character" in str(error):
        return r"must have a carriage return (\r) only at the end of a line or in quotes"
    return f"must be valid CSV ({error})"


def _separator_hint(names: Sequence[str]) -> str:
    """Return how to read a header whose fields seem to be separated by another character."""
    guess = guess_separator(names)
    if guess is None:
        return ""
    shown = "tab" if guess == "\t" else guess
    return (
        f"; the fields seem to be separated by {guess!r}: pass --separator '{shown}' "
        f"(separator={guess!r})"
    )


def _column_hint(name: str, names: Sequence[str]) -> str:
    """Return the probable cause why a file has no column of a name; empty if unknown."""
    separator = _separator_hint(names)
    if separator:
        return separator
    folded = {known.casefold(): known for known in reversed(names)}
    similar = difflib.get_close_matches(name.casefold(), folded, 1)
    if similar:
        return f"; did you mean {folded[similar[0]]!r}?"
    return NO_HEADER_HINT if _seem_values(names) else ""


def _seem_values(names: Sequence[str]) -> bool:
    """Whether a header seems to be a row: all its fields are numbers, or one has a point or sign.

    A name may be a whole number, such as a year.
    """
    numbers = [name for name in names if is_number(name)]
    return len(numbers) == len(names) or not all(map(str.isdigit, numbers))


def _name_given_twice(path: str, column: int, name: str, first: int) -> DataError:
    return DataError(
        f"{locate_field(path, column, name, 1)}: must have a name of its own, "
        f"got that of column {first + 1}"
    )
