"""The safetensors format: a header of JSON, then the numbers of all arrays, one after the other.

::

    | n: 8 bytes, little-endian | header: n bytes of JSON | array | array | ... |
                                                          ^ data_offsets count from here

This is the only module that reads and writes the format. The meaning of a file's arrays and
metadata is defined elsewhere, for layers in `fffcpu.checkpoints.native`. The safetensors library is
not used, because it has no bfloat16 for NumPy arrays. A header is checked before memory is
allocated for any number: every reader rejects arrays that overlap or leave a gap.
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

from fffcpu.checks import is_possible_shape
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
"""Our name for each type of the format. NumPy has no bfloat16; see `fffcpu.lowbit.numpy_dtype`."""

_ABBREVIATIONS = MappingProxyType({name: short for short, name in DTYPES.items()})

_METADATA = "__metadata__"
_ENTRY = {"dtype", "shape", "data_offsets"}

_LONGEST_HEADER = 1 << 21
"""Maximum bytes of a header, read or written. A layer's takes less than a thousand, a large model's
about ten thousand, 60,000 names of columns 1.5 million; the limit keeps a hostile header from
being parsed."""

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
"""First bytes of files that are often mistaken for models, and their descriptions in errors."""


# --- Header ---------------------------------------------------------------------------------------


class Tensor(NamedTuple):
    """Type, shape and place of an array."""

    dtype: str
    """Our name of the type, one of those in `DTYPES`."""
    shape: tuple[int, ...]
    """Shape of the array."""
    start: int
    """First byte of the array in the file."""


class Header(NamedTuple):
    """The header of a file."""

    metadata: dict[str, str]
    """Texts by name."""
    entries: dict[str, dict[str, Any]]
    """JSON of each array: a dtype, a shape and offsets, not checked."""
    start: int
    """First byte of the first array in the file."""
    size: int
    """Bytes of all arrays."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the entries of all arrays, checked against the file's bytes and each other.

        Raises
        ------
        CheckpointError
            If a type is unknown, a shape or an offset is invalid, or the arrays do not fill the
            rest of the file without a gap or an overlap. The file's name must precede the message.
        """
        tensors, end = {}, 0
        spans = {name: _span(name, entry, self.size) for name, entry in self.entries.items()}
        for name, (start, stop) in sorted(spans.items(), key=lambda item: item[1]):
            if start != end:
                raise CheckpointError(f"{_what(name)} must start at byte {end}, got {start}")
            end = stop
        if end != self.size:
            raise CheckpointError(
                f"is not a whole safetensors file: its arrays take {end} bytes, but {self.size} "
                "follow its header"
            )
        for name, entry in self.entries.items():
            start = self.start + spans[name][0]
            tensors[name] = Tensor(DTYPES[entry["dtype"]], tuple(entry["shape"]), start)
        return tensors


def read_header(file: io.BufferedReader) -> Header:
    """Read the header at the start of a file, after checking its length.

    Raises
    ------
    CheckpointError
        If the file does not start with such a header; its name must precede the message.
    """
    values = parse_json(_header_text(file), "its header")
    if not isinstance(values, dict):
        raise CheckpointError(f"is damaged: its header must be an object, {_got(values)}")
    metadata = values.pop(_METADATA, None)
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CheckpointError(f"is damaged: its metadata must map names to texts, {_got(metadata)}")
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
            f"is truncated: its header must have {length} bytes, got {len(header)}"
        )
    return header


def _explain_start(start: bytes) -> str:
    """Return the error for a file whose first eight bytes are not the length of a header."""
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
    """Return an array's first byte and the byte after its last, checked against its shape."""
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise CheckpointError(f"cannot be read: {describe(name)} has the type {describe(dtype)}")
    if not _are_lengths(shape) or not _are_lengths(offsets) or len(offsets) != 2:
        raise CheckpointError(
            f"{_what(name)} must have a shape and offsets of integers of at least 0, {_got(entry)}"
        )
    itemsize = numpy_dtype(DTYPES[dtype]).itemsize
    if not is_possible_shape(shape, itemsize):
        raise CheckpointError(f"{_what(name)} must have a possible shape, {_got(entry)}")
    length = math.prod(shape) * itemsize
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
    """Return the start of a message about an array, whose name may be as long as the header."""
    return f"is not a whole safetensors file: {describe(name)}"


def _got(value: Any) -> str:
    """Return the end of a message about a value, which may be as long as the header."""
    return f"got {describe(value)[:200]}"


# --- Arrays ---------------------------------------------------------------------------------------


def read_array(file: io.BufferedReader, tensor: Tensor) -> NDArray[Any]:
    """Read an array from an open file into newly allocated memory.

    Raises
    ------
    CheckpointError
        If the file ends before the array does; the file's name must precede the message.
    """
    native = numpy_dtype(tensor.dtype)
    array = np.empty(tensor.shape, native.newbyteorder("<"))
    file.seek(tensor.start)
    if file.readinto(_bytes(array)) < array.nbytes:
        raise CheckpointError("was made shorter while it was read")
    return array.astype(native, copy=False)


class SafetensorsFile(Mapping[str, NDArray[Any]]):
    """The arrays of a safetensors file, read-only; they stay on the disk.

    An array is mapped into memory when it is looked up, for as long as it is referenced. So a file
    as large as memory can be read array by array, and its numbers are copied only once: to their
    final place.

    Parameters
    ----------
    path : str or path
        Path of the file.

    Raises
    ------
    CheckpointError
        If the file is damaged or a pickle, or has an array of a type that is not in `DTYPES`.
    OSError
        If the file cannot be read.

    Notes
    -----
    The file must not be truncated while its arrays are in use. Arrays of bfloat16 are widened to
    float32, which copies them.
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
    """Write a safetensors file, which appears complete or not at all.

    The widest types come first, so that every array starts at a multiple of its element size;
    arrays of equal width keep the order of the mapping.

    Parameters
    ----------
    path : str or path
        Path of the file, in an existing folder; replaced if it exists.
    arrays : mapping of str to array
        Arrays of types in `DTYPES`. One that is not contiguous is copied just before it is written.
    metadata : mapping of str to str, optional
        Texts for the header.
    dtypes : mapping of str to str, optional
        Our names of types that the format has but NumPy does not: ``"bfloat16"``.

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
        except OSError as error:  # it names the temporary file, or no file
            raise OSError(error.errno, error.strerror, os.fsdecode(path)) from error


def _write(
    path: Path, tensors: Mapping[str, tuple[str, NDArray[Any]]], metadata: dict[str, str]
) -> None:
    """Write arrays one after the other; each comes with our name of its type."""
    header: dict[str, Any] = {_METADATA: metadata} if metadata else {}
    start = 0
    for name, (dtype, array) in tensors.items():
        offsets = (start, start + array.nbytes)
        entry = {"dtype": _ABBREVIATIONS[dtype], "shape": array.shape, "data_offsets": offsets}
        header[name] = entry
        start += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _LONGEST_HEADER:
        raise CheckpointError(
            f"the header of a file must take at most {_LONGEST_HEADER} bytes, got {len(text)} for "
            f"{len(tensors)} arrays and metadata of {sum(map(len, metadata.values()))} characters"
        )
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for _, array in tensors.values():
            file.write(_bytes(np.ascontiguousarray(array, array.dtype.newbyteorder("<"))))


def _bytes(array: NDArray[Any]) -> memoryview:
    """Return the memory of a contiguous array."""
    return array.reshape(-1).view(np.uint8).data
