"""Documents of text from files and folders, a piece at a time.

A ``.txt`` file is one document. In a file of JSON lines (``.jsonl``) each line is one: an object
with a field of text. Both may be gzipped (``.gz``). Long documents come in pieces, so that no file
has to fit into memory.

`read_texts` reads what is short: there a line of a ``.txt`` file is a text.
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
"""What a training of ours leaves beside its model: JSON lines, but no text."""

PIECE = 1 << 16
"""About how many characters of a document come at a time."""


class Piece(NamedTuple):
    """A piece of a document."""

    file: int
    """The number of its file."""
    number: int
    """Its own number in that file, from 0."""
    text: str
    """What it holds."""
    ends_document: bool
    """Whether the document ends with it."""


def find_files(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Return the files of text among paths and in folders, those of a folder sorted by name.

    The histories of trainings that lie in a folder are left out.

    Raises
    ------
    DataError
        If a file is of another kind, or there is none in a folder.
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
        The file and the number of the piece to begin with, to go on where a reading was broken off.

    Yields
    ------
    Piece
        Each file ends with a piece that ends a document.

    Raises
    ------
    DataError
        If a line is no JSON object, or has no such field.
    OSError
        If a file cannot be read.

    Warns
    -----
    UserWarning
        If a file is not UTF-8 everywhere. What is not becomes U+FFFD, which tokenizers drop.
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
    """Read the texts of a file one after the other: sentences, messages, whatever is judged alone.

    Parameters
    ----------
    path : str
        A ``.txt`` file, of which each line is a text, empty ones too; JSON lines (``.jsonl``); or
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
        If the file is of another kind or damaged, or has a line without such a field, or no such
        column.
    OSError
        If it cannot be read.

    Warns
    -----
    UserWarning
        If the file is not UTF-8 everywhere. What is not becomes U+FFFD, which tokenizers drop.
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

    A line ends with ``\n`` or ``\r\n``. A ``\r`` alone ends none, as for ``wc -l``.
    """
    for line in stream:
        yield line.removesuffix("\n").removesuffix("\r")


def _decoded(content: Any, newline: str | None = None) -> IO[str]:
    """Return a file's text; a mark of the byte order is no part of it."""
    return io.TextIOWrapper(content, encoding="utf-8-sig", errors="replace", newline=newline)


def _warn(path: str) -> None:
    """Warn of a file that is not UTF-8 everywhere."""
    warnings.warn(
        f"{locate(path)}: is not UTF-8 everywhere; some characters are left out", stacklevel=3
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
    """Return a file's name by which its kind is told."""
    return Path(path).name.lower().removesuffix(".gz")


def _is_text(path: Path) -> bool:
    return _name(path).endswith(KINDS)


def _endings() -> str:
    return ", ".join(KINDS) + f" (or these with .gz, such as {KINDS[0]}.gz)"
