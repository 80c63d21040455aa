"""Tables of rows and targets, whole or in blocks, from files of several formats.

The ending of a file's name gives its format; an IDX file is recognized by its first two bytes:

=============  =======================================================  =========================
file           holds                                                    how it is read
=============  =======================================================  =========================
.csv, .tsv     a header, then a record per row; the target is a column  in blocks of rows
.parquet       columns with names, as in a .csv (extra ``parquet``)     in blocks of rows
.npy           an array; the target is another file                     mapped into memory
.npz           arrays; the target is one of them                        whole
IDX            an array, gzipped or not; the target is another file     mapped, if not gzipped
=============  =======================================================  =========================

.csv and .tsv files may be gzipped. A mapped array is read from the disk as it is used, so it may be
larger than memory. Its numbers are not checked beforehand: code that takes blocks of rows from it
calls `check_finite`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.checks import check_integer
from fffcpu.columns.encoding import Encoding, Unknown
from fffcpu.columns.fields import Classes
from fffcpu.data.csv_table import BLOCK_ROWS, CsvSource, as_names, read_csv_rows, read_csv_table
from fffcpu.data.files import check_regular, locate, open_file
from fffcpu.data.idx import IDX_MAGIC, idx_blocks, read_idx, read_idx_header
from fffcpu.data.labels import TargetOptions, array_targets, check_classes
from fffcpu.data.numpy_files import map_npy, read_npz
from fffcpu.data.table import Table, check_finite
from fffcpu.errors import ArgumentTypeError, DataError, describe

__all__ = ["count_rows", "format_of", "has_named_columns", "read_blocks", "read_table"]

Array = NDArray[Any]
Path = str | os.PathLike[str]

ENDINGS = {
    **dict.fromkeys((".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet"), "csv"),
    ".npy": "npy",
    ".npz": "npz",
}
"""Format of a file, by the ending of its name; csv stands for all whose columns have names."""


def read_table(
    path: Path,
    target: Path | Sequence[str] | None = None,
    task: str | None = None,
    *,
    features: Sequence[str] | None = None,
    classes: Classes | Sequence[Any] | None = None,
    dtype: str = "float64",
    encoding: Encoding | str | None = None,
    categories: Sequence[str] = (),
    drop: Sequence[str] = (),
    drop_missing: bool = False,
    separator: str = ",",
    unknown: Unknown | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Table:
    """Read a table of rows and targets from files.

    Parameters
    ----------
    path : path
        A .csv, .csv.gz, .tsv, .parquet, .npy, .npz or IDX file. Arrays of more than two axes, such
        as images, are flattened to rows.
    target : str, path or sequence of str, optional
        The target. For a CSV file, the name of a column; for a regression also several names, in a
        sequence or separated by commas. For a .npz file, the name of an array (default: ``"y"``,
        if there is one). For other files, the path of a .npy or IDX file.
    task : {"classification", "regression"}, optional
        By default, text and truth values are classes, and so are whole numbers, unless there are
        more than 20 different ones and they are more than 5% of the rows, or some are negative.
        All other numbers are a regression. The task must be given if only some of the texts are
        numbers. Several columns of a CSV file are a regression.
    features : sequence of str, optional
        Columns of a CSV file to read, in this order: those of a model. Default: all but the
        target. Other files have no names of columns; only their number of columns is checked.
    classes : sequence of str, int, float or bool, optional
        The known classes, in the order of their numbers: those of a model. Default: the labels that
        occur, as they are written, sorted.
    dtype : {"float32", "float64"}
        dtype of numbers that are not stored as floats: those of CSV files, and integers to predict.
        float32 takes half the memory, but loses the changes of a column that is large compared with
        them, such as a time in seconds.
    encoding : Encoding or "auto", optional
        Columns of a CSV file that are not numbers: those of a model, or found out from the file. By
        default, every field must be a number.
    categories : sequence of str
        With "auto", columns whose fields are categories although they look like numbers.
    drop : sequence of str
        Columns of a CSV file that are no features.
    drop_missing : bool
        Whether to leave out rows of a CSV file without a target. By default they are an error.
    separator : str
        The character between the fields of a CSV file.
    unknown : Counter, optional
        With a model's encoding, counts the texts that it does not know, by column and text.
    progress : callable, optional
        Called with the number of bytes read and the file's size after each block of a CSV file.

    Returns
    -------
    Table
        The table. ``x`` is memory-mapped and read-only if it is from a .npy file, or from an IDX
        file that is not gzipped. (A .npy file in Fortran order with more than two axes is copied.)

    Raises
    ------
    DataError
        If a file has an unknown format, is damaged or has wrong contents. Each field must contain
        a finite number, each line must have equally many fields, each row a label, and labels must
        be known classes. The message names the file and the line or row.
    ArgumentError, ArgumentTypeError
        If the other arguments are invalid, or do not fit together.
    OSError
        If a file cannot be opened: FileNotFoundError, IsADirectoryError and so on.

    Examples
    --------
    >>> from importlib.resources import files
    >>> from fffcpu.data import read_table
    >>> table = read_table(files("fffcpu.data") / "digits.npz", target="labels")
    >>> table.x.shape, table.y.shape, table.classes
    ((1797, 64), (1797,), (0, 1, 2, 3, 4, 5, 6, 7, 8, 9))
    """
    name = os.fsdecode(path)
    wanted = TargetOptions(task, check_classes(classes), dtype)
    names = as_names("features", features)
    kind = format_of(name)
    source = CsvSource(name, names, encoding, categories, drop, separator)
    if kind == "csv":
        return read_csv_table(
            source, target, wanted, drop_missing=drop_missing, unknown=unknown, progress=progress
        )
    source.check_unused()
    if isinstance(encoding, Encoding):
        encoding.check_numbers(locate(name))
    labels: Array | None
    if kind == "npz":
        if target is not None and not isinstance(target, str):
            raise _wrong_target("the name of an array", target)
        x, where, labels, label_where = read_npz(name, target)
    else:
        x, where = _read_array(name, kind), locate(name)
        labels, label_where = _read_labels(target)
    _check_rows(where, x.dtype, x.shape, names)
    if not len(x):
        raise DataError(f"{where}: must have at least one row, got none")
    y, known = None, None
    if labels is None:
        wanted.check_unused()
    else:
        y, known = array_targets(labels, len(x), label_where, wanted.task, wanted.classes, dtype)
    return Table(
        x.reshape(len(x), -1),
        y,
        features=names,
        classes=known,
        encoding=encoding if isinstance(encoding, Encoding) else None,
        image_shape=x.shape[1:] if x.ndim > 2 else None,
        path=name,
    )


def has_named_columns(path: str) -> bool:
    """Whether the columns of a file have names, by the ending of its name."""
    return any(path.lower().endswith(ending) for ending in ENDINGS if ENDINGS[ending] == "csv")


def read_blocks(
    path: Path,
    rows: int = BLOCK_ROWS,
    features: Sequence[str] | None = None,
    *,
    dtype: str = "float64",
    separator: str = ",",
) -> Iterator[Array]:
    """Read the rows of a table in blocks, in bounded memory (but a .npz file is read whole).

    Parameters
    ----------
    path : path
        A file as for `read_table`.
    rows : int
        Largest number of rows per block.
    features : sequence of str, optional
        Columns of a CSV file to read, in this order: those of a model. Other columns are skipped.
        Default: all. Of other files, only the number of columns is checked.
    dtype : {"float32", "float64"}
        dtype of the numbers of CSV files.
    separator : str
        The character between the fields of a CSV file.

    Returns
    -------
    iterator of array of shape (up to rows, features)
        The rows in their order, all finite; no block if there is no row. The last block may be
        smaller. Blocks of mapped files are read-only.

    Raises
    ------
    DataError
        As for `read_table`: at once if the start of the file is wrong, else at the wrong block.
    ArgumentError, ArgumentTypeError
        If another argument is invalid.
    OSError
        If the file cannot be opened.
    """
    name = os.fsdecode(path)
    check_integer("rows", rows, 1)
    TargetOptions(None, None, dtype)
    source = CsvSource(name, features, separator=separator)
    kind = format_of(name)
    if kind == "csv":
        return (block.numbers.astype(dtype) for block in read_csv_rows(source, rows))
    names = as_names("features", features)
    if kind == "idx":
        header = read_idx_header(name)
        _check_rows(locate(name), header.dtype, header.shape, names)
        if header.gzipped:
            return _finite_rows(idx_blocks(name, rows), name)
    if kind == "npz":
        x, where, _, _ = read_npz(name, None)
    else:
        x, where = _read_array(name, kind), locate(name)
    _check_rows(where, x.dtype, x.shape, names)
    return _finite_rows((x[start : start + rows] for start in range(0, len(x), rows)), name)


def count_rows(path: Path) -> int | None:
    """Return the number of rows that `read_blocks` will yield, if it is known without reading them.

    Parameters
    ----------
    path : path
        A file as for `read_table`.

    Returns
    -------
    int or None
        The number of rows; None for .csv and .npz files.

    Raises
    ------
    DataError, OSError
        As for `read_blocks`.
    """
    name = os.fsdecode(path)
    kind = format_of(name)
    if kind not in ("idx", "npy"):
        return None
    rows = read_idx_header(name) if kind == "idx" else map_npy(name)
    _check_rows(locate(name), rows.dtype, rows.shape, None)
    return rows.shape[0]


def _finite_rows(blocks: Iterable[Array], path: str) -> Iterator[Array]:
    """Check that blocks of an array flattened to rows are finite, and yield them."""
    first = 0
    for block in blocks:
        flat = block.reshape(len(block), -1)
        check_finite(flat, range(first, first + len(flat)), path)
        first += len(flat)
        yield flat


def _wrong_target(wanted: str, target: Any) -> ArgumentTypeError:
    return ArgumentTypeError(f"argument 'target' must be {wanted}, got {describe(target)}")


def format_of(path: str) -> str:
    """Return the format of a file: csv, npy, npz or idx.

    Raises
    ------
    DataError, OSError
        If the format is unknown, or there is no such file.
    """
    check_regular(path)
    for ending, kind in ENDINGS.items():
        if path.lower().endswith(ending):
            return kind
    with open_file(path) as file:
        if file.content.read(len(IDX_MAGIC)) == IDX_MAGIC:
            return "idx"
    raise DataError(
        f"{locate(path)}: must end in {', '.join(ENDINGS)}, or be an IDX file, which starts with "
        "two bytes of 0"
    )


def _read_array(path: str, kind: str) -> Array:
    """Return the array of a .npy or IDX file."""
    return map_npy(path) if kind == "npy" else read_idx(path)


def _read_labels(target: Any) -> tuple[Array | None, str]:
    """Return the array of a file of labels, if there is one, and its name for errors."""
    if target is None:
        return None, ""
    if not isinstance(target, str | os.PathLike):
        raise _wrong_target("the path of a file", target)
    path = os.fsdecode(target)
    kind = format_of(path)
    if kind not in ("npy", "idx"):
        raise DataError(f"{locate(path)}: must be a .npy or IDX file, as labels of such a file are")
    return _read_array(path, kind), locate(path)


def _check_rows(
    where: str, dtype: np.dtype[Any], shape: tuple[int, ...], features: tuple[str, ...] | None
) -> None:
    """Raise unless an array holds rows of real numbers, as many as there are features."""
    if dtype.kind not in "fiub":
        raise DataError(f"{where}: must hold real numbers, got dtype {dtype}")
    if len(shape) < 2 or 0 in shape[1:]:
        raise DataError(f"{where}: must have shape (rows, features), got shape {shape}")
    if features is not None and math.prod(shape[1:]) != len(features):
        raise DataError(
            f"{where}: must have {len(features)} columns, as the model was trained on, "
            f"got {math.prod(shape[1:])}"
        )
