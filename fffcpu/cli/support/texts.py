"""The texts that commands take: from files or from standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from fffcpu.errors import ArgumentError

__all__ = ["add_texts", "count_texts", "open_texts", "standard_input"]


def add_texts(parser: Any, **more: Any) -> None:
    """Add the argument that names a file of texts, and its options."""
    parser.add_argument(
        "texts",
        metavar="TEXTS",
        help="a .txt, .jsonl or .csv file, or - for standard input",
        **more,
    )
    parser.add_argument(
        "--field",
        default="text",
        metavar="F",
        help="field of JSON lines or column of a .csv (text)",
    )


def open_texts(path: str, field: str) -> Iterable[str]:
    """Return the texts of a file, or the lines of standard input for ``-``."""
    from fffcpu.text import read_texts

    return standard_input() if path == "-" else read_texts(path, field)


def count_texts(path: str, field: str) -> int | None:
    """Count the texts of a file, which also finds its errors; None for ``-``."""
    return None if path == "-" else sum(1 for _ in open_texts(path, field))


def standard_input() -> Iterator[str]:
    """Yield the lines of standard input."""
    from fffcpu.text.documents import text_lines

    try:
        yield from text_lines(sys.stdin)
    except UnicodeDecodeError as error:
        raise ArgumentError(
            f"standard input must be text in {error.encoding}, got {error}"
        ) from error
