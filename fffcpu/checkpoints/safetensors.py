"""A safetensors file of another program: a mapping of names to arrays that stay on the disk.

An array is mapped into memory when it is asked for, and no longer than somebody holds it. So a
file as large as memory can be read array by array, and its numbers are copied only once: to where
they belong.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.checkpoints.native import read_header
from fffcpu.errors import CheckpointError, describe
from fffcpu.lowbit import from_bfloat16
from fffcpu.system.files import open_regular, parse_json

__all__ = ["SafetensorsFile"]

_DTYPES: Mapping[str, str] = MappingProxyType(
    {
        "F64": "<f8",
        "F32": "<f4",
        "F16": "<f2",
        "BF16": "<u2",
        "I64": "<i8",
        "I32": "<i4",
        "I16": "<i2",
        "I8": "i1",
        "U8": "u1",
        "BOOL": "?",
    }
)
"""What NumPy calls the types of the format; bfloat16 it does not know, and gets its bits."""


class _Tensor(NamedTuple):
    """Where an array lies, and what it is."""

    dtype: str
    shape: tuple[int, ...]
    start: int


class SafetensorsFile(Mapping[str, NDArray[Any]]):
    """The arrays of a safetensors file, read-only.

    Parameters
    ----------
    path : str or path
        The file.

    Raises
    ------
    CheckpointError
        If the file is damaged or a pickle, or has an array of a type that NumPy does not know.
    OSError
        If it cannot be read.

    Notes
    -----
    The file must not be made shorter while its arrays are in use. Arrays of bfloat16 are widened
    to float32, and so copied.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._name = os.fsdecode(path)
        try:
            with open_regular(self._name) as file:
                header = parse_json(read_header(file), "its header")
                start = file.tell()
                size = os.fstat(file.fileno()).st_size - start
            if not isinstance(header, dict):
                raise CheckpointError("is damaged: its header must be an object")
            header.pop("__metadata__", None)
            self._tensors = {name: _tensor(name, t, start, size) for name, t in header.items()}
        except CheckpointError as error:
            raise CheckpointError(f"file {self._name!r} {error}") from error.__cause__

    def __getitem__(self, name: str) -> NDArray[Any]:
        dtype, shape, start = self._tensors[name]
        if math.prod(shape) == 0:
            return np.empty(shape, _DTYPES[dtype])  # nothing cannot be mapped
        array = np.memmap(self._name, _DTYPES[dtype], "r", start, shape)
        return from_bfloat16(array) if dtype == "BF16" else array

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return f"<SafetensorsFile({self._name!r}): {len(self)} arrays>"


def _tensor(name: str, entry: Any, start: int, size: int) -> _Tensor:
    """Return an entry of a header, checked against the bytes that follow the header."""
    what = f"is not a whole safetensors file: {describe(name)}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{what} must have a dtype, a shape and offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise CheckpointError(f"cannot be read: {describe(name)} has the type {describe(dtype)}")
    if not _are_lengths(shape) or not _are_lengths(offsets) or len(offsets) != 2:
        raise CheckpointError(f"{what} must have a shape and offsets of integers of at least 0")
    length = math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
    if offsets[1] - offsets[0] != length or offsets[1] > size:
        raise CheckpointError(
            f"{what} must take {length} bytes of {size}, got those from {offsets[0]} to "
            f"{offsets[1]}"
        )
    return _Tensor(dtype, tuple(shape), start + offsets[0])


def _are_lengths(values: Any) -> bool:
    """Whether a value is a list of integers of at least 0."""
    return isinstance(values, list) and all(type(v) is int and v >= 0 for v in values)
