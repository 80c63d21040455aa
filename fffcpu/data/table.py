"""Tables of rows and targets, whole or in blocks, from files of several formats.

The ending of a file's name gives its format; an IDX file is recognised by its first two bytes:

=============  =======================================================  =========================
file           holds                                                    how it is read
=============  =======================================================  =========================
.csv, .csv.gz  a header, then a record per row; the target is a column  in blocks of rows
.npy           an array; the target is another file                     mapped into memory
.npz           arrays; the target is one of them                        whole
IDX            an array, gzipped or not; the target is another file     mapped, if not gzipped
=============  =======================================================  =========================

A mapped array is read from the disk as it is used, so it may be larger than memory. Its numbers are
not checked beforehand: code that takes blocks of rows from it calls `check_finite`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.checks import check_integer
from fffcpu.data.csv_file import choose_columns, csv_blocks, read_column_names
from fffcpu.data.files import check_regular, locate, open_file
from fffcpu.data.idx import IDX_MAGIC, idx_blocks, read_idx, read_idx_header
from fffcpu.data.labels import (
    Classes,
    TextLabels,
    array_targets,
    check_classes,
    text_targets,
)
from fffcpu.data.numpy_files import map_npy, read_npz
from fffcpu.data.records import find_columns, locate_field
from fffcpu.errors import ArgumentError, ArgumentTypeError, DataError, describe

__all__ = ["Table", "check_finite", "count_rows", "read_blocks", "read_table"]

Array = NDArray[Any]
Path = str | os.PathLike[str]

BLOCK_ROWS = 4096
"""Number of rows that are read at once."""

ENDINGS = {".csv": "csv", ".csv.gz": "csv", ".npy": "npy", ".npz": "npz"}
"""Format of a file, by the ending of its name."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Table:
    """Rows of numbers, and the targets of the rows.

    Parameters
    ----------
    x : array of shape (rows, features)
        Real numbers, in the dtype and byte order of the file.
    y : array, optional
        For classification, int64 class numbers of shape (rows,); for regression, floats of shape
        (rows, outputs).
    features : tuple of str, optional
        Names of the columns of ``x``.
    target : tuple of str, optional
        Names of the columns of ``y``.
    classes : tuple of str or of int, optional
        For classification: the label of each class number.
    image_shape : tuple of int, optional
        Shape of a row, if the file's array has more than two axes.
    path : str, optional
        The file of ``x``, for errors.
    """

    x: Array
    y: Array | None = None
    _: dataclasses.KW_ONLY
    features: tuple[str, ...] | None = None
    target: tuple[str, ...] | None = None
    classes: Classes | None = None
    image_shape: tuple[int, ...] | None = None
    path: str | None = None

    def __repr__(self) -> str:
        if self.y is None:
            targets = "no target"
        elif self.classes is not None:
            targets = f"{len(self.classes):,} classes"
        else:
            targets = f"{self.y.shape[1]:,} numbers to predict"
        return f"<Table: {len(self.x):,} rows, {self.x.shape[1]:,} features, {targets}>"


def read_table(
    path: Path,
    target: Path | Sequence[str] | None = None,
    task: str | None = None,
    *,
    features: Sequence[str] | None = None,
    classes: Sequence[str] | Sequence[int] | None = None,
    dtype: str = "float32",
    progress: Callable[[int, int], object] | None = None,
) -> Table:
    """Read a table of rows and targets from files.

    Parameters
    ----------
    path : path
        A .csv, .csv.gz, .npy, .npz or IDX file. Arrays of more than two axes, such as images, are
        flattened to rows.
    target : str, path or sequence of str, optional
        The target. For a CSV file, the name of a column; for a regression also several names, in a
        sequence or separated by commas. For a .npz file, the name of an array (default: ``"y"``,
        if there is one). For other files, the path of a .npy or IDX file.
    task : {"classification", "regression"}, optional
        Default: integers and text are classes, other numbers a regression. The task must be given
        if only some of the texts are numbers. Several columns of a CSV file are a regression.
    features : sequence of str, optional
        Columns of a CSV file to read, in this order: those of a model. Default: all but the
        target. Other files have no names of columns; only their number of columns is checked.
    classes : sequence of str or of int, optional
        The known classes, in the order of their numbers: those of a model. Default: the labels that
        occur, sorted.
    dtype : {"float32", "float64"}
        dtype of numbers that are not stored as floats: those of CSV files, and integers to predict.
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
    wish = _Wish(task, check_classes(classes), dtype)
    names = _check_names("features", features)
    kind = _kind(name)
    if kind == "csv":
        return _read_csv(name, target, names, wish, progress)
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
        wish.check_unused()
    else:
        y, known = array_targets(labels, len(x), label_where, wish.task, wish.classes, dtype)
    return Table(
        x.reshape(len(x), -1),
        y,
        features=names,
        classes=known,
        image_shape=x.shape[1:] if x.ndim > 2 else None,
        path=name,
    )


def read_blocks(
    path: Path,
    rows: int = BLOCK_ROWS,
    features: Sequence[str] | None = None,
    *,
    dtype: str = "float32",
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
    _check_dtype(dtype)
    names = _check_names("features", features)
    kind = _kind(name)
    if kind == "csv":
        columns = choose_columns(name, read_column_names(name), names)
        return (block.numbers for block in csv_blocks(name, columns, None, rows, dtype))
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
    kind = _kind(name)
    if kind not in ("idx", "npy"):
        return None
    rows = read_idx_header(name) if kind == "idx" else map_npy(name)
    _check_rows(locate(name), rows.dtype, rows.shape, None)
    return rows.shape[0]


def check_finite(block: Array, rows: Sequence[int] | NDArray[Any], path: str | None = None) -> None:
    """Raise unless all numbers of some rows of a table are finite.

    Parameters
    ----------
    block : array of shape (R, features)
        The rows.
    rows : sequence of int, length R
        Their numbers in the table, such as ``range(first, first + R)``.
    path : str, optional
        The file of the rows, for errors.

    Raises
    ------
    DataError
        If a number is NaN or infinite; the message names its row and column.
    """
    if block.dtype.kind != "f":
        return
    finite = np.isfinite(block)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        place = f"row {rows[row]}, column {column} (counted from 0)"
        place = place if path is None else locate(path, place)
        raise DataError(f"{place}: must be a finite number, got {block[row, column]}")


def _finite_rows(blocks: Iterable[Array], path: str) -> Iterator[Array]:
    """Check that blocks of an array flattened to rows are finite, and yield them."""
    first = 0
    for block in blocks:
        flat = block.reshape(len(block), -1)
        check_finite(flat, range(first, first + len(flat)), path)
        first += len(flat)
        yield flat


# --- Arguments -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Wish:
    """The caller's requirements on the targets."""

    task: str | None
    classes: Classes | None
    dtype: str

    def __post_init__(self) -> None:
        if self.task not in (None, "classification", "regression"):
            raise ArgumentError(
                f"argument 'task' must be classification or regression, got {describe(self.task)}"
            )
        if self.task == "regression" and self.classes is not None:
            raise ArgumentError(
                f"argument 'classes' must be None for a regression, got {describe(self.classes)}"
            )
        _check_dtype(self.dtype)

    @property
    def is_classification(self) -> bool:
        """Whether targets have to be classes."""
        return self.task == "classification" or self.classes is not None

    def check_unused(self) -> None:
        """Raise if there are requirements on targets but no targets."""
        if self.task is not None or self.classes is not None:
            raise ArgumentError(
                "argument 'target' must be given where 'task' or 'classes' is, got None"
            )


