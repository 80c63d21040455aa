"""Documents of text from files and folders, in pieces.

A ``.txt`` file is one document. In a file of JSON lines (``.jsonl``) each line is one: an object
with a field of text. Both may be gzipped (``.gz``). Long documents come in pieces, so that no file
has to fit into memory.

`read_texts` reads short texts: there, each line of a ``.txt`` file is a text.
`fffcpu.data.records` defines what a line is, for files and for standard input.
"""

from __future__ import annotations

import inspect
import io
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

from fffcpu.data.files import locate, open_file
from fffcpu.data.records import (
    JsonRows,
    Lines,
    find_named,
    open_csv,
    open_lines,
    with_errors,
)
from fffcpu.errors import DataError

__all__ = [
    "Piece",
    "find_files",
    "read_documents",
    "read_lines",
    "read_texts",
    "texts_or_errors",
]

T = TypeVar("T")

KINDS = (".txt", ".jsonl")
"""Endings of files of text; each may be followed by ``.gz``."""

OWN = "*.training/history.jsonl"
"""The history that fffcpu writes next to a model: JSON lines without text."""

PIECE = 1 << 16
"""Approximate number of characters of a piece."""


class Piece(NamedTuple):
    """A piece of a document."""

    file: int
    """The number of its file."""
    number: int
    """The number of the piece in that file, from 0."""
    text: str
    """Its text."""
    ends_document: bool
    """Whether the document ends with it."""


