"""IDX files, written by hand: every type, mapped or unpacked, whole or refused."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from fffcpu.data import count_rows, read_blocks, read_table
from fffcpu.data.idx import idx_blocks, read_idx
from fffcpu.errors import DataError

TYPES = {"B": 0x08, "b": 0x09, "h": 0x0B, "i": 0x0C, "f": 0x0D, "d": 0x0E}
"""Codes of Python's struct, and of IDX."""

IMAGES = [5, 4, 3]


def idx_bytes(code, shape, numbers):
    """The file, by the letter of the format."""
    return (
        bytes([0, 0, TYPES[code], len(shape)])
        + struct.pack(f">{len(shape)}I", *shape)
        + struct.pack(f">{len(numbers)}{code}", *numbers)
    )


@pytest.fixture
def written(tmp_path):
    """Write a file, gzipped or not."""

    def write(content, packed=False, name="images-idx3-ubyte"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if packed else content)
        return path

    return write


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize("code", TYPES)
def test_every_type_comes_back(written, code, packed):
    lowest = 0 if code == "B" else -30
    numbers = [lowest + n for n in range(60)]
    table = read_table(written(idx_bytes(code, IMAGES, numbers), packed))
    assert table.x.tolist() == np.reshape(numbers, (5, 12)).tolist()
    assert (table.x.dtype.kind, table.x.dtype.itemsize) == (
        np.dtype(code).kind,
        struct.calcsize(code),
    )
    assert table.image_shape == (4, 3)
    assert isinstance(table.x, np.memmap) == (not packed)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize("rows", [1, 2, 5, 100])
def test_blocks_make_up_the_whole(written, packed, rows):
    path = written(idx_bytes("h", IMAGES, range(60)), packed)
    blocks = list(read_blocks(path, rows))
    assert [len(block) for block in blocks[:-1]] == [rows] * (len(blocks) - 1)
    assert np.array_equal(np.concatenate(blocks), read_table(path).x)
    assert count_rows(path) == 5


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
def test_images_and_labels(written, packed):
    images = written(idx_bytes("B", IMAGES, range(60)), packed)
    labels = written(idx_bytes("B", [5], [7, 3, 3, 9, 7]), packed, "labels-idx1-ubyte")
    table = read_table(images, labels)
    assert table.x.dtype == np.uint8
    assert table.y.tolist() == [1, 0, 0, 2, 1]
    assert table.classes == (3, 7, 9)


GOOD = idx_bytes("h", IMAGES, range(60))


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (GOOD[:-1], "must have 136 bytes"),
        (GOOD[:16], "must have 136 bytes"),
        (GOOD + b"\0", "must have 136 bytes"),
        (GOOD[:10], "must have 3 lengths of axes, got a truncated file"),
        (GOOD[:3], "got [0, 0, 11]"),
        (b"\0\0\x07\x03" + GOOD[4:], "the type (8, 9, 11, 12, 13, 14) and the number of axes"),
        (b"\0\0\x08\x00" + GOOD[4:], "got [0, 0, 8, 0]"),
        (b"\0\0\x08\x40" + bytes(4096), "got [0, 0, 8, 64]"),
        (idx_bytes("B", [5], range(5)), "must have shape (rows, features), got shape (5,)"),
        (idx_bytes("B", [5, 0, 3], []), "must have shape (rows, features), got shape (5, 0, 3)"),
        (idx_bytes("B", [0, 3], []), "must have at least one row, got none"),
        (idx_bytes("B", [2**32 - 1] * 3, []), "as its header gives shape (4294967295, "),
    ],
    ids=[
        *("one byte short", "no numbers", "one byte long", "half a header", "half a magic"),
        *("unknown type", "no axes", "too many axes", "labels", "no pixels", "no images", "huge"),
    ],
)
def test_other_files_are_refused(written, content, what, packed):
    path = written(content, packed)
    with pytest.raises(DataError) as caught:
        read_table(path)
    assert str(caught.value).startswith(f"file {str(path)!r}: ")
    assert what in str(caught.value)


def test_streaming_notices_a_truncated_and_an_overlong_file(written):
    blocks = read_blocks(written(GOOD[:-50], packed=True), 2)
    assert len(next(blocks)) == 2
    with pytest.raises(DataError, match="when unpacked"):
        list(blocks)
    with pytest.raises(DataError, match="got more"):
        list(read_blocks(written(GOOD + b"\0", packed=True), 2))


def test_damaged_gzip_files_are_refused(written, tmp_path):
    path = written(gzip.compress(GOOD)[:-9])
    with pytest.raises(DataError, match="must be a whole gzip file"):
        read_table(path)
    damaged = bytearray(gzip.compress(GOOD))
    damaged[-6] ^= 1  # of the checksum
    with pytest.raises(DataError, match="must be a whole gzip file"):
        read_table(written(bytes(damaged)))


def test_gzip_is_told_by_content_and_not_by_name(written):
    packed = written(GOOD, packed=True, name="images")
    plain = written(GOOD, name="images.gz")
    assert np.array_equal(read_idx(str(packed)), read_idx(str(plain)))


def test_numbers_that_are_not_finite_are_told_by_row_and_column(written):
    numbers = [float(n) for n in range(60)]
    numbers[31] = np.nan
    path = written(idx_bytes("f", IMAGES, numbers))
    blocks = read_blocks(path, 2)
    next(blocks)
    with pytest.raises(DataError, match=r"row 2, column 7 \(counted from 0\): .* got nan"):
        next(blocks)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize("read", [read_table, read_blocks, count_rows])
def test_lengths_that_a_length_of_0_hides_are_refused(written, packed, read):
    path = written(idx_bytes("d", [0, 2**31, 2**31, 2**31], []), packed)
    with pytest.raises(DataError, match="must have a shape that an array can have, got"):
        read(path)


def test_rows_without_numbers_are_no_work(written):
    # Four billion rows take no byte of a file.
    path = str(written(idx_bytes("B", [2**32 - 1, 0], []), packed=True))
    (block,) = idx_blocks(path, rows=1)
    assert block.shape == (2**32 - 1, 0)
    with pytest.raises(DataError, match=r"must have shape \(rows, features\), got shape"):
        read_table(path)
