"""The command line that both modules of this folder share, and the files of packages."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.command import new_parser
from fffcpu.system.terminal import print_status

__all__ = ["find_file", "parse_folders"]


def parse_folders(description: str | None) -> argparse.Namespace:
    """Return the folders of the command line, ``folder`` and ``out``, which is made."""
    parser = new_parser(description)
    parser.add_argument("folder", metavar="DIR", type=Path, help="folder of the unpacked packages")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write to")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def find_file(folder: Path, name: str) -> Path | None:
    """Return a file of this name anywhere in a folder, or None, and print that it is left out."""
    found = next(iter(sorted(folder.rglob(name))), None)
    if found is None:
        print_status(f"no {name} in {folder}: left out")
    return found
