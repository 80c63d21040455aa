"""The tables that commands take: which columns are features, and blocks of rows for a layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from fffcpu.columns.encoding import Unknown
from fffcpu.data import read_blocks
from fffcpu.data.csv_table import CsvSource, read_csv_rows
from fffcpu.data.reading import has_named_columns
from fffcpu.errors import ArgumentError, list_names
from fffcpu.inference.predictor import Schema
from fffcpu.system.terminal import print_status

__all__ = [
    "RowBlock",
    "column_names",
    "layer_rows",
    "report_unknown",
    "split_names",
]

_SHOWN = 5
"""Most unknown texts that are shown per column."""


class RowBlock(NamedTuple):
    """Some rows of a table."""

    inputs: NDArray[Any]
    """(rows, I), as the layer takes them."""
    kept: list[tuple[str, ...]]
    """Fields of the columns to keep, column by column."""


def split_names(text: str) -> list[str]:
    """Return names of columns, separated by commas."""
    return [name.strip() for name in text.split(",")]


def column_names(path: str, separator: str = ",") -> list[str]:
    """Return the names of a table's columns; other files than .csv have none."""
    if not has_named_columns(path):
        return []
    return CsvSource(path, separator=separator).names()


def layer_rows(
    path: str,
    schema: Schema | None,
    rows: int,
    *,
    kept: Sequence[str] = (),
    separator: str = ",",
    unknown: Unknown | None = None,
) -> Iterator[RowBlock]:
    """Return the rows of a table in blocks, as a layer takes them.

    Parameters
    ----------
    path : str
        The table. Of a CSV file, the columns that the model names are taken.
    schema : Schema or None
        The schema of the model; None for a layer alone.
    rows : int
        Largest number of rows per block.
    kept : sequence of str
        Names of columns whose fields are returned too. They are no inputs of a layer alone.
    separator : str
        The character between the fields of a CSV file.
    unknown : Counter, optional
        Counts the texts that are no categories of the model.

    Raises
    ------
    ArgumentError
        If columns are to be kept of a file without names.
    DataError, OSError
        As for `fffcpu.data.read_blocks`.
    """
    encoding = None if schema is None else schema.encoding
    if has_named_columns(path):
        named = None if schema is None else schema.table_encoding
        source = CsvSource(
            path, encoding=named, drop=() if named else tuple(kept), separator=separator
        )
        blocks = read_csv_rows(source, rows, kept, unknown)
        found = ((block.numbers, block.texts) for block in blocks)
    elif kept:
        raise ArgumentError(f"argument '--id' must name columns of a .csv, got '{path}'")
    else:
        features = None if schema is None else schema.features
        if encoding is not None:
            encoding.check_numbers(f"file '{path}'")
        found = ((block, []) for block in read_blocks(path, rows, features))
    return (
        RowBlock(numbers if encoding is None else encoding.expand(numbers), texts)
        for numbers, texts in found
    )


def report_unknown(unknown: Unknown) -> None:
    """Report values that a model did not see in training, one line per column."""
    for column in dict.fromkeys(name for name, _ in unknown):
        texts = {text: count for (name, text), count in unknown.items() if name == column}
        missing = texts.pop("", 0)
        if missing:
            print_status(
                f"column {column!r}: {missing:,} rows have no value, though all had one in training"
            )
        if texts:
            shown = list_names(list(texts)[:_SHOWN])
            more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
            print_status(
                f"column {column!r}: {sum(texts.values()):,} rows have unknown categories: "
                f"{shown}{more}"
            )
