"""The option for the character between the fields of CSV files."""

from __future__ import annotations

from typing import Any

__all__ = ["add_separator"]

_TABS = ("tab", r"\t")
"""Names of a tab, which a shell does not pass easily."""


def add_separator(parser: Any) -> None:
    """Add the option ``--separator`` to a command's parser."""
    parser.add_argument(
        "--separator",
        type=lambda text: "\t" if text in _TABS else text,
        default=",",
        metavar="C",
        help="character between the fields of a .csv, or 'tab' (,)",
    )
