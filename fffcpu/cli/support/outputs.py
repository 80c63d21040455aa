"""Checks of the files and folders that a command writes, before its work."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from fffcpu.errors import ArgumentError
from fffcpu.system.files import TEMPORARY

__all__ = ["check_folder", "check_output"]


def check_output(out: str | None, *inputs: str | None, name: str = "--out") -> None:
    """Raise if the file cannot be created or is an input; ``name`` is the argument's name."""
    if out is None:
        return
    present = [path for path in inputs if path is not None and os.path.exists(path)]
    if os.path.exists(out) and any(os.path.samefile(path, out) for path in present):
        raise ArgumentError(f"argument '{name}' must not be one of the inputs, got '{out}'")
    folder = Path(out).parent
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    if Path(out).is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), out)


def check_folder(out: str, *inputs: str, name: str = "--out") -> Path:
    """Return a folder to write a model to: a new one, an empty one or that of another model.

    Raises if it is an input, as `check_output` does; ``name`` is the argument's name.
    """
    path = Path(out)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"'{out}' must be a folder or a new path, got a file")
    if path.is_dir() and any(os.path.samefile(folder, path) for folder in inputs):
        raise ArgumentError(f"argument '{name}' must not be one of the inputs, got '{out}'")
    present = path.is_dir() and any(not file.match(TEMPORARY) for file in path.iterdir())
    if present and not (path / "config.json").exists():
        raise ArgumentError(
            f"argument '{name}' must be a new folder or a model's folder, got '{out}'"
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(f"folder '{path.parent}' does not exist")
    return path
