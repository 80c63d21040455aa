"""Results as JSON lines: one record per run, appended when the run ends. No run is done twice.

A process may be killed while it writes. Its unfinished line is ignored, and removed when the next
record is appended.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["Record", "append_records", "read_records"]

Record = dict[str, Any]


def read_records(path: Path) -> list[Record]:
    """Return the records of a file, or none if there is no file."""
    return [json.loads(line) for line in _whole_lines(path).splitlines()]


def append_records(path: Path, records: Iterable[Record]) -> None:
    """Append records, all of them in one write."""
    os.truncate(path, len(_whole_lines(path))) if path.exists() else path.touch()
    with open(path, "a", encoding="utf-8") as file:
        file.write("".join(json.dumps(record) + "\n" for record in records))


def _whole_lines(path: Path) -> bytes:
    """Return the bytes of a file up to the end of its last whole line."""
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1]
