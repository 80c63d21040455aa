""".npy and .npz files: mapped or read, and nothing that is not an array of numbers."""

from __future__ import annotations

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from fffcpu.data import count_rows, read_blocks, read_table
from fffcpu.errors import DataError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((7, 3)).astype(np.float32)
Y = np.array([2, 0, 2, 1, 1, 0, 2])


@pytest.fixture
def saved(tmp_path):
    """Save an array as .npy, or arrays as .npz."""

    def save(name, *arrays, **named):
        path = tmp_path / name
        if named:
            np.savez(path, **named)
        else:
            np.save(path, *arrays, allow_pickle=True)
        return path

    return save


def memory_of(array):
    """The array that owns the memory of a view."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


@pytest.mark.parametrize(
    "x",
    [
        X,
        X.astype(">f8"),
        X.astype(np.float16),
        np.asfortranarray(X),
        np.arange(42, dtype=np.uint8).reshape(7, 2, 3),
        X > 0,
    ],
    ids=["float32", "big-endian", "float16", "Fortran", "images", "bool"],
)
def test_npy_is_mapped_as_it_is_stored(saved, x):
    path = saved("x.npy", x)
    table = read_table(path, saved("y.npy", Y))
    assert isinstance(memory_of(table.x), np.memmap)
    assert not table.x.flags.writeable
    assert table.x.dtype == x.dtype
    assert np.array_equal(table.x, x.reshape(7, -1))
    assert table.image_shape == (x.shape[1:] if x.ndim > 2 else None)
    assert table.y.tolist() == Y.tolist()
    blocks = list(read_blocks(path, 3))
    assert [len(block) for block in blocks] == [3, 3, 1]
    assert all(isinstance(memory_of(block), np.memmap) for block in blocks)
    assert np.array_equal(np.concatenate(blocks), table.x)
    assert count_rows(path) == 7


def test_no_rows_are_no_table_and_no_blocks(saved):
    path = saved("x.npy", X[:0])
    assert list(read_blocks(path)) == []
    assert count_rows(path) == 0
    with pytest.raises(DataError, match="must have at least one row, got none"):
        read_table(path)


@pytest.mark.parametrize(
    ("named", "target", "expected"),
    [
        ({"x": X, "y": Y}, None, Y),
        ({"x": X, "y": Y, "labels": Y[::-1]}, "labels", Y[::-1]),
        ({"x": X, "more": X}, None, None),
        ({"images": X, "labels": Y}, "labels", Y),
        ({"images": X, "labels": Y, "weights": np.ones(7)}, "labels", Y),
        ({"X": X, "y": Y}, None, Y),
        ({"y": X, "x": Y}, "x", Y),
    ],
)
def test_arrays_of_npz_are_found_by_name_or_shape(saved, named, target, expected):
    path = saved("a.npz", **named)
    table = read_table(path, target)
    assert np.array_equal(table.x, X)
    assert (table.y is None) if expected is None else np.array_equal(table.y, expected)
    assert count_rows(path) is None


@pytest.mark.parametrize("named", [{"x": X, "y": Y, "z": X}, {"images": X, "labels": Y}])
def test_blocks_of_npz(saved, named):
    blocks = list(read_blocks(saved("a.npz", **named), 4))
    assert [len(block) for block in blocks] == [4, 3]
    assert np.array_equal(np.concatenate(blocks), X)


@pytest.mark.parametrize(
    ("named", "target", "what"),
    [
        ({"x": X, "y": Y}, "labels", ": must have an array 'labels', got 'x', 'y'"),
        ({"a": X, "b": X}, None, ": must have an array 'x', or just one with two or more axes"),
        ({"y": Y}, None, ": must have an array 'x', or just one"),
        (
            {"x": X, "y": Y[:6]},
            None,
            ", array 'y': must have 7 labels, one per row, got shape (6,)",
        ),
        ({"x": Y}, None, ", array 'x': must have shape (rows, features), got shape (7,)"),
        ({"x": X.astype(complex)}, None, ", array 'x': must hold real numbers, got dtype complex"),
        ({"x": X.astype(str)}, None, ", array 'x': must hold real numbers, got dtype <U"),
        ({"x": np.array([[{}]])}, None, ": must be a .npz file with arrays of numbers or text"),
        ({"x": X, "y": np.array([{}] * 7)}, None, ": must be a .npz file with arrays of numbers"),
    ],
)
def test_npz_without_what_is_needed(saved, named, target, what):
    path = saved("a.npz", **named)
    with pytest.raises(DataError) as caught:
        read_table(path, target)
    assert str(caught.value).startswith(f"file {str(path)!r}{what}")


@pytest.mark.parametrize("read", [read_table, read_blocks, count_rows])
@pytest.mark.parametrize("x", [X[0, 0], X[0], X[:, :0], X.astype(complex)])
def test_an_array_that_is_no_rows_of_numbers_is_refused(saved, read, x):
    with pytest.raises(DataError, match=r"x\.npy': must (have shape \(rows,|hold real numbers)"):
        read(saved("x.npy", x))


def test_arrays_of_objects_are_refused(saved):
    path = saved("x.npy", np.array([[1, "a"], [2, None]], dtype=object))
    with pytest.raises(DataError, match=r"must be a \.npy file of numbers or text"):
        read_table(path)


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
@pytest.mark.parametrize("content", [b"", b"PK", b"a,b\n1,2\n", b"\x80\x04N."])
def test_other_files_under_the_name_are_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"must be a \.{name[-3:]} file"):
        read_table(path)


@pytest.mark.parametrize("change", [b"", b"\0"], ids=["truncated", "overlong"])
def test_npy_of_another_length_is_refused(saved, change):
    path = saved("x.npy", X)
    content = path.read_bytes()
    path.write_bytes(content + change if change else content[:-1])
    with pytest.raises(DataError, match=r"x\.npy'"):
        read_table(path)


def test_npz_is_refused_when_its_checksum_is_wrong(saved):
    path = saved("a.npz", x=X)
    content = path.read_bytes()
    at = content.index(X.tobytes())
    path.write_bytes(content[:at] + b"\xff" + content[at + 1 :])
    with pytest.raises(DataError, match="Bad CRC-32"):
        read_table(path)


def test_complaints_of_damaged_files_are_short(saved):
    path = saved("a.npz", x=X)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo("x.npy").header_offset + 26  # the length of the name
    path.write_bytes(content[:at] + b"\xff\x00" + content[at + 2 :])
    with pytest.raises(DataError) as caught:
        read_table(path)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("damage", range(40))
def test_a_damaged_file_is_read_or_refused(saved, damage):
    # Whatever NumPy and zipfile raise, callers see a DataError; the bytes that change are the
    # header's, where there are checks to be missed.
    rng = np.random.default_rng(damage)
    for path in (saved("a.npz", x=X, y=Y), saved("a.npy", X)):
        content = bytearray(path.read_bytes())
        for at in rng.integers(0, 120, 3):
            content[at] = rng.integers(256)
        path.write_bytes(content)
        try:
            table = read_table(path)
        except DataError as error:
            assert str(path) in str(error)  # noqa: PT017
        else:
            assert table.x.ndim == 2


def npy_bytes(shape, descr="<f4", version=1, data=b"", length=None):
    """A .npy file, by what its header says."""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    size = 2 if version == 1 else 4
    stated = (len(text) if length is None else length).to_bytes(size, "little")
    return b"\x93NUMPY" + bytes((version, 0)) + stated + text + data


def peak_of(read):
    """The peak of the memory that a refused reading takes."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as caught:
            read()
        return tracemalloc.get_traced_memory()[1], str(caught.value)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("version", [2, 3])
