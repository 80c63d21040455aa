"""Lines of CSV files and of JSON lines, with their numbers, as mappings of names to values."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from typing import Any

from fffcpu.data.files import locate
from fffcpu.errors import DataError

__all__ = ["csv_rows", "json_rows"]

Row = tuple[int, dict[Any, Any]]


def csv_rows(stream: Iterable[str], path: str) -> Iterator[Row]:
    """Yield the rows of a CSV file with a header; ``path`` is for complaints."""
    reader = csv.DictReader(stream, strict=True)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        # The broken row begins after the last whole one, and may have taken all that follows.
        where = locate(path, f"line {reader.line_num + 1}")
        raise DataError(f"{where}: {error}") from error


def json_rows(stream: Iterable[str], path: str) -> Iterator[Row]:
    """Yield the objects of JSON lines, blank ones left out; what is no object counts as empty."""
    for number, line in enumerate(stream, 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                where = locate(path, f"line {number}")
                raise DataError(f"{where}: must be JSON ({error})") from error
            yield number, row if isinstance(row, dict) else {}
