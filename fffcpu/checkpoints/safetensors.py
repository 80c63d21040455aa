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

import errno
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
from fffcpu.errors import ArgumentError, CheckpointError, describe
from fffcpu.lowbit import from_bfloat16, numpy_dtype
from fffcpu.system.files import named_errors, open_regular, parse_json, write_atomically
from fffcpu.system.memory import check_memory

__all__ = [
    "DTYPES",
    "LONGEST_HEADER",
    "Header",
    "SafetensorsFile",
    "Tensor",
    "check_metadata",
    "read_array",
    "read_header",
    "write_temporary",
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

LONGEST_HEADER = 100_000_000
"""Maximum bytes of a header, read or written, the same as in the safetensors library. A layer's
takes less than a thousand, a large model's about ten thousand, 60,000 names of columns 1.5
million."""

_PARSED = 32
"""Bytes of memory that a byte of JSON may take when it is parsed, as lists of empty lists do."""

_RESERVED = 1 << 20
"""Bytes of a header that `check_metadata` leaves for the arrays."""

_COMPARED = 1 << 24
"""Bytes that are read back at a time."""

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
    rest = os.fstat(file.fileno()).st_size - len(start)
    if len(start) < 8 or length > min(rest, LONGEST_HEADER):
        raise CheckpointError(_explain_start(start, rest))
    check_memory(_PARSED * length, f"a header of {length} bytes")
    return file.read(length)


def _explain_start(start: bytes, rest: int) -> str:
    """Return the error for a file whose first eight bytes are not the length of a header in it."""
    for magic, meaning in _FOREIGN_STARTS:
        if start.startswith(magic):
            return f"{meaning}; convert it to safetensors first, as 'fffcpu convert --help' shows"
    if not start:
        return "is empty"
    if len(start) < 8:
        return f"is not a safetensors file: it has only {len(start)} bytes"
    length = int.from_bytes(start, "little")
    if length > LONGEST_HEADER:
        return (
            f"is not a safetensors file: its header would take {length} bytes, more than "
            f"{LONGEST_HEADER}"
        )
    return f"is truncated: its header must have {length} bytes, got {rest}"


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
    *,
    finite: bool = True,
) -> None:
    """Write a safetensors file, which appears complete or not at all.

    Before it replaces another file, it is read back: by the reader of this module, and every number
    is compared. So what is written can be read.

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
    finite : bool
        Whether all numbers must be finite, as those of a model must be.

    Raises
    ------
    ArgumentError
        If a number is not finite; the message names the array and the index.
    CheckpointError
        If the header would be longer than any reader accepts.
    OSError
        If the file cannot be written, or has other contents when it is read back; see
        `fffcpu.system.files.write_atomically`. An old file is then unchanged.
    """
    with write_atomically(path) as temporary:
        write_temporary(temporary, arrays, metadata, dtypes, finite=finite)


def write_temporary(
    temporary: Path,
    arrays: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, str] | None = None,
    dtypes: Mapping[str, str] | None = None,
    *,
    finite: bool = True,
) -> None:
    """Write and read back the file of `write_tensors` in place, as `write_together` needs it."""
    dtypes = dtypes or {}
    ordered = sorted(arrays.items(), key=lambda item: -item[1].itemsize)
    tensors = {name: (dtypes.get(name, array.dtype.name), array) for name, array in ordered}
    if finite:
        for name, (dtype, array) in tensors.items():
            _check_finite(name, array, dtype)
    text = _header_of(tensors, dict(metadata or {}))
    with open(temporary, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for _, array in tensors.values():
            file.write(_stored(array))
    _read_back(temporary, tensors, dict(metadata or {}))


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Raise if no file could hold these texts. Call it before the work whose result they describe.

    Raises
    ------
    CheckpointError
        If a header with them would be too long.
    """
    _check_header(len(_header_of({}, dict(metadata))) + _RESERVED, metadata)


def _check_header(length: int, metadata: Mapping[str, str]) -> None:
    """Raise if a header is longer than readers accept."""
    if length > LONGEST_HEADER:
        raise CheckpointError(
            f"the header of a file must take at most {LONGEST_HEADER} bytes, got {length} with "
            f"metadata of {sum(map(len, metadata.values()))} characters; names of columns and "
            "classes are part of it"
        )


def _check_finite(name: str, array: NDArray[Any], dtype: str) -> None:
    """Raise unless the numbers of an array are finite."""
    if dtype != "bfloat16" and array.dtype.kind != "f":
        return
    rows = array if array.ndim else array[np.newaxis]
    step = max(1, _COMPARED * len(rows) // max(1, rows.nbytes))
    for start in range(0, len(rows), step):
        numbers = rows[start : start + step]
        numbers = from_bfloat16(numbers) if dtype == "bfloat16" else numbers
        right = np.isfinite(numbers)
        if not right.all():
            first, *others = map(int, np.unravel_index(np.argmin(right), right.shape))
            index = (start + first, *others)
            raise ArgumentError(
                f"parameter '{name}' must hold finite numbers to be saved, "
                f"got {numbers[first, *others]} at index {index if others else index[0]}"
            )


def _header_of(tensors: Mapping[str, tuple[str, NDArray[Any]]], metadata: dict[str, str]) -> bytes:
    """Return the header of arrays that lie one after the other, with our names of their types."""
    header: dict[str, Any] = {_METADATA: metadata} if metadata else {}
    start = 0
    for name, (dtype, array) in tensors.items():
        offsets = (start, start + array.nbytes)
        entry = {"dtype": _ABBREVIATIONS[dtype], "shape": array.shape, "data_offsets": offsets}
        header[name] = entry
        start += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    _check_header(len(text), metadata)
    return text


def _read_back(
    path: Path, tensors: Mapping[str, tuple[str, NDArray[Any]]], metadata: dict[str, str]
) -> None:
    """Raise unless a file holds these arrays and texts."""
    with named_errors(path), open_regular(path) as file:
        header = read_header(file)
        found = header.tensors()
        same = header.metadata == metadata and list(found) == list(tensors)
        for name, (dtype, array) in tensors.items():
            same = same and found[name][:2] == (dtype, array.shape)
            same = same and _holds(file, found[name].start, _stored(array))
    if not same:
        raise OSError(errno.EIO, "The file has other contents than were written", str(path))


def _holds(file: io.BufferedReader, start: int, data: memoryview) -> bool:
    """Whether a file has these bytes from one of its bytes on."""
    file.seek(start)
    for at in range(0, len(data), _COMPARED):
        piece = data[at : at + _COMPARED]
        if not np.array_equal(np.frombuffer(file.read(len(piece)), np.uint8), piece):
            return False
    return True


def _stored(array: NDArray[Any]) -> memoryview:
    """Return the bytes of an array as the format has them."""
    return _bytes(np.ascontiguousarray(array, array.dtype.newbyteorder("<")))


def _bytes(array: NDArray[Any]) -> memoryview:
    """Return the memory of a contiguous array."""
    return array.reshape(-1).view(np.uint8).data