def find_files(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Return the files of text among paths and in folders; files of a folder are sorted by name.

    Histories of training runs in a folder are left out.

    Raises
    ------
    DataError
        If a file has another format, or a folder contains no file of text.
    FileNotFoundError
        If a path does not exist.
    """
    files: list[str] = []
    for path in paths:
        place = Path(os.fsdecode(path))
        if not place.is_dir():
            place.stat()
            if not _is_text(place):
                raise DataError(f"{locate(str(place))}: must end with {_endings()}")
            files.append(str(place))
            continue
        inside = (file for file in place.rglob("*") if file.is_file() and not file.match(OWN))
        found = sorted(str(file) for file in inside if _is_text(file))
        if not found:
            raise DataError(f"folder '{place}' must hold files ending with {_endings()}, got none")
        files.extend(found)
    return files


def read_documents(
    files: Sequence[str], field: str = "text", *, start: tuple[int, int] = (0, 0)
) -> Iterator[Piece]:
    """Read the documents of files in pieces.

    Parameters
    ----------
    files : sequence of str
        From `find_files`.
    field : str
        The field of a JSON line that holds the text.
    start : (int, int)
        The numbers of the file and of the piece to start with, to continue an interrupted reading.

    Yields
    ------
    Piece
        Each file ends with a piece that ends a document.

    Raises
    ------
    DataError
        If a line is not a JSON object, or has no such field.
    OSError
        If a file cannot be read.

    Warns
    -----
    UserWarning
        If a file is not entirely UTF-8. Other bytes become U+FFFD, which tokenizers drop.
    """
    for number in range(start[0], len(files)):
        skipped = start[1] if number == start[0] else 0
        for index, (text, ends) in enumerate(_pieces_of(files[number], field)):
            if index >= skipped:
                yield Piece(number, index, text, ends)


def read_texts(path: str, field: str = "text", *, separator: str = ",") -> Iterator[str]:
    """Read the texts of a file one after the other: sentences, messages and the like.

    Parameters
    ----------
    path : str
        A ``.txt`` file, where each line is a text, also an empty one; JSON lines (``.jsonl``); or
        a CSV file with a header (``.csv``), by the rules of `fffcpu.data.records`. Each may be
        gzipped (``.gz``).
    field : str
        The field of a JSON line, or the column of the CSV file, that holds the text.
    separator : str
        The character that separates the fields of a CSV file.

    Yields
    ------
    str

    Raises
    ------
    DataError
        If the file has another format or is damaged, or a line has no such field, or there is no
        such column.
    OSError
        If it cannot be read.

    Warns
    -----
    UserWarning
        If the file is not entirely UTF-8. Other bytes become U+FFFD, which tokenizers drop.
    """
    for text in texts_or_errors(path, field, separator=separator):
        if isinstance(text, DataError):
            raise text
        yield text


def texts_or_errors(
    path: str, field: str = "text", *, separator: str = ","
) -> Iterator[str | DataError]:
    """Yield what `read_texts` yields, and in the place of a text that cannot be read its error.

    An error that leaves no text to read, such as a missing column, is raised.
    """
    name = _name(path)
    if not name.endswith((*KINDS, ".csv")):
        raise DataError(f"{locate(path)}: must end with .txt, .jsonl or .csv, or these with .gz")
    if name.endswith(".csv"):
        return _column(path, field, separator)
    return _objects(path, field) if name.endswith(".jsonl") else _lines(path)


def read_lines(stream: IO[bytes], source: str) -> Iterator[str | DataError]:
    """Yield the lines of a stream of bytes as the texts of a ``.txt`` file; it remains open.

    Parameters
    ----------
    stream : binary stream
        The lines, in UTF-8.
    source : str
        Its name, for errors.
    """
    text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="\n")
    try:
        yield from _texts_of(Lines(text, source, replace=True))
    finally:
        text.detach()


def _lines(path: str) -> Iterator[str | DataError]:
    """Yield the lines of a file."""
    with open_lines(path, replace=True) as lines:
        yield from _texts_of(lines)


def _texts_of(lines: Lines) -> Iterator[str | DataError]:
    """Yield lines without their ends."""
    for line in _with_warning(lines, lines):
        yield line.removesuffix("\n").removesuffix("\r") if isinstance(line, str) else line


def _column(path: str, column: str, separator: str) -> Iterator[str | DataError]:
    """Yield a column of a CSV file."""
    with open_csv(path, replace=True, separator=separator) as file:
        (number,) = find_named(path, file.names, [column])
        for record in _with_warning(file.records, file.lines):
            yield record if isinstance(record, DataError) else record[1][number]


def _objects(path: str, field: str) -> Iterator[str | DataError]:
    """Yield the texts of JSON lines."""
    with open_lines(path, replace=True) as lines:
        for row in _with_warning(JsonRows(lines), lines):
            if isinstance(row, DataError):
                yield row
                continue
            text = row[1].get(field)
            if isinstance(text, str):
                yield text
            else:
                yield DataError(f"{lines.place()}: must be an object with text in '{field}'")


def _with_warning(items: Iterator[T], lines: Lines) -> Iterator[T | DataError]:
    """Yield items of lines or their errors, and warn once about bytes that are not UTF-8."""
    warned = False
    for item in with_errors(items):
        if lines.replaced_on and not warned:
            _warn(lines.place(lines.replaced_on))
            warned = True
        yield item


def _warn(place: str) -> None:
    """Warn about bytes that are not UTF-8, on behalf of whoever called this module."""
    frame, depth = inspect.currentframe(), 1
    while frame is not None and frame.f_globals is globals():
        frame, depth = frame.f_back, depth + 1
    message = f"{place}: is not entirely UTF-8; some characters are left out"
    warnings.warn(message, stacklevel=depth)


def _pieces_of(path: str, field: str) -> Iterator[tuple[str, bool]]:
    """Yield the pieces of a file's documents, and whether a document ends with them."""
    if not _name(path).endswith(".jsonl"):
        yield from _pieces(path)
        return
    for text in _objects(path, field):
        if isinstance(text, DataError):
            raise text
        yield text, True


def _pieces(path: str) -> Iterator[tuple[str, bool]]:
    """Yield a document's pieces, each of whole lines unless a line is long."""
    held, warned = "", False
    with (
        open_file(path) as opened,
        io.TextIOWrapper(opened.content, encoding="utf-8-sig", errors="replace") as stream,
    ):
        while line := stream.readline(PIECE):
            if not warned and "\ufffd" in line:
                _warn(locate(path))
                warned = True
            if held and len(held) + len(line) > PIECE:
                yield held, False
                held = ""
            held += line
    yield held, True


def _name(path: str | Path) -> str:
    """Return a file's name without ``.gz``, which gives its format."""
    return Path(path).name.lower().removesuffix(".gz")


def _is_text(path: Path) -> bool:
    return _name(path).endswith(KINDS)


def _endings() -> str:
    return ", ".join(KINDS) + f" (or these with .gz, such as {KINDS[0]}.gz)"
