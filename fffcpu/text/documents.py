"""Documents of text from files and folders, in pieces.

A ``.txt`` file is one document. In a file of JSON lines (``.jsonl``) each line is one: an object
with a field of text. Both may be gzipped (``.gz``). Long documents come in pieces, so that no file
has to fit into memory.

`read_texts` reads short texts: there, each line of a ``.txt`` file is a text.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from fffcpu.data.files import locate, open_file
from fffcpu.data.records import find_columns, json_rows, open_csv
from fffcpu.errors import DataError

__all__ = ["Piece", "find_files", "read_documents", "read_texts", "text_lines"]

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
        with open_file(files[number]) as opened:
            stream = _decoded(opened.content)
            lines = _name(files[number]).endswith(".jsonl")
            pieces = _lines(stream, files[number], field) if lines else _pieces(stream)
            told = False
            for index, (text, ends) in enumerate(pieces):
                if not told and "\ufffd" in text:
                    _warn(files[number])
                    told = True
                if index >= skipped:
                    yield Piece(number, index, text, ends)


def read_texts(path: str, field: str = "text") -> Iterator[str]:
    """Read the texts of a file one after the other: sentences, messages and the like.

    Parameters
    ----------
    path : str
        A ``.txt`` file, where each line is a text, also an empty one; JSON lines (``.jsonl``); or
        a CSV file with a header (``.csv``), by the rules of `fffcpu.data.records`. Each may be
        gzipped (``.gz``).
    field : str
        The field of a JSON line, or the column of the CSV file, that holds the text.

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
    name = _name(path)
    if not name.endswith((*KINDS, ".csv")):
        raise DataError(f"{locate(path)}: must end with .txt, .jsonl or .csv, or these with .gz")
    texts = _column(path, field) if name.endswith(".csv") else _lines_or_objects(path, field)
    warned = False
    for text in texts:
        if not warned and "\ufffd" in text:
            _warn(path)
            warned = True
        yield text


def text_lines(stream: IO[str]) -> Iterator[str]:
    r"""Yield the lines of a stream that does not translate line ends; each is a text.

    A line ends with ``\n`` or ``\r\n``. A ``\r`` alone does not end a line, as for ``wc -l``.
    """
    for line in stream:
        yield line.removesuffix("\n").removesuffix("\r")


def _decoded(content: Any, newline: str | None = None) -> IO[str]:
    """Return a file's text, without a byte-order mark."""
    return io.TextIOWrapper(content, encoding="utf-8-sig", errors="replace", newline=newline)


def _warn(path: str) -> None:
    """Warn about a file that is not entirely UTF-8."""
    warnings.warn(
        f"{locate(path)}: is not entirely UTF-8; some characters are left out", stacklevel=3
    )


def _column(path: str, column: str) -> Iterator[str]:
    """Yield a column of a CSV file."""
    with open_csv(path, replace=True) as file:
        (number,) = find_columns(path, file.names, [column])
        for _, fields in file.records:
            yield fields[number]


def _lines_or_objects(path: str, field: str) -> Iterator[str]:
    """Yield the lines of a file of text, or the texts of JSON lines."""
    objects = _name(path).endswith(".jsonl")
    with (
        open_file(path) as opened,
        _decoded(opened.content, newline=None if objects else "\n") as stream,
    ):
        if objects:
            yield from (text for text, _ in _lines(stream, path, field))
        else:
            yield from text_lines(stream)


def _pieces(stream: IO[str]) -> Iterator[tuple[str, bool]]:
    """Yield a document's pieces, each of whole lines unless a line is long."""
    held = ""
    while line := stream.readline(PIECE):
        if held and len(held) + len(line) > PIECE:
            yield held, False
            held = ""
        held += line
    yield held, True


def _lines(stream: IO[str], path: str, field: str) -> Iterator[tuple[str, bool]]:
    """Yield the documents of JSON lines."""
    for number, row in json_rows(stream, path):
        text = row.get(field)
        if not isinstance(text, str):
            raise DataError(
                f"{locate(path, f'line {number}')}: must be an object with text in '{field}'"
            )
        yield text, True


def _name(path: str | Path) -> str:
    """Return a file's name without ``.gz``, which gives its format."""
    return Path(path).name.lower().removesuffix(".gz")


def _is_text(path: Path) -> bool:
    return _name(path).endswith(KINDS)


def _endings() -> str:
    return ", ".join(KINDS) + f" (or these with .gz, such as {KINDS[0]}.gz)"
