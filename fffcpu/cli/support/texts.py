"""The texts that commands take: from files, from standard input, or as arguments.

A text that cannot be read, or that a model cannot take, is named on standard error. It keeps its
place among the answers and does not hide the others, unless ``--strict`` is given.
"""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

from fffcpu.cli.support.results import print_cut
from fffcpu.cli.support.separator import add_separator
from fffcpu.errors import ArgumentError, DataError
from fffcpu.system.terminal import print_status

__all__ = [
    "ENDINGS",
    "FILES",
    "Answer",
    "TextAnswers",
    "add_fields",
    "add_strict",
    "add_texts",
    "count_texts",
    "open_texts",
]

ResultT = TypeVar("ResultT")

ENDINGS = """\
texts:
  .txt    one text per line
  .jsonl  one object per line, with its text in --field
  .csv    a header, then one record per text; --field names the column
"""

FILES = f"""\
{ENDINGS}\
  -       standard input, one text per line
  Files may be gzipped (.gz). All are UTF-8. Lines end with a line feed, as wc -l counts. A text
  beyond the model's longest text is cut; how many were cut is reported.

errors: a text that cannot be read is named on standard error and keeps its place in the output;
then the exit status is 1. With --strict the first such text ends the command.
"""


def add_texts(parser: Any, **more: Any) -> None:
    """Add the argument that names a file of texts, and its options."""
    parser.add_argument(
        "texts",
        metavar="TEXTS",
        help="a .txt, .jsonl or .csv file, or - for standard input",
        **more,
    )
    add_fields(parser)
    add_strict(parser)


def add_fields(parser: Any) -> None:
    """Add the options that say where the texts stand in JSON lines and in a .csv."""
    parser.add_argument(
        "--field",
        default="text",
        metavar="F",
        help="field of JSON lines or column of a .csv (text)",
    )
    add_separator(parser)


def add_strict(parser: Any) -> None:
    """Add the option that ends a command at the first text with an error."""
    parser.add_argument(
        "--strict", action="store_true", help="end at the first text that has an error"
    )


def open_texts(path: str, field: str, separator: str = ",") -> Iterator[str | DataError]:
    """Return the texts of a file or, for ``-``, the lines of standard input.

    In the place of a text that cannot be read stands its error.
    """
    from fffcpu.text.documents import read_lines, texts_or_errors

    if path != "-":
        return texts_or_errors(path, field, separator=separator)
    if sys.stdin is None:
        raise ArgumentError("standard input must be open, got a closed one")
    return read_lines(sys.stdin.buffer, "standard input")


def count_texts(options: argparse.Namespace) -> int | None:
    """Count the texts of a file before the work; None for ``-``.

    Raises the first error of a text if none of the texts can be read, or with ``--strict``.
    """
    if options.texts == "-":
        return None
    total, first, readable = 0, None, False
    for item in open_texts(options.texts, options.field, options.separator):
        total += 1
        if isinstance(item, DataError):
            first = first or item
            if options.strict:
                break
        else:
            readable = True
    if first is not None and (options.strict or not readable):
        raise first
    return total


class Answer(NamedTuple):
    """What there is for a text."""

    text: str | None
    """The text, if it can be read."""
    result: Any
    """The result of the model; None after an error."""
    error: str | None = None
    """What is wrong with the text."""


class TextAnswers:
    """The answers to texts, in their order, errors included. Errors are printed as they come.

    Parameters
    ----------
    items : iterable
        Texts, and errors in the place of those that cannot be read.
    stream : callable
        Takes the readable texts and returns the pipeline's `Results`, which may include errors.
    strict : bool
        Whether the first error is raised.
    place : str
        What comes before the number of a text in messages, such as ``"text"``.

    Attributes
    ----------
    texts, errors : int
        Numbers of texts, and of errors among them, so far.
    """

    def __init__(
        self,
        items: Iterable[str | DataError],
        stream: Callable[[Iterator[str]], Any],
        *,
        strict: bool,
        place: str = "text",
    ) -> None:
        self.texts = self.errors = 0
        self._waiting: deque[str | DataError] = deque()
        self._items, self._strict, self._place = items, strict, place
        self._results = stream(self._readable())

    def __iter__(self) -> Iterator[Answer]:
        """Yield an answer for each text."""
        for result in self._results:
            yield from self._unreadable()
            text = str(self._waiting.popleft())
            if isinstance(result, ArgumentError):
                yield self._failed(text, f"{self._place} {self.texts + 1}: {result}", result)
            else:
                self.texts += 1
                yield Answer(text, result)
        yield from self._unreadable()

    @property
    def figures(self) -> dict[str, int]:
        """Numbers for a report, by name."""
        cut = {"cut": self._results.cut, "longest": self._results.length}
        return {"texts": self.texts, "errors": self.errors, **cut}

    def finish(self) -> None:
        """Report on standard error how many texts were cut; raise if there were errors."""
        print_cut(self._results.cut, self.texts, self._results.length)
        if self.errors:
            has = "has" if self.errors == 1 else "have"
            raise DataError(
                f"{self.errors:,} of {self.texts:,} texts {has} an error and no answer "
                "(--strict ends at the first)"
            )

    def _readable(self) -> Iterator[str]:
        for item in self._items:
            self._waiting.append(item)
            if isinstance(item, str):
                yield item

    def _unreadable(self) -> Iterator[Answer]:
        """Yield answers for the errors that come before the next text."""
        while self._waiting and isinstance(error := self._waiting[0], DataError):
            self._waiting.popleft()
            yield self._failed(None, str(error), error)

    def _failed(self, text: str | None, message: str, error: ValueError) -> Answer:
        """Count and print an error, or raise it."""
        if self._strict:
            raise DataError(message) from error
        print_status(f"fffcpu: {message}")
        self.texts += 1
        self.errors += 1
        return Answer(text, None, message)
