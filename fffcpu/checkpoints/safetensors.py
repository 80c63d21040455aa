"""The safetensors format: a header of JSON, then the numbers of all arrays, one after the other.

::

    | n: 8 bytes, little-endian | header: n bytes of JSON | array | array | ... |
                                                          ^ data_offsets count from here

This is the one place that reads and writes the format. What the arrays and the metadata of a file
mean is defined elsewhere, for layers in `fffcpu.checkpoints.native`. The safetensors library is not
used, because it has no bfloat16 for NumPy arrays. A header is checked before memory is allocated
for a single number: arrays that overlap, or leave a gap, are refused by every reader.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.errors import CheckpointError, describe
from fffcpu.lowbit import from_bfloat16, numpy_dtype
from fffcpu.system.files import named_errors, open_regular, parse_json, write_atomically

__all__ = [
    "DTYPES",
    "Header",
    "SafetensorsFile",
    "Tensor",
    "read_array",
    "read_header",
    "write_tensors",
]

DTYPES: Mapping[str, str] = MappingProxyType(
    {
        "F64": "float64",
        "F32": "float32",
        "F16": "float16",
        "BF16": "bfloat16",
        "I64": "int64",
        "I32": "int32",
        "I16": "int16",
        "I8": "int8",
        "U64": "uint64",
        "U32": "uint32",
        "U16": "uint16",
        "U8": "uint8",
        "BOOL": "bool",
    }
)
"""Our name of each type of the format. NumPy has no bfloat16; see `fffcpu.lowbit.numpy_dtype`."""

_ABBREVIATIONS = MappingProxyType({name: short for short, name in DTYPES.items()})

_METADATA = "__metadata__"
_ENTRY = {"dtype", "shape", "data_offsets"}

_LONGEST_HEADER = 1 << 20
"""Bytes. A layer's takes under a thousand, a large model's some ten thousand; the bound keeps a
hostile header from being parsed at all."""

_PICKLE = "is a Python pickle, as PyTorch writes it, and pickles are never opened here"
_ZIP = (
    "is a zip archive: a pickle, if PyTorch wrote it (.pt, .pth, .bin), and pickles are never "
    "opened here"
)
_FOREIGN_STARTS = (
    (b"PK\x03\x04", _ZIP),
    (b"\x80\x02", _PICKLE),
    (b"\x80\x03", _PICKLE),
    (b"\x80\x04", _PICKLE),
    (b"\x80\x05", _PICKLE),
)
"""How files start that people take for models, and what errors call them."""


# --- Header ---------------------------------------------------------------------------------------


class Tensor(NamedTuple):
    """What an array is, and where it lies."""

    dtype: str
    """Our name of its type, one of those in `DTYPES`."""
    shape: tuple[int, ...]
    """Its shape."""
    start: int
    """The byte of the file at which its numbers start."""


class Header(NamedTuple):
    """The header of a file."""

    metadata: dict[str, str]
    """Texts by name."""
    entries: dict[str, dict[str, Any]]
    """What it has for each array, as JSON: a dtype, a shape and offsets, of any kind or value."""
    start: int
    """The byte of the file at which the first array starts."""
    size: int
    """Bytes of all arrays."""

    def tensors(self) -> dict[str, Tensor]:
        """Return all arrays' entries, checked against the bytes of the file and each other.

        Raises
        ------
        CheckpointError
            If a type is not known, a shape or an offset is none, or the arrays do not fill the rest
            of the file without a gap or an overlap. Messages are worded to follow the file's name.
        """
        tensors, end = {}, 0
        spans = {name: _span(name, entry, self.size) for name, entry in self.entries.items()}
        for name, (start, stop) in sorted(spans.items(), key=lambda item: item[1]):
            if start != end:
                raise CheckpointError(f"{_what(name)} must start at byte {end}, got {start}")
            end = stop
        if end != self.size:
            raise CheckpointError(
                f"is not a whole safetensors file: its arrays take {end} bytes, and {self.size} "
                "are there"
            )
        for name, entry in self.entries.items():
            start = self.start + spans[name][0]
            tensors[name] = Tensor(DTYPES[entry["dtype"]], tuple(entry["shape"]), start)
        return tensors


def read_header(file: io.BufferedReader) -> Header:
    """Read the header at the start of a file, having checked its length.

    Raises
    ------
    CheckpointError
        If the file does not start with such a header; the message is worded to follow its name.
    """
    values = parse_json(_header_text(file), "its header")
    if not isinstance(values, dict):
        raise CheckpointError(f"is damaged: its header must be an object, {_got(values)}")
    metadata = values.pop(_METADATA, None)
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CheckpointError(f"is damaged: its metadata must be texts by name, {_got(metadata)}")
    for name, entry in values.items():
        if not isinstance(entry, dict) or set(entry) != _ENTRY:
            raise CheckpointError(
                f"{_what(name)} must have a dtype, a shape and offsets, {_got(entry)}"
            )
    start = file.tell()
    return Header(metadata, values, start, os.fstat(file.fileno()).st_size - start)


def _header_text(file: io.BufferedReader) -> bytes:
    """Return the JSON text at the start of a file."""
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > _LONGEST_HEADER:
        raise CheckpointError(_explain_start(start))
    header = file.read(length)
    if len(header) < length:
        raise CheckpointError(
            f"is truncated: its header should take {length} bytes, and {len(header)} are there"
        )
    return header


def _explain_start(start: bytes) -> str:
    """Return what a file is whose first eight bytes are not the length of a header."""
    for magic, meaning in _FOREIGN_STARTS:
        if start.startswith(magic):
            return f"{meaning}; convert it to safetensors first, as docs/formats.md shows"
    if not start:
        return "is empty"
    if len(start) < 8:
        return f"is not a safetensors file: it has only {len(start)} bytes"
    return (
        f"is not a safetensors file: its header would take {int.from_bytes(start, 'little')} "
        f"bytes, more than {_LONGEST_HEADER}"
    )


def _span(name: str, entry: Mapping[str, Any], size: int) -> tuple[int, int]:
    """Return an array's first byte and the one after its last, checked against its shape."""
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise CheckpointError(f"cannot be read: {describe(name)} has the type {describe(dtype)}")
    if not _are_lengths(shape) or not _are_lengths(offsets) or len(offsets) != 2:
        raise CheckpointError(
            f"{_what(name)} must have a shape and offsets of integers of at least 0, {_got(entry)}"
        )
    length = math.prod(shape) * numpy_dtype(DTYPES[dtype]).itemsize
    if offsets[1] - offsets[0] != length or offsets[1] > size:
        raise CheckpointError(
            f"{_what(name)} must take {length} bytes of {size}, got those from {offsets[0]} to "
            f"{offsets[1]}"
        )
    return offsets[0], offsets[1]


