"""Files that are written completely or not at all, and strict reading of JSON.

::

    target.json                 what readers see: the old file or the new one
    .fffcpu-1f0e9a...tmp        the new file while it is written, in the same folder
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fffcpu.errors import CheckpointError, describe
from fffcpu.system.memory import format_bytes

__all__ = [
    "NO_SPACE",
    "TEMPORARY",
    "append_line",
    "check_disk",
    "is_regular",
    "named_errors",
    "open_regular",
    "parse_json",
    "read_json",
    "write_atomically",
    "write_in_folder",
    "write_text",
    "write_together",
]

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of the errors of a disk or a quota that is full, and of a limit of the size of files."""

TEMPORARY = ".fffcpu-*.tmp"
"""Pattern of the names of incomplete files. One remains if the process is killed."""


@contextlib.contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary file to write, which replaces ``path`` if the block succeeds.

    The temporary file is created, empty, in the folder of ``path`` under a unique name. After the
    block it is flushed to the disk, gets the permissions of the file that it replaces or of a new
    file, and is renamed. If the block raises, it is removed and ``path`` is not changed. A symbolic
    link is followed. Other readers see the old file or the new one, never a part of it.

    Parameters
    ----------
    path : str or path
        File to write or replace.

    Yields
    ------
    Path
        Temporary file; the block may write to it or replace it.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If the folder does not exist or is not a folder.
    IsADirectoryError
        If ``path`` is a folder.
    FileExistsError
        If ``path`` is a device, a pipe or similar.
    PermissionError
        If ``path`` or its folder is read-only.
    """
    with write_together(path) as (temporary,):
        yield temporary


@contextlib.contextmanager
def write_together(*paths: str | os.PathLike[str]) -> Iterator[list[Path]]:
    """Yield a temporary file for each path, all of which replace them if the block succeeds.

    Like `write_atomically`, for files that belong together. None is renamed before all are written
    and on the disk, so an error leaves all old files. Only a process that ends between two renames
    leaves some new and some old ones.
    """
    targets = [Path(os.path.realpath(os.fsdecode(path))) for path in paths]
    for target in targets:
        _check_target(target)
    temporaries = [
        target.with_name(TEMPORARY.replace("*", os.urandom(8).hex())) for target in targets
    ]
    try:
        modes = list(map(_create, temporaries, targets))
        yield temporaries
        for temporary, mode in zip(temporaries, modes, strict=True):
            _flush(temporary, mode)
        for temporary, target in zip(temporaries, targets, strict=True):
            os.replace(temporary, target)
    except OSError as error:
        written = _written(error, dict(zip(map(str, temporaries), targets, strict=True)))
        if written is None:
            raise
        raise OSError(error.errno, error.strerror, str(written)) from error
    finally:
        for temporary in temporaries:
            with contextlib.suppress(OSError):
                temporary.unlink()
    for folder in {target.parent for target in targets}:
        _flush_folder(folder)


@contextlib.contextmanager
def write_in_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a folder to write to, which appears under its name with all of its files.

    A folder that exists is yielded itself. Another one is made under a temporary name, and renamed
    if the block succeeds.

    Parameters
    ----------
    path : str or path
        The folder; folders above it are made if they are missing.

    Yields
    ------
    Path
        The folder.

    Raises
    ------
    OSError
        If a folder cannot be made.
    """
    target = Path(os.path.realpath(os.fsdecode(path)))
    if target.exists():
        yield target
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(TEMPORARY.replace("*", os.urandom(8).hex()))
    temporary.mkdir()
    try:
        yield temporary
        os.rename(temporary, target)
    except OSError as error:
        name = os.fsdecode(error.filename or "")
        if not name.startswith(str(temporary)):
            raise
        name = str(target) + name.removeprefix(str(temporary))
        raise OSError(error.errno, error.strerror, name) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _flush_folder(target.parent)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text to a file in UTF-8, with `write_atomically`."""
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def append_line(path: str | os.PathLike[str], line: str) -> None:
    """Add a line to the end of a file of UTF-8, which is created if it is missing.

    If the disk is full, the file stays as it was.

    Raises
    ------
    OSError
        If the line cannot be written.
    """
    data = f"{line}\n".encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        length = os.fstat(descriptor).st_size
        try:
            while data:
                data = data[os.write(descriptor, data) :]
        except OSError as error:
            os.ftruncate(descriptor, length)
            raise OSError(error.errno, error.strerror, os.fsdecode(path)) from error
    finally:
        os.close(descriptor)


def is_regular(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a regular file; a pipe or a device is not.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        If the path does not exist or is a folder.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fsdecode(path))
    return stat.S_ISREG(mode)


def open_regular(path: str | os.PathLike[str]) -> io.BufferedReader:
    """Open a regular file for reading; a pipe raises an error instead of blocking.

    Raises
    ------
    CheckpointError
        If the path is a pipe, a device or similar; the file's name must precede the message.
    FileNotFoundError, IsADirectoryError
        If the path does not exist or is a folder.
    """
    if not is_regular(path):
        raise CheckpointError("is not a regular file")
    return open(path, "rb")


def check_disk(folder: str | os.PathLike[str], nbytes: int, what: str) -> None:
    """Raise unless the disk has room for the files of a folder; call it before long work.

    Parameters
    ----------
    folder : path
        The folder, which need not exist. Its files will be replaced, and count as room.
    nbytes : int
        Bytes that the files will take.
    what : str
        What needs them, in the words of errors.

    Raises
    ------
    OSError
        If there is too little; its number is that of a full disk.
    """
    place = Path(os.fsdecode(folder)).absolute()
    held = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    disk = next(parent for parent in (place, *place.parents) if parent.exists())
    room = shutil.disk_usage(disk).free + held
    if nbytes > room:
        raise OSError(
            errno.ENOSPC,
            f"{what} needs {format_bytes(nbytes)} in folder '{folder}', but its disk has room for "
            f"only {format_bytes(room)}",
        )


@contextlib.contextmanager
def named_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Context that puts a file's name before CheckpointErrors that are worded to follow it."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"file {os.fsdecode(path)!r} {error}") from error.__cause__


def parse_json(text: bytes | str, what: str) -> Any:
    """Return the value of a JSON text in which no object has the same key twice.

    Readers differ in which value of a repeated key they use, so such a text is an error.

    Parameters
    ----------
    text : bytes or str
        The JSON text.
    what : str
        Name of the text in errors, after the file's name: ``"its header"``.

    Raises
    ------
    CheckpointError
        If it is not such a text; the file's name must precede the message.
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
        If the file holds anything else; the message names the file.
    OSError
        If the file cannot be read.
    """
    with named_errors(path):
        try:
            text = Path(os.fsdecode(path)).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise CheckpointError("is damaged: it is not UTF-8") from error
        return parse_json(text, "it")


def _written(error: OSError, targets: dict[str, Path]) -> Path | None:
    """Return the file that was being written when an error came, given those of temporary files."""
    if error.filename is not None:
        return targets.get(os.fsdecode(error.filename))
    # An error of writing to an open file has no name.
    return next(iter(targets.values())) if error.errno in NO_SPACE else None


def _check_target(target: Path) -> None:
    """Raise unless a file can be created or replaced at a path whose links are resolved."""
    if not target.parent.is_dir():
        code = errno.ENOTDIR if target.parent.exists() else errno.ENOENT
        raise OSError(code, os.strerror(code), str(target.parent))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if target.exists():
        if not target.is_file():
            raise FileExistsError(errno.EEXIST, "Exists and is not a regular file", str(target))
        if not os.access(target, os.W_OK):
            # A rename works without permission to write to the file, but the owner denied it.
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))


def _create(temporary: Path, target: Path) -> int:
    """Create an empty file; return its permissions, or those of the target if that exists."""
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
    """Set a file's permissions and wait until its contents are on the disk."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        # By name: the block may have replaced the file by one with other permissions.
        os.chmod(path, mode)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    """Wait until a rename in a folder is on the disk, if the system supports this."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