def test_the_stated_length_of_a_header_takes_no_memory(tmp_path, version):
    path = tmp_path / "a.npy"
    path.write_bytes(npy_bytes((2, 3), version=version, data=bytes(24), length=1 << 28))
    peak, message = peak_of(lambda: read_table(path))
    assert peak < 1 << 20
    assert "EOF: reading array header" in message


def test_headers_of_all_versions_are_read(tmp_path):
    path = tmp_path / "a.npy"
    for version in (1, 2, 3):
        path.write_bytes(npy_bytes((7, 3), version=version, data=X.tobytes()))
        assert np.array_equal(read_table(path).x, X)


@pytest.mark.parametrize(
    "header",
    [
        npy_bytes("(-2, -3)", data=bytes(24)),
        npy_bytes("(0, 1" + "0" * 30 + ")"),
        npy_bytes((0, 2**62, 2**62)),
        npy_bytes((1,) * 70, data=bytes(4)),
        npy_bytes("(2.0, 3)", data=bytes(24)),
        npy_bytes((2, 3), version=4, data=bytes(24)),
        npy_bytes("-" * 9000),
        npy_bytes("[" * 5000),
    ],
    ids=["negative", "long", "product", "axes", "float", "version", "minus", "nested"],
)
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_a_header_that_no_array_can_have_is_refused(tmp_path, header, name):
    path = tmp_path / name
    if name == "a.npy":
        path.write_bytes(header)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", header)
    with pytest.raises(DataError, match=name):
        read_table(path)


def test_an_archive_takes_no_memory_for_numbers_that_it_does_not_hold(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", npy_bytes((1 << 14, 1 << 14), data=bytes(64)))
    peak, message = peak_of(lambda: read_table(path))
    assert peak < 1 << 20
    assert "must have 1073741" in message
    # The archive's own table of contents may state the same length.
    content = path.read_bytes()
    stated = (1 << 30) + len(npy_bytes((1 << 14, 1 << 14)))
    at = content.rindex(b"PK\1\2") + 24
    path.write_bytes(content[:at] + stated.to_bytes(4, "little") + content[at + 4 :])
    peak, message = peak_of(lambda: read_table(path))
    assert peak < 1 << 20
    assert "packed" in message


def test_an_archive_with_two_arrays_of_one_name_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", npy_bytes((7, 3), data=X.tobytes()))
        archive.writestr("x.npy", npy_bytes((7, 3), data=X[::-1].tobytes()))
    with pytest.raises(DataError, match="two of its arrays have the same name"):
        read_table(path)


def test_a_damaged_lzma_member_is_refused(tmp_path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("x.npy", npy_bytes((7, 3), data=X.tobytes()))
    content = file.getvalue()
    at = content.index(b"x.npy") + 20
    path = tmp_path / "a.npz"
    path.write_bytes(content[:at] + b"\xff" * 9 + content[at + 9 :])
    with pytest.raises(DataError, match=r"a\.npz"):
        read_table(path)