def _are_lengths(values: Any) -> bool:
    """Whether a value is a list of integers of at least 0."""
    return isinstance(values, list) and all(type(v) is int and v >= 0 for v in values)


def _what(name: str) -> str:
    """Return the start of a complaint about an array, whose name may be as long as the header."""
    return f"is not a whole safetensors file: {describe(name)}"


def _got(value: Any) -> str:
    """Return the end of a complaint about a value, which may be as long as the header."""
    return f"got {describe(value)[:200]}"


# --- Arrays ---------------------------------------------------------------------------------------


def read_array(file: io.BufferedReader, tensor: Tensor) -> NDArray[Any]:
    """Read an array from an open file into memory of its own.

    Raises
    ------
    CheckpointError
        If the file ends before the array does; the message is worded to follow the file's name.
    """
    native = numpy_dtype(tensor.dtype)
    array = np.empty(tensor.shape, native.newbyteorder("<"))
    file.seek(tensor.start)
    if file.readinto(_bytes(array)) < array.nbytes:
        raise CheckpointError("was made shorter while it was read")
    return array.astype(native, copy=False)


class SafetensorsFile(Mapping[str, NDArray[Any]]):
    """The arrays of a safetensors file, read-only, which stay on the disk.

    An array is mapped into memory when it is asked for, and no longer than somebody holds it. So a
    file as large as memory can be read array by array, and its numbers are copied only once: to
    where they belong.

    Parameters
    ----------
    path : str or path
        The file.

    Raises
    ------
    CheckpointError
        If the file is damaged or a pickle, or has an array of a type that is not in `DTYPES`.
    OSError
        If it cannot be read.

    Notes
    -----
    The file must not be made shorter while its arrays are in use. Arrays of bfloat16 are widened
    to float32, and so copied.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._name = os.fsdecode(path)
        with named_errors(self._name), open_regular(self._name) as file:
            self._tensors = read_header(file).tensors()

    def __getitem__(self, name: str) -> NDArray[Any]:
        dtype, shape, start = self._tensors[name]
        stored = numpy_dtype(dtype).newbyteorder("<")
        if math.prod(shape) == 0:
            return np.empty(shape, np.float32 if dtype == "bfloat16" else stored)
        array = np.memmap(self._name, stored, "r", start, shape)
        return from_bfloat16(array) if dtype == "bfloat16" else array

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return f"<SafetensorsFile({self._name!r}): {len(self)} arrays>"


def write_tensors(
    path: str | os.PathLike[str],
    arrays: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, str] | None = None,
    dtypes: Mapping[str, str] | None = None,
) -> None:
    """Write a safetensors file, which appears whole or not at all.

    The widest types come first, so that every array starts at a multiple of its numbers' bytes;
    arrays of equal width keep the order of the mapping.

    Parameters
    ----------
    path : str or path
        The file, in a folder that exists; replaced if it exists.
    arrays : mapping of str to array
        Of types in `DTYPES`. One that is not contiguous is copied when its turn comes.
    metadata : mapping of str to str, optional
        For the header.
    dtypes : mapping of str to str, optional
        Our names of types that arrays have for the format but not for NumPy: ``"bfloat16"``.

    Raises
    ------
    OSError
        If the file cannot be written; see `fffcpu.system.files.write_atomically`.
    """
    dtypes = dtypes or {}
    ordered = sorted(arrays.items(), key=lambda item: -item[1].itemsize)
    tensors = {name: (dtypes.get(name, array.dtype.name), array) for name, array in ordered}
    with write_atomically(path) as temporary:
        try:
            _write(temporary, tensors, dict(metadata or {}))
        except OSError as error:  # which names the temporary file, or none
            raise OSError(error.errno, error.strerror, os.fsdecode(path)) from error


def _write(
    path: Path, tensors: Mapping[str, tuple[str, NDArray[Any]]], metadata: dict[str, str]
) -> None:
    """Write arrays, each beside our name of its type, one after the other."""
    header: dict[str, Any] = {_METADATA: metadata} if metadata else {}
    start = 0
    for name, (dtype, array) in tensors.items():
        offsets = (start, start + array.nbytes)
        entry = {"dtype": _ABBREVIATIONS[dtype], "shape": array.shape, "data_offsets": offsets}
        header[name] = entry
        start += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for _, array in tensors.values():
            file.write(_bytes(np.ascontiguousarray(array, array.dtype.newbyteorder("<"))))


def _bytes(array: NDArray[Any]) -> memoryview:
    """Return the memory of a contiguous array."""
    return array.reshape(-1).view(np.uint8).data
