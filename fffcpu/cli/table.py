"""Tables of text, and the parts that all commands' parsers share."""

from __future__ import annotations

import argparse
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fffcpu.bounds import Bound
from fffcpu.errors import ArgumentError
from fffcpu.timing import Timing

__all__ = [
    "Commands",
    "add_command",
    "check_output",
    "format_number",
    "format_rates",
    "format_table",
]

Commands = Any
"""What ``ArgumentParser.add_subparsers`` returns; its type has no public name."""


def add_command(
    commands: Commands, name: str, summary: str, description: str
) -> argparse.ArgumentParser:
    """Register a sub-command and return its parser; the description keeps its lines."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def check_output(out: str | None, *inputs: str | None) -> None:
    """Raise if a file cannot be made there, or is an input: better told now than after the work."""
    if out is None:
        return
    present = [path for path in inputs if path is not None and os.path.exists(path)]
    if os.path.exists(out) and any(os.path.samefile(path, out) for path in present):
        raise ArgumentError(f"argument '--out' must not be one of the inputs, got '{out}'")
    folder = Path(out).parent
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    if Path(out).is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), out)


def format_number(value: float) -> str:
    """Return a positive number with about three digits, without an exponent."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{digits}f}"


def format_rates(timing: Timing, bound: Bound) -> tuple[str, str, str]:
    """Return GB/s, GFLOP/s and the fraction of the bound, or dashes where the work is unknown."""
    flops, size, fraction = timing.gigaflops, timing.gigabytes, bound.fraction(timing)
    if flops is None or size is None or fraction is None:
        return "-", "-", "-"
    return format_number(size), format_number(flops), f"{100 * fraction:.0f} %"


def format_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return lines of columns: the first flush left, the others flush right."""
    cells = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        first, *others = zip(row, widths, strict=True)
        text = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        lines.append("  ".join(text).rstrip())
    return "\n".join(lines)
