"""Tables as a whole: which file is what, and one table from every kind of file."""

from __future__ import annotations

import gzip
import os
import tracemalloc

import numpy as np
import pytest

from fffcpu.data import Table, check_finite, count_rows, read_blocks, read_table
from fffcpu.errors import ArgumentError, ArgumentTypeError, DataError

X = np.arange(24, dtype=np.uint8).reshape(6, 4)
Y = np.array([0, 1, 2, 0, 1, 2])
NAMES = ("a", "b", "c", "d")


@pytest.fixture
def files(tmp_path):
    """One table as files of every kind: name -> (path, target)."""
    text = "a,b,c,d,y\n" + "".join(
        ",".join(map(str, [*row, label])) + "\n" for row, label in zip(X, Y, strict=True)
    )
    images = bytes([0, 0, 8, 2]) + np.array(X.shape, ">u4").tobytes() + X.tobytes()
    labels = bytes([0, 0, 8, 1]) + np.array(Y.shape, ">u4").tobytes() + bytes(Y.tolist())
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "images").write_bytes(images)
    (tmp_path / "images.gz").write_bytes(gzip.compress(images))
    (tmp_path / "labels").write_bytes(labels)
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    kinds = {
        "csv": ("a.csv", "y"),
        "csv.gz": ("a.csv.gz", "y"),
        "idx": ("images", tmp_path / "labels"),
        "idx.gz": ("images.gz", tmp_path / "labels"),
        "mixed": ("images", str(tmp_path / "y.npy")),
        "npy": ("x.npy", tmp_path / "y.npy"),
        "npz": ("a.npz", None),
    }
    return {kind: (tmp_path / name, target) for kind, (name, target) in kinds.items()}


