"""IDX files, the format of MNIST: a small header, then numbers of one type, in row-major order.

All integers and floats are big-endian::

    byte  | 0 | 1 |  2   |  3   |   4 .. 7   |   8 .. 11  | ... | 4 + 4 * axes ..
          | 0 | 0 | type | axes | 1st length | 2nd length | ... | the numbers

A file of 60,000 images of 28x28 pixels starts with ``0 0 8 3``, one of their labels with
``0 0 8 1``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.checks import MOST_AXES, is_possible_shape
from fffcpu.data.files import MOST_UNPACKED, OpenFile, locate, open_file
from fffcpu.errors import DataError

__all__ = ["IDX_MAGIC", "IdxHeader", "idx_blocks", "read_idx", "read_idx_header"]

IDX_MAGIC = b"\0\0"
"""First bytes of every IDX file."""

DTYPES = {0x08: "u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""dtypes of the numbers, by byte 2 of the file."""


class IdxHeader(NamedTuple):
    """The header of an IDX file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    """Offset of the numbers in the file."""
    gzipped: bool


def read_idx_header(path: str) -> IdxHeader:
    """Read the header of an IDX file, gzipped or not, and check the file's length against it.

    Raises
    ------
    DataError
        If it is not an IDX file, or truncated, or overlong. For a gzipped file, only reading all
        of it is a complete check.
    """
    with open_file(path) as file:
        return _parse_header(path, file)


def read_idx(path: str) -> NDArray[Any]:
    """Return the array of an IDX file: memory-mapped, or read if the file is gzipped.

    Raises
    ------
    DataError
        If it is not a whole IDX file.
    """
    header = read_idx_header(path)
    if header.gzipped:
        array = np.empty(header.shape, header.dtype)
        row = 0
        for block in idx_blocks(path, rows=4096):
            array[row : row + len(block)] = block
            row += len(block)
        return array
    return np.memmap(path, header.dtype, mode="r", offset=header.offset, shape=header.shape)


def idx_blocks(path: str, rows: int) -> Iterator[NDArray[Any]]:
    """Read the array of an IDX file in blocks of up to ``rows`` along its first axis.

    Raises
    ------
    DataError
        If it is not a whole IDX file.
    """
    with open_file(path) as file:
        header = _parse_header(path, file)
        if 0 in header.shape[1:]:  # no bytes bound the number of such rows, so count no blocks
            rows = max(rows, header.shape[0])
        for start in range(0, header.shape[0], rows):
            count = min(rows, header.shape[0] - start)
            block = np.empty((count, *header.shape[1:]), header.dtype)
            if _fill(block, file) < block.nbytes:
                raise DataError(_wrong_length(path, header, "fewer"))
            yield block
        if file.content.read(1):
            raise DataError(_wrong_length(path, header, "more"))


def _parse_header(path: str, file: OpenFile) -> IdxHeader:
    """Return the header at the start of an open file."""
    magic = file.content.read(4)
    if (
        len(magic) < 4
        or not magic.startswith(IDX_MAGIC)
        or magic[2] not in DTYPES
        or not 1 <= magic[3] <= MOST_AXES
    ):
        types = ", ".join(map(str, DTYPES))
        raise DataError(
            f"{locate(path)}: must start with the magic of an IDX file: two bytes of 0, the type "
            f"({types}) and the number of axes (1 to {MOST_AXES}), got {list(magic)}"
        )
    lengths = file.content.read(4 * magic[3])
    if len(lengths) < 4 * magic[3]:
        raise DataError(
            f"{locate(path)}: must have {magic[3]} lengths of axes, got a truncated file"
        )
    shape = tuple(np.frombuffer(lengths, ">u4").tolist())
    header = IdxHeader(np.dtype(DTYPES[magic[2]]), shape, 4 + len(lengths), file.gzipped)
    size, length = os.fstat(file.raw.fileno()).st_size, _length(header)
    # An impossible length is an error before memory is allocated for it.
    if size * MOST_UNPACKED < length if file.gzipped else size < length:
        raise DataError(_wrong_length(path, header, "fewer"))
    if size > length and not file.gzipped:
        raise DataError(_wrong_length(path, header, "more"))
    if not is_possible_shape(shape, header.dtype.itemsize):
        raise DataError(f"{locate(path)}: must have a shape that an array can have, got {shape}")
    return header


def _length(header: IdxHeader) -> int:
    """Return the number of bytes of a file with this header."""
    return header.offset + math.prod(header.shape) * header.dtype.itemsize


def _wrong_length(path: str, header: IdxHeader, came: str) -> str:
    """Return the error about a truncated or overlong file."""
    unpacked = " when unpacked" if header.gzipped else ""
    return (
        f"{locate(path)}: must have {_length(header)} bytes{unpacked}, as its header gives shape "
        f"{header.shape} and dtype {header.dtype}, got {came}"
    )


def _fill(block: NDArray[Any], file: OpenFile) -> int:
    """Read an array's bytes; return their number."""
    free = block.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(free):
        count = file.content.readinto(free[done:])
        if not count:
            break
        done += count
    return done
