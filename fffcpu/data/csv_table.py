"""Tables from CSV files: features by name, targets, and rows of a model's columns."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.checks import check_integer
from fffcpu.columns.encoding import Column, Encoding, Unknown
from fffcpu.columns.fields import Classes, clean_name
from fffcpu.data.csv_file import (
    CsvBlock,
    Reader,
    choose_columns,
    csv_blocks,
    read_column_names,
)
from fffcpu.data.files import locate
from fffcpu.data.labels import (
    TargetOptions,
    TextLabels,
    missing_target,
    no_target,
    text_targets,
)
from fffcpu.data.learning import learn_encoding, learning_readers
from fffcpu.data.records import find_named, locate_field
from fffcpu.data.table import Table
from fffcpu.errors import ArgumentError, ArgumentTypeError, DataError, describe

__all__ = ["BLOCK_ROWS", "CsvSource", "as_names", "read_csv_rows", "read_csv_table"]

Array = NDArray[Any]

BLOCK_ROWS = 4096
"""Number of rows that are read at once."""

LEARN = "auto"
"""In place of an encoding: find it out from the file."""


@dataclasses.dataclass(frozen=True)
class CsvSource:
    """A CSV file, and which of its columns are features.

    Parameters
    ----------
    path : str
        The file. The ending .tsv stands for a tab between fields.
    features : sequence of str, optional
        The columns of features, in this order; by default all that are no targets.
    encoding : Encoding, "auto" or None
        What the columns hold: as in a model, as in the file, or numbers only.
    categories : sequence of str
        With "auto", columns of categories that look like numbers.
    drop : sequence of str
        Columns that are no features.
    separator : str
        The character between fields.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If an option is invalid, or does not fit the others.
    """

    path: str
    features: Sequence[str] | None = None
    encoding: Encoding | str | None = None
    categories: Sequence[str] = ()
    drop: Sequence[str] = ()
    separator: str = ","

    def __post_init__(self) -> None:
        if not isinstance(self.encoding, Encoding | None) and self.encoding != LEARN:
            raise ArgumentError(
                f"argument 'encoding' must be an Encoding, 'auto' or None, "
                f"got {describe(self.encoding)}"
            )
        for name in ("features", "categories", "drop"):
            value = getattr(self, name)
            checked = () if name != "features" and not value else as_names(name, value)
            object.__setattr__(self, name, checked)
        if self.categories and self.encoding != LEARN:
            raise ArgumentError(
                "argument 'categories' must be empty unless 'encoding' is 'auto', "
                f"got {describe(self.categories)}"
            )
        if isinstance(self.encoding, Encoding):
            if self.features is None:
                object.__setattr__(self, "features", self.encoding.names)
            if tuple(self.features or ()) != self.encoding.names or self.drop:
                raise ArgumentError(
                    "arguments 'features' and 'drop' must be left out, or be the columns of "
                    f"'encoding', got {describe(self.features)} and {describe(self.drop)}"
                )
        if self.path.lower().endswith((".tsv", ".tsv.gz")) and self.separator == ",":
            object.__setattr__(self, "separator", "\t")

    def check_unused(self) -> None:
        """Raise if there are options that only a file with names of columns can follow."""
        if self.categories or self.drop or self.encoding == LEARN:
            raise ArgumentError(
                "arguments 'encoding', 'categories' and 'drop' must be left out for a file without "
                f"names of columns, got '{self.path}'"
            )

    def names(self) -> list[str]:
        """Return the names of all columns."""
        return read_column_names(self.path, self.separator)

    def readers(self, header: Sequence[str], targets: Sequence[int] = ()) -> dict[int, Reader]:
        """Return the readers of the columns of features, by the numbers of the columns.

        Raises
        ------
        DataError
            If a column is not there, or is a target too.
        """
        dropped = find_named(self.path, header, self.drop)
        find_named(self.path, header, self.categories)
        features = self.features
        if features is not None and self.drop:
            features = [name for name in features if name not in self.drop]
        columns = choose_columns(self.path, header, features, [*targets, *dropped])
        if isinstance(self.encoding, Encoding):
            known = dict(zip(self.encoding.names, self.encoding.columns, strict=True))
            return {column: known[header[column]] for column in columns}
        if self.encoding == LEARN:
            return learning_readers(self.path, header, columns, self.categories, self.separator)
        return dict.fromkeys(columns, Column())


def as_names(argument: str, names: Any) -> tuple[str, ...] | None:
    """Return names of columns as a tuple, without spaces around them, or raise."""
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
    known = tuple(map(clean_name, names))
    if not known or len(set(known)) < len(known):
        raise ArgumentError(f"argument '{argument}' must be different names, got {describe(names)}")
    return known


class _Columns(NamedTuple):
    """Some columns of a file."""

    path: str
    header: Sequence[str]
    chosen: list[int]

    def locate(self, place: int, line: int) -> str:
        """Return the start of an error about a field of the column at this place."""
        column = self.chosen[place]
        return locate_field(self.path, column, self.header[column], line)

    def round(self, exact: Array, lines: Sequence[int] | Array, dtype: str) -> Array:
        """Return numbers in a dtype; raise if one is too large for it."""
        if dtype == "float64":
            return exact
        with np.errstate(over="ignore"):
            rounded: Array = exact.astype(dtype)
        for row, place in np.argwhere(np.isinf(rounded))[:1]:
            raise DataError(
                f"{self.locate(place, lines[row])}: must be a number that {dtype} can hold, "
                f"got {exact[row, place]}"
            )
        return rounded


def read_csv_table(
    source: CsvSource,
    target: Any,
    wanted: TargetOptions,
    *,
    drop_missing: bool = False,
    unknown: Unknown | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Table:
    """Read a table from a CSV file; see `fffcpu.data.read_table`."""
    path, header = source.path, source.names()
    targets = _find_targets(path, header, target)
    if not targets:
        wanted.check_unused()
    if len(targets) > 1 and wanted.is_classification:
        raise ArgumentError(
            f"argument 'target' must be one column for a classification, got {describe(target)}"
        )
    readers = source.readers(header, targets)
    features = _Columns(path, header, list(readers))
    numeric = wanted.task == "regression" or len(targets) > 1
    reader = _NumericTargets if numeric else _TextTarget
    goal = reader(_Columns(path, header, targets), wanted, drop_missing) if targets else None
    every: dict[int, Reader] = readers | (goal.readers if goal else {})
    texts = goal.texts if goal else []
    xs, lines, size = list[Array](), list[Array](), os.path.getsize(path)
    for block in csv_blocks(
        path, every, texts, BLOCK_ROWS, separator=source.separator, unknown=unknown
    ):
        numbers = block.numbers[:, : len(readers)]
        xs.append(features.round(numbers.copy(), block.lines, wanted.dtype))
        lines.append(np.array(block.lines))
        if goal is not None:
            goal.add(block, len(readers))
        if progress is not None:
            progress(block.position, size)
    if not xs:
        raise DataError(f"{locate(path)}: must have at least one row, got only the header")
    x = _join(xs)
    y, known = None, None
    if goal is not None:
        present, y, known = goal.result(np.concatenate(lines))
        x = x if present.all() else x[present]
    return _table(source, header, readers, x, y, targets, known)


def _table(
    source: CsvSource,
    header: Sequence[str],
    readers: dict[int, Reader],
    x: Array,
    y: Array | None,
    targets: Sequence[int],
    classes: Classes | None,
) -> Table:
    """Return the table of what was read, with what its columns hold."""
    names = [header[column] for column in readers]
    encoding, left_out, notices = source.encoding, dict[str, str](), dict[str, str]()
    if encoding == LEARN:
        learned = learn_encoding(names, readers, x)
        encoding, left_out, notices = learned.encoding, learned.left_out, learned.notices
        if not learned.kept:
            raise DataError(
                f"{locate(source.path)}: must have a column of features that can be used; "
                + "; ".join(f"{name!r} {reason}" for name, reason in left_out.items())
            )
        if left_out:
            x, names = x[:, learned.kept], [names[place] for place in learned.kept]
    return Table(
        x,
        y,
        features=tuple(names),
        target=tuple(header[column] for column in targets) or None,
        classes=classes,
        encoding=encoding if isinstance(encoding, Encoding) else None,
        left_out=left_out,
        notices=notices,
        path=source.path,
    )


def read_csv_rows(
    source: CsvSource,
    rows: int = BLOCK_ROWS,
    kept: Sequence[str] = (),
    unknown: Unknown | None = None,
) -> Iterator[CsvBlock]:
    """Read the rows of a CSV file in blocks.

    Parameters
    ----------
    source : CsvSource
        The file and its columns.
    rows : int
        Largest number of rows per block.
    kept : sequence of str
        Names of columns whose fields are returned as text as well.
    unknown : Counter, optional
        Counts the texts that are no categories.

    Returns
    -------
    iterator of CsvBlock

    Raises
    ------
    DataError
        If the file does not have these columns: at once; else at the wrong block.
    """
    check_integer("rows", rows, 1)
    header = source.names()
    texts = find_named(source.path, header, kept)
    readers = source.readers(header)
    return csv_blocks(
        source.path, readers, texts, rows, separator=source.separator, unknown=unknown
    )


# --- Targets -------------------------------------------------------------------------------------


class _Result(NamedTuple):
    """The targets of a file."""

    present: NDArray[np.bool_]
    """Which rows have a target."""
    y: Array
    classes: Classes | None


class _NumericTargets:
    """Reads columns of numbers to predict."""

    texts: Sequence[int] = ()

    def __init__(self, columns: _Columns, wanted: TargetOptions, drop_missing: bool) -> None:
        self.readers: dict[int, Reader] = dict.fromkeys(
            columns.chosen, Column(missing=True, fill=0.0)
        )
        self._columns, self._wanted, self._drop_missing = columns, wanted, drop_missing
        self._blocks: list[Array] = []

    def add(self, block: CsvBlock, first: int) -> None:
        """Add the rows of a block, whose targets stand in its columns from ``first``."""
        numbers = block.numbers[:, first:].copy()
        self._blocks.append(self._columns.round(numbers, block.lines, self._wanted.dtype))

    def result(self, lines: Array) -> _Result:
        """Return the targets; ``lines`` are those of the rows."""
        y = _join(self._blocks)
        absent = np.isnan(y)
        if absent.any() and not self._drop_missing:
            row, place = np.argwhere(absent)[0]
            raise missing_target(self._columns.locate(int(place), int(lines[row])), "")
        present: NDArray[np.bool_] = ~np.any(absent, axis=1)
        if not present.any():
            raise no_target(self._columns.locate(0, 2))
        return _Result(present, y[present], None)


class _TextTarget:
    """Reads a column of labels, which decide what the task is."""

    def __init__(self, columns: _Columns, wanted: TargetOptions, drop_missing: bool) -> None:
        self.readers: dict[int, Reader] = {}
        self.texts: Sequence[int] = columns.chosen
        self._columns, self._wanted, self._drop_missing = columns, wanted, drop_missing
        self._labels = TextLabels()

    def add(self, block: CsvBlock, first: int) -> None:
        """Add the labels of a block."""
        self._labels.add(block.texts[0], block.lines)

    def result(self, lines: Array) -> _Result:
        """Return the targets."""
        place = functools.partial(self._columns.locate, 0)
        labels = self._labels.labels(place, self._wanted, self._drop_missing)
        present = labels.numbers >= 0
        if not present.any():
            raise no_target(place(2))
        found = labels._replace(numbers=labels.numbers[present])
        wanted = self._wanted
        return _Result(
            present, *text_targets(found, place, wanted.task, wanted.classes, wanted.dtype)
        )


def _find_targets(path: str, header: Sequence[str], target: Any) -> list[int]:
    """Return the numbers of the target's columns."""
    if target is None:
        return []
    names: Sequence[str] | None
    if not isinstance(target, str):
        names = as_names("target", target)
    elif clean_name(target) in header:
        names = (clean_name(target),)
    else:
        names = as_names("target", target.split(","))
    return find_named(path, header, names or ())


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