def _wrong_target(wanted: str, target: Any) -> ArgumentTypeError:
    return ArgumentTypeError(f"argument 'target' must be {wanted}, got {describe(target)}")


def _check_dtype(dtype: Any) -> None:
    if dtype not in ("float32", "float64"):
        raise ArgumentError(f"argument 'dtype' must be float32 or float64, got {describe(dtype)}")


def _check_names(argument: str, names: Any) -> tuple[str, ...] | None:
    """Return names of columns as a tuple, or raise."""
    if names is None:
        return None
    if (
        isinstance(names, str)
        or not isinstance(names, Sequence)
        or not all(isinstance(name, str) for name in names)
    ):
        raise ArgumentTypeError(
            f"argument '{argument}' must be a sequence of names, got {describe(names)}"
        )
    if not names or len(set(names)) < len(names):
        raise ArgumentError(f"argument '{argument}' must be different names, got {describe(names)}")
    return tuple(names)


# --- Files ---------------------------------------------------------------------------------------


def _kind(path: str) -> str:
    """Return the format of a file: csv, npy, npz or idx."""
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
    kind = _kind(path)
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


def _read_csv(
    path: str,
    target: Any,
    features: tuple[str, ...] | None,
    wish: _Wish,
    progress: Callable[[int, int], object] | None,
) -> Table:
    """Read a table from a CSV file."""
    header = read_column_names(path)
    targets = _find_targets(path, header, target)
    if not targets:
        wish.check_unused()
    if len(targets) > 1 and wish.is_classification:
        raise ArgumentError(
            f"argument 'target' must be one column for a classification, got {describe(target)}"
        )
    columns = choose_columns(path, header, features, targets)
    # Columns to read as numbers, and one to read as text: its labels decide the task.
    outputs = targets if wish.task == "regression" or len(targets) > 1 else []
    text = targets[0] if targets and not outputs else None
    xs, ys, labels = list[Array](), list[Array](), TextLabels()
    size = os.path.getsize(path)
    for block in csv_blocks(path, [*columns, *outputs], text, BLOCK_ROWS, wish.dtype):
        xs.append(block.numbers[:, : len(columns)])
        ys.append(block.numbers[:, len(columns) :].copy())
        if text is not None:
            labels.add(block.texts, block.lines)
        if progress is not None:
            progress(block.position, size)
    if not xs:
        raise DataError(f"{locate(path)}: must have at least one row, got only the header")
    y, known = _join(ys) if outputs else None, None
    if text is not None:
        place = functools.partial(locate_field, path, text, header[text])
        y, known = text_targets(labels.labels(), place, wish.task, wish.classes, wish.dtype)
    return Table(
        _join(xs),
        y,
        features=tuple(header[column] for column in columns),
        target=tuple(header[column] for column in targets) or None,
        classes=known,
        path=path,
    )


def _find_targets(path: str, header: Sequence[str], target: Any) -> list[int]:
    """Return the numbers of the target's columns."""
    if target is None:
        return []
    if not isinstance(target, str):
        names = _check_names("target", target)
    elif target in header:
        names = (target,)
    else:
        names = _check_names("target", [name.strip() for name in target.split(",")])
    return find_columns(path, header, names or ())


def _join(blocks: list[Array]) -> Array:
    """Return blocks as one array; each is dropped after its copy, so few are held twice."""
    whole = np.empty((sum(map(len, blocks)), blocks[0].shape[1]), blocks[0].dtype)
    blocks.reverse()
    row = 0
    while blocks:
        block = blocks.pop()
        whole[row : row + len(block)] = block
        row += len(block)
    return whole
