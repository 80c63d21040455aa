"""Results as people read them: tables in Markdown, and facts on one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

__all__ = ["facts", "table"]


def facts(values: Mapping[str, object]) -> str:
    """Return names and values on one line."""
    return ", ".join(f"{name} {value}" for name, value in values.items())


def table(head: Sequence[str], rows: Iterable[Iterable[object]]) -> list[str]:
    """Return the lines of a table."""
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(map(str, line))} |" for line in lines]
