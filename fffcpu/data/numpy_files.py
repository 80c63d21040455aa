"""NumPy's own files: .npy, one array, memory-mapped; .npz, a zip archive of arrays, read whole.

Arrays of objects are pickles, which can run any code when they are opened, so they are rejected.
"""

from __future__ import annotations

import os
import struct
import tokenize
import zipfile
import zlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.data.files import check_regular, list_names, locate
from fffcpu.errors import DataError

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
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""Errors that NumPy and zipfile raise for damaged or foreign files."""


_LONGEST_TEXT = 200


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
        array = np.lib.format.open_memmap(path, mode="r")
    except _DAMAGES as error:
        raise DataError(_explain(path, "a .npy file of numbers or text", error)) from error
    length, size = array.offset + array.nbytes, os.path.getsize(path)
    if length != size:
        raise DataError(
            f"{locate(path)}: must have {length} bytes, as its header gives shape {array.shape} "
            f"and dtype {array.dtype}, got {size}"
        )
    return array


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
            with np.load(file, allow_pickle=False) as archive:
                return _choose_arrays(path, archive, target)
        except DataError:
            raise
        except (*_DAMAGES, OSError) as error:  # a wrong offset is an OSError
            wanted = "a .npz file with arrays of numbers or text"
            raise DataError(_explain(path, wanted, error)) from error


def _explain(path: str, wanted: str, error: Exception) -> str:
    """Return the error message about a file that NumPy rejects; NumPy's message is cut."""
    return f"{locate(path)}: must be {wanted}, got another ({str(error)[:_LONGEST_TEXT]})"


def _choose_arrays(path: str, archive: Any, target: str | None) -> NpzArrays:
    """Read rows and labels from an open archive."""
    names = list(archive.files)
    if target is None and "y" in names:
        target = "y"
    if target is not None and target not in names:
        raise DataError(f"{locate(path)}: must have an array {target!r}, got {list_names(names)}")
    others = [name for name in names if name != target]
    arrays = {name: np.asarray(archive[name]) for name in (["x"] if "x" in others else others)}
    if "x" not in others:
        arrays = {name: array for name, array in arrays.items() if array.ndim >= 2}
    if len(arrays) != 1:
        raise DataError(
            f"{locate(path)}: must have an array 'x', or just one with two or more axes besides "
            f"the target, got {list_names(names)}"
        )
    ((name, x),) = arrays.items()
    labels = None if target is None else np.asarray(archive[target])
    return NpzArrays(x, locate(path, f"array {name!r}"), labels, locate(path, f"array {target!r}"))
