"""NumPy's own files: .npy, one array, memory-mapped; .npz, a zip archive of arrays, read whole.

Arrays of objects are pickles, which can run any code when they are opened, so they are rejected.
"""

from __future__ import annotations

import io
import lzma
import math
import os
import struct
import tokenize
import zipfile
import zlib
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.data.files import MOST_UNPACKED, check_regular, locate
from fffcpu.errors import DataError, list_names

__all__ = ["NpzArrays", "map_npy", "read_npz"]

_DAMAGES = (
    ValueError,
    TypeError,
    EOFError,
    KeyError,
    SyntaxError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    lzma.LZMAError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""Errors that NumPy and zipfile raise for damaged or foreign files."""


_LONGEST_TEXT = 200

_LONGEST_HEADER = 1 << 14
"""Bytes at the start of an array that are read for its header. NumPy also refuses longer headers,
but only after it has allocated memory for the length that they state."""


class _Header(NamedTuple):
    """The header of a .npy file, or of an array in a .npz file."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]
    offset: int
    """Offset of the numbers."""

    @property
    def length(self) -> int:
        """Number of bytes of header and numbers."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


class NpzArrays(NamedTuple):
    """The arrays of a .npz file, each with its name for errors."""

    x: NDArray[Any]
    where: str
    labels: NDArray[Any] | None
    label_where: str


def map_npy(path: str) -> NDArray[Any]:
    """Map the array of a .npy file into memory, read-only: only the used parts are read.

    Raises
    ------
    DataError
        If it is not a whole .npy file, or holds objects.
    """
    check_regular(path)
    try:
        with open(path, "rb") as file:
            header = _read_header(file)
        _check_length(header, os.path.getsize(path), locate(path))
        order = "F" if header.fortran_order else "C"
        return np.memmap(path, header.dtype, "r", header.offset, header.shape, order)  # type: ignore[call-overload, no-any-return]
    except DataError:
        raise
    except _DAMAGES as error:
        raise DataError(_explain(path, "a .npy file of numbers or text", error)) from error


def read_npz(path: str, target: str | None) -> NpzArrays:
    """Read rows and labels from a .npz file.

    Parameters
    ----------
    path : str
        The file.
    target : str or None
        Name of the array of labels. Default: ``"y"``, if there is one.

    Returns
    -------
    NpzArrays
        ``x`` is the array ``"x"``; without one, the only array besides the target that has two or
        more axes.

    Raises
    ------
    DataError
        If it is not a whole .npz file, has no such arrays, or they hold objects.
    """
    check_regular(path)
    with open(path, "rb") as file:
        if file.read(2) != b"PK":
            raise DataError(f"{locate(path)}: must be a .npz file, which is a zip archive")
        file.seek(0)
        try:
            with zipfile.ZipFile(file) as archive:
                return _choose_arrays(path, archive, target)
        except DataError:
            raise
        except (*_DAMAGES, OSError) as error:  # a wrong offset is an OSError
            wanted = "a .npz file with arrays of numbers or text"
            raise DataError(_explain(path, wanted, error)) from error


def _read_header(stream: IO[bytes]) -> _Header:
    """Read the header at the start of an array, without trust in the length that it states."""
    start = io.BytesIO(stream.read(_LONGEST_HEADER))
    # Version 3 differs from 2 only in the encoding of the names of fields.
    version = np.lib.format.read_magic(start)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"version {version} of the format is not known")
    formats = np.lib.format
    read = formats.read_array_header_1_0 if version == (1, 0) else formats.read_array_header_2_0
    try:
        shape, fortran_order, dtype = read(start)
    except MemoryError:  # of Python's parser
        raise ValueError("the header is nested too deeply") from None
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never opened here")
    if any(length < 0 for length in shape):
        raise ValueError(f"the header gives shape {shape}")
    return _Header(shape, fortran_order, dtype, start.tell())


def _check_length(header: _Header, length: int, where: str) -> None:
    """Raise unless header and numbers take this many bytes."""
    if header.length != length:
        raise DataError(
            f"{where}: must have {header.length} bytes, as its header gives shape {header.shape} "
            f"and dtype {header.dtype}, got {length}"
        )


def _explain(path: str, wanted: str, error: Exception) -> str:
    """Return the error message about a file that NumPy rejects; NumPy's message is cut."""
    what = str(error)[:_LONGEST_TEXT] or type(error).__name__
    return f"{locate(path)}: must be {wanted}, got another ({what})"


def _choose_arrays(path: str, archive: zipfile.ZipFile, target: str | None) -> NpzArrays:
    """Read rows and labels from an open archive."""
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    names = list(members)
    if len(names) < len(archive.infolist()):
        raise ValueError("two of its arrays have the same name")
    if target is None and "y" in names:
        target = "y"
    if target is not None and target not in names:
        raise DataError(f"{locate(path)}: must have an array {target!r}, got {list_names(names)}")
    others = [name for name in names if name != target]
    found = ["x"] if "x" in others else [n for n in others if _axes(archive, members[n]) >= 2]
    if len(found) != 1:
        raise DataError(
            f"{locate(path)}: must have an array 'x', or just one with two or more axes besides "
            f"the target, got {list_names(names)}"
        )
    where, label_where = (locate(path, f"array {name!r}") for name in (found[0], target))
    x = _read_array(archive, members[found[0]], where)
    labels = None if target is None else _read_array(archive, members[target], label_where)
    return NpzArrays(x, where, labels, label_where)


def _axes(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """Return the number of axes of an array in an archive."""
    with archive.open(member) as stream:
        return len(_read_header(stream).shape)


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> NDArray[Any]:
    """Read an array, after a check that the archive can hold all of it."""
    with archive.open(member) as stream:
        header = _read_header(stream)
    _check_length(header, member.file_size, where)
    packed = min(member.compress_size, os.fstat(archive.fp.fileno()).st_size)  # type: ignore[union-attr]
    if member.file_size > MOST_UNPACKED * packed:
        raise DataError(f"{where}: must have {member.file_size} bytes, got {packed} packed ones")
    with archive.open(member) as stream:
        return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
