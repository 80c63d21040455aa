"""Parquet files as records of fields, so that tables follow the rules of CSV files.

A value becomes the field that a CSV file would have for it: a number with all its digits, a date or
a time in ISO 8601, an empty field for a missing value.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from fffcpu.columns.fields import clean_name, to_field
from fffcpu.data.files import check_regular, locate
from fffcpu.errors import DataError, require_extra

__all__ = ["is_parquet", "open_parquet"]

BATCH_ROWS = 4096
"""Number of rows that are decoded together."""


def is_parquet(path: str) -> bool:
    """Whether a file is one of Parquet, by the ending of its name."""
    return path.lower().endswith(".parquet")


@contextlib.contextmanager
def open_parquet(path: str) -> Iterator[tuple[list[str], Iterator[tuple[int, list[str]]]]]:
    """Open a Parquet file.

    Parameters
    ----------
    path : str
        The file.

    Yields
    ------
    names : list of str
        Names of its columns.
    records : iterator of (int, list of str)
        The number of each row, from 1, and its fields.

    Raises
    ------
    MissingExtraError
        If pyarrow is not installed.
    DataError
        If it is no Parquet file, or has columns of several values per row; also raised while its
        records are read.
    OSError
        If it cannot be read.
    """
    parquet: Any = require_extra("pyarrow.parquet", "parquet")
    check_regular(path)
    try:
        with parquet.ParquetFile(path) as file:
            names = [clean_name(name) for name in file.schema_arrow.names]
            nested = [field.name for field in file.schema_arrow if field.type.num_fields]
            if nested:
                raise DataError(
                    f"{locate(path)}: must have one value per row and column, got several in "
                    f"{nested[0]!r}"
                )
            yield names, _records(file)
    except (OSError, DataError):
        raise
    except Exception as error:
        if not type(error).__module__.startswith("pyarrow"):
            raise
        raise DataError(f"{locate(path)}: must be a whole Parquet file ({error})") from error


def _records(file: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of an open file."""
    number = 0
    for batch in file.iter_batches(BATCH_ROWS):
        columns = [[to_field(value) for value in column.to_pylist()] for column in batch.columns]
        for fields in zip(*columns, strict=True):
            number += 1
            yield number, list(fields)