KINDS = ["csv", "csv.gz", "idx", "idx.gz", "mixed", "npy", "npz"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_same_table(files, kind):
    path, target = files[kind]
    table = read_table(path, target)
    is_csv = kind.startswith("csv")
    assert np.array_equal(table.x, X)
    assert table.x.dtype == (np.float64 if is_csv else np.uint8)
    assert np.array_equal(table.y, Y)
    assert table.classes == (0, 1, 2)
    assert table.features == (NAMES if is_csv else None)
    assert table.target == (("y",) if is_csv else None)
    assert table.image_shape is None
    assert table.path == str(path)
    assert repr(table) == "<Table: 6 rows, 4 features, 3 classes>"


@pytest.mark.parametrize("rows", [1, 4, 6, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_of_every_kind_make_up_the_table(files, kind, rows):
    path, _ = files[kind]
    blocks = list(read_blocks(path, rows, NAMES))
    assert [len(block) for block in blocks[:-1]] == [rows] * (6 // rows - (6 % rows == 0))
    assert np.array_equal(np.concatenate(blocks), X)
    assert count_rows(path) == (None if kind.startswith("csv") or kind == "npz" else 6)


@pytest.mark.parametrize("kind", KINDS)
def test_features_count_where_columns_have_no_names(files, kind):
    path, target = files[kind]
    if kind.startswith("csv"):
        table = read_table(path, target, features=["c", "a"])
        assert np.array_equal(table.x, X[:, [2, 0]])
        assert table.features == ("c", "a")
        assert np.array_equal(next(read_blocks(path, 9, ["c", "a"])), X[:, [2, 0]])
    else:
        assert read_table(path, target, features=NAMES).features == NAMES
        for read in (read_table, lambda path, features: read_blocks(path, 9, features)):
            with pytest.raises(DataError, match=r"must have 2 columns, as the model .*, got 4$"):
                read(path, features=["c", "a"])


@pytest.mark.parametrize("kind", ["csv", "idx", "npy"])
def test_no_target_is_none(files, kind):
    table = read_table(files[kind][0])
    assert (table.y, table.target, table.classes) == (None, None, None)
    assert "no target" in repr(table)


@pytest.mark.parametrize("named", [{"task": "regression"}, {"classes": (0, 1)}])
@pytest.mark.parametrize("kind", ["csv", "idx", "npy"])
def test_a_task_without_a_target_is_an_error(files, kind, named):
    with pytest.raises(ArgumentError, match="'target' must be given where"):
        read_table(files[kind][0], **named)


@pytest.mark.parametrize(
    ("kind", "target", "what"),
    [
        ("csv", 3, "'target' must be a sequence of names, got 3"),
        ("npz", 3, "'target' must be the name of an array, got 3"),
        ("npy", ["y"], "'target' must be the path of a file, got"),
    ],
)
def test_targets_of_the_wrong_kind(files, kind, target, what):
    with pytest.raises(ArgumentTypeError, match=what):
        read_table(files[kind][0], target)


@pytest.mark.parametrize("kind", ["csv", "npz"])
def test_labels_of_an_array_are_an_array(files, kind):
    with pytest.raises(DataError, match=r"must be a \.npy or IDX file"):
        read_table(files["npy"][0], files[kind][0])


def test_rows_and_labels_must_be_as_many(files, tmp_path):
    np.save(tmp_path / "z.npy", Y[:5])
    with pytest.raises(
        DataError, match=r"z\.npy': must have 6 labels, one per row, got shape \(5,\)"
    ):
        read_table(files["npy"][0], tmp_path / "z.npy")


@pytest.mark.parametrize(
    "name", ["a.txt", "a.feather", "a.npy.gz", "csv", "train-images-idx3-ubyte"]
)
@pytest.mark.parametrize("content", [b"", b"\0", b"a,b\n1,2\n"])
def test_unknown_files_are_told_what_can_be_read(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    what = r"must end in \.csv, \.csv\.gz, \.tsv, .*\.parquet, \.npy, \.npz, or be an IDX file"
    for read in (read_table, read_blocks, count_rows):
        with pytest.raises(DataError, match=what):
            read(path)


def test_endings_are_known_in_any_case(files):
    path = files["npy"][0].rename(files["npy"][0].with_name("X.NPY"))
    assert read_table(path).x.shape == (6, 4)


@pytest.mark.parametrize("read", [read_table, read_blocks, count_rows])
def test_what_is_no_file(tmp_path, read):
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.csv")
    with pytest.raises(IsADirectoryError):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match="must be a regular file"):
        read(tmp_path / "pipe.csv")


@pytest.mark.parametrize(
    ("rows", "features", "error"),
    [
        (0, None, ArgumentError),
        (1.5, None, ArgumentTypeError),
        (1, "abcd", ArgumentTypeError),
        (1, [1, 2, 3, 4], ArgumentTypeError),
        (1, [], ArgumentError),
        (1, ["a", "a"], ArgumentError),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "npy"])
def test_impossible_arguments_of_blocks(files, kind, rows, features, error):
    with pytest.raises(error):
        read_blocks(files[kind][0], rows, features)


def test_no_rows_in_a_csv_are_no_blocks(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n")
    assert list(read_blocks(tmp_path / "a.csv")) == []


def test_streaming_takes_memory_for_a_block_and_not_for_the_table(tmp_path):
    x = np.random.default_rng(0).random((10_000, 20), np.float32)
    np.savetxt(
        tmp_path / "a.csv", x, "%.4f", ",", header=",".join("abcdefghijklmnopqrst"), comments=""
    )
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    tracemalloc.start()
    total = sum(float(block.sum()) for block in read_blocks(path, 100))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == pytest.approx(x.sum(dtype=np.float64), rel=1e-4)
    assert peak < x.nbytes / 2


def test_progress_goes_up_to_the_size_of_the_file(tmp_path):
    path = tmp_path / "a.csv.gz"
    rng = np.random.default_rng(0)
    lines = [f"{a},{b}" for a, b in rng.random((9000, 2))]
    path.write_bytes(gzip.compress("\n".join(["a,b", *lines]).encode()))
    seen = []
    read_table(path, progress=lambda done, size: seen.append((done, size)))
    assert len(seen) == 3
    assert seen == sorted(seen)
    assert seen[-1] == (path.stat().st_size,) * 2
    assert seen[0][0] < seen[1][0]


def test_check_finite_names_the_row_by_its_number():
    block = np.ones((3, 4), np.float32)
    check_finite(block, [7, 2, 9])
    check_finite(X, range(6))
    block[1, 3] = np.inf
    with pytest.raises(DataError, match=r"^row 2, column 3 \(counted from 0\): .*, got inf$"):
        check_finite(block, np.array([7, 2, 9]))
    with pytest.raises(DataError, match=r"^file 'a\.npy', row 101, column 3"):
        check_finite(block, range(100, 103), "a.npy")


def test_a_table_may_be_made_of_arrays():
    table = Table(X, Y.reshape(-1, 1) * 1.0, features=NAMES)
    assert repr(table) == "<Table: 6 rows, 4 features, 1 numbers to predict>"
    assert table.classes is None
