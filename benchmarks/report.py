"""Results as people read them: tables in Markdown, facts, lines of progress."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence

__all__ = ["facts", "print_progress", "table"]


def facts(values: Mapping[str, object]) -> str:
    """Return names and values on one line."""
    return ", ".join(f"{name} {value}" for name, value in values.items())


def table(head: Sequence[str], rows: Iterable[Iterable[object]]) -> list[str]:
    """Return the lines of a table."""
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(map(str, line))} |" for line in lines]


def print_progress(text: str) -> None:
    """Print a line to standard error, where it does not mix with results."""
    print(text, file=sys.stderr, flush=True)
