"""Runs on texts: the arguments that their benchmarks share, and results as JSON files."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.command import new_parser
from fffcpu.system.files import write_atomically

__all__ = ["read_result", "text_parser", "write_result"]


def text_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the folders of texts and runs."""
    parser = new_parser(description)
    parser.add_argument(
        "texts", metavar="TEXTS", type=Path, help="folder that benchmarks.data.texts wrote"
    )
    parser.add_argument("runs", metavar="RUNS", type=Path, help="folder of models and results")
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    return parser


def read_result(path: Path) -> dict[str, Any]:
    """Return the figures of a run."""
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return figures


def write_result(path: Path, figures: dict[str, Any]) -> None:
    """Write the figures of a run, whole or not at all."""
    with write_atomically(path) as temporary:
        Path(temporary).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
