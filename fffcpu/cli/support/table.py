"""Tables of text, and the parts that all commands' parsers share."""

from __future__ import annotations

import argparse
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fffcpu.benchmarking.roofline import Roofline
from fffcpu.benchmarking.timing import Timing
from fffcpu.errors import ArgumentError

__all__ = [
    "Commands",
    "add_command",
    "check_folder",
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


def check_folder(out: str, *inputs: str, name: str = "--out") -> Path:
    """Return a folder to write a model to, if it can be made, or holds nothing but another model.

    Raises if it is an input, as `check_output` does; ``name`` is the argument's.
    """
    path = Path(out)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"'{out}' must be a folder, or not exist yet, got a file")
    if path.is_dir() and any(os.path.samefile(folder, path) for folder in inputs):
        raise ArgumentError(f"argument '{name}' must not be one of the inputs, got '{out}'")
    if path.is_dir() and any(path.iterdir()) and not (path / "config.json").exists():
        raise ArgumentError(
            f"argument '{name}' must be a new folder or one of a model, got '{out}'"
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(f"folder '{path.parent}' does not exist")
    return path


def format_number(value: float) -> str:
    """Return a positive number with about three digits, without an exponent."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{digits}f}"


def format_rates(timing: Timing, roofline: Roofline) -> tuple[str, str, str]:
    """Return GB/s, GFLOP/s and the fraction of the roofline, or dashes for unknown work."""
    flops, size, fraction = timing.gigaflops, timing.gigabytes, roofline.fraction(timing)
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
