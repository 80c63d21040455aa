"""Checks of the files and folders that a command writes, and the tokenizer that it copies."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

from fffcpu.errors import ArgumentError
from fffcpu.system.files import TEMPORARY

__all__ = ["check_folder", "check_output", "read_tokenizer", "report_tokenizer"]


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


def read_tokenizer(source: Path) -> dict[str, str]:
    """Return the text of the tokenizer in a folder by its name; empty if there is none."""
    from fffcpu.text.tokenizer import TOKENIZER_FILE

    path = source / TOKENIZER_FILE
    return {TOKENIZER_FILE: path.read_text(encoding="utf-8")} if path.is_file() else {}


def report_tokenizer(place: Path, files: Mapping[str, str]) -> str:
    """Report the tokenizer that was copied, or delete the one of the replaced model."""
    from fffcpu.text.tokenizer import TOKENIZER_FILE

    if TOKENIZER_FILE in files:
        return f"tokenizer: '{TOKENIZER_FILE}' is copied"
    (place / TOKENIZER_FILE).unlink(missing_ok=True)
    return f"tokenizer: IN has no '{TOKENIZER_FILE}', which the commands for texts need"
