"""Files of data: opened, unpacked if they are gzipped, and named in errors."""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from fffcpu.errors import DataError
from fffcpu.system.files import is_regular

__all__ = ["MOST_UNPACKED", "OpenFile", "check_regular", "locate", "open_file"]

GZIP_MAGIC = b"\x1f\x8b"

MOST_UNPACKED = 1032
"""Most bytes that one packed byte can expand to: a limit of DEFLATE, the method of gzip and zip."""


class OpenFile(NamedTuple):
    """An open file."""

    content: io.BufferedReader | gzip.GzipFile
    """Its bytes, unpacked if it is gzipped."""
    raw: io.BufferedReader
    """The file itself; its position gives the number of bytes read."""
    gzipped: bool
    """Whether the file is gzipped."""


def locate(path: str, *parts: str) -> str:
    """Return the start of an error message, such as ``"file 'a.csv', line 7"``."""
    return ", ".join([f"file {path!r}", *parts])


def check_regular(path: str) -> None:
    """Raise unless a path is a regular file: a pipe can be read only once.

    Raises
    ------
    DataError
        If it is a pipe, a device or the like.
    FileNotFoundError, IsADirectoryError
        If it does not exist, or is a folder.
    """
    if not is_regular(path):
        raise DataError(f"{locate(path)}: must be a regular file, got a pipe or a device")


@contextlib.contextmanager
def open_file(path: str) -> Iterator[OpenFile]:
    """Open a file; its first bytes show whether it is gzipped.

    Raises
    ------
    DataError
        If it is not a regular file, or is a damaged gzip file; also raised while it is read.
    """
    check_regular(path)
    with open(path, "rb") as raw:
        gzipped = raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        raw.seek(0)
        if not gzipped:
            yield OpenFile(raw, raw, gzipped)
            return
        try:
            with gzip.GzipFile(fileobj=raw, mode="rb") as content:
                yield OpenFile(content, raw, gzipped)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(
                f"{locate(path)}: must be a whole gzip file, got a damaged one ({error})"
            ) from error
