"""Files that appear whole or not at all, and JSON that is read strictly.

::

    target.json                 what readers see: the old file, or the new one
    .fffcpu-1f0e9a...tmp        the new one while it is written, in the same folder
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fffcpu.errors import CheckpointError, describe

__all__ = [
    "TEMPORARY",
    "is_regular",
    "named_errors",
    "open_regular",
    "parse_json",
    "read_json",
    "write_atomically",
    "write_text",
]

TEMPORARY = ".fffcpu-*.tmp"
"""Pattern of the names that files have until they are whole. One stays if the process is killed."""


@contextlib.contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary file to write, which replaces ``path`` if the block succeeds.

    The temporary file is made, empty, in the folder of ``path`` under a name of its own. After the
    block it is flushed to the disk, gets the permissions of the file that it replaces, or of a new
    one, and is renamed. If the block raises, it is removed and ``path`` stays as it was. A symbolic
    link is followed. Other readers see the old file or the new one, never a part.

    Parameters
    ----------
    path : str or path
        The file to write or replace.

    Yields
    ------
    Path
        The temporary file; the block may write to it or replace it.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If the folder does not exist or is none.
    IsADirectoryError
        If ``path`` is a folder.
    FileExistsError
        If ``path`` is a device, a pipe or the like.
    PermissionError
        If ``path`` is read-only, or its folder is.
    """
    target = Path(os.path.realpath(os.fsdecode(path)))
    _check_target(target)
    temporary = target.with_name(TEMPORARY.replace("*", os.urandom(8).hex()))
    mode = _create(temporary, target)
    try:
        yield temporary
        _flush(temporary, mode)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _flush_folder(target.parent)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text in UTF-8 to a file, by `write_atomically`."""
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def is_regular(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a regular file, which a pipe or a device is not.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        If it does not exist or is a folder.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fsdecode(path))
    return stat.S_ISREG(mode)


def open_regular(path: str | os.PathLike[str]) -> io.BufferedReader:
    """Open a regular file for reading; a pipe is not waited for.

    Raises
    ------
    CheckpointError
        If it is a pipe, a device or the like; the message is worded to follow the file's name.
    FileNotFoundError, IsADirectoryError
        If it does not exist or is a folder.
    """
    if not is_regular(path):
        raise CheckpointError("is not a regular file")
    return open(path, "rb")


@contextlib.contextmanager
def named_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Context that puts a file's name before the CheckpointErrors that are worded to follow it."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"file {os.fsdecode(path)!r} {error}") from error.__cause__


def parse_json(text: bytes | str, what: str) -> Any:
    """Return the value of a JSON text in which no object has the same key twice.

    With a key given twice it would depend on the reader which of the two counts.

    Parameters
    ----------
    text : bytes or str
        The JSON text.
    what : str
        What errors call it, after the file's name: ``"its header"``.

    Raises
    ------
    CheckpointError
        If it is not such a text; the message is worded to follow the file's name.
    """
    repeated: list[str] = []

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, value in pairs:
            if name in values:
                repeated.append(name)
            values[name] = value
        return values

    try:
        value = json.loads(text, object_pairs_hook=collect)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"is damaged: {what} is not valid JSON ({error})") from error
    if repeated:
        raise CheckpointError(f"is damaged: {what} has {describe(repeated[0])} more than once")
    return value


def read_json(path: str | os.PathLike[str]) -> Any:
    """Return the value of a file of JSON in UTF-8, as `parse_json` does.

    Raises
    ------
    CheckpointError
        If the file holds something else; the message names it.
    OSError
        If it cannot be read.
    """
    with named_errors(path):
        try:
            text = Path(os.fsdecode(path)).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise CheckpointError("is damaged: it is not UTF-8") from error
        return parse_json(text, "it")


def _check_target(target: Path) -> None:
    """Raise unless a file can be made or replaced at a path whose links are resolved."""
    if not target.parent.is_dir():
        code = errno.ENOTDIR if target.parent.exists() else errno.ENOENT
        raise OSError(code, os.strerror(code), str(target.parent))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if target.exists():
        if not target.is_file():
            raise FileExistsError(errno.EEXIST, "Exists and is not a regular file", str(target))
        if not os.access(target, os.W_OK):
            # A rename would need no permission to write to the file, but the owner withheld it.
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))


def _create(temporary: Path, target: Path) -> int:
    """Make an empty file; return the permissions that it, or the target if it exists, has."""
    try:
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from error
    try:
        status = target.stat() if target.exists() else os.fstat(descriptor)
        return stat.S_IMODE(status.st_mode)
    finally:
        os.close(descriptor)


def _flush(path: Path, mode: int) -> None:
    """Set a file's permissions and wait until its bytes are on the disk."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        # By name: the block may have put another file, with other permissions, in the place.
        os.chmod(path, mode)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    """Wait until a rename in a folder is on the disk, where the system has a way to."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
