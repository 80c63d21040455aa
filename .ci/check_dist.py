"""Fail when the wheel or the source archive lacks a file, or holds one too many.

Usage: check_dist.py FOLDER, in the root of the tree that FOLDER's two archives were built from. The
wheel must hold the package and its metadata; the source archive, all that git would keep.
"""

from __future__ import annotations

import os
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

LEFT_BEHIND = ("__pycache__", "_build", "generated", "gallery_built", "build", "dist")
"""Folders that tools leave in a tree, beside those whose names begin with a dot."""

HIDDEN = (".ci", ".github")
"""Folders whose names begin with a dot, and that belong to the project."""


def files_of_tree(folder: str) -> set[str]:
    """Files below a folder of the tree, but for what tools leave behind."""
    found = set()
    for place, folders, names in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if name not in LEFT_BEHIND and (not name.startswith(".") or name in HIDDEN)
        ]
        found.update(Path(place, name).relative_to(".").as_posix() for name in names)
    return found


def compare(what: str, found: set[str], expected: set[str]) -> bool:
    """Print how two sets of files differ; return whether they do."""
    for name in sorted(expected - found):
        print(f"{what} lacks {name}")
    for name in sorted(found - expected):
        print(f"{what} should not hold {name}")
    print(f"{what}: {len(found)} files")
    return found != expected


def main() -> None:
    """Compare both archives with the tree."""
    folder = Path(sys.argv[1])
    (wheel,), (archive,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if not name.endswith("/")}
    metadata = {name for name in names if PurePosixPath(name).parts[0].endswith(".dist-info")}
    wrong = compare("the wheel", names - metadata, files_of_tree("fffcpu"))
    with tarfile.open(archive) as file:
        members = [member.name for member in file.getmembers() if member.isfile()]
    names = {name.partition("/")[2] for name in members} - {"PKG-INFO"}
    wrong |= compare("the source archive", names, files_of_tree("."))
    licences = {PurePosixPath(name).name for name in metadata if "/licenses/" in name}
    expected = {path.name for path in [Path("LICENSE"), *Path("fffcpu").rglob("*-LICENSE.txt")]}
    wrong |= compare("the wheel's licences", licences, expected)
    sys.exit(wrong)


if __name__ == "__main__":
    main()
