"""Data frames by the names of their columns: pandas, polars, pyarrow, or a mapping of columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.columns.encoding import Column, Encoding, Unknown
from fffcpu.columns.fields import clean_name, to_field
from fffcpu.errors import DataError, list_names

__all__ = ["encode_frame", "find_keys", "frame_array", "frame_columns", "is_frame"]

_MICROSECONDS = 86400e6
"""Microseconds of a day."""


def is_frame(x: Any) -> bool:
    """Whether an object is a data frame or a mapping of columns."""
    return isinstance(x, Mapping) or (
        hasattr(x, "__getitem__") and (hasattr(x, "columns") or hasattr(x, "column_names"))
    )


def frame_columns(frame: Any) -> list[Any]:
    """Return the names of a frame's columns."""
    if isinstance(frame, Mapping):
        return list(frame)
    # The columns of a pyarrow table are arrays.
    return list(getattr(frame, "column_names", None) or frame.columns)


def frame_array(frame: Any) -> NDArray[Any]:
    """Return all columns of a frame, in their order, as an array (rows, columns).

    Raises
    ------
    DataError
        If columns differ in length.
    """
    names = frame_columns(frame)
    for name, count in Counter(names).items():
        if count > 1:
            raise DataError(f"the data must have one column {name!r}, got {count} of that name")
    columns = [_values(frame[name], str(name)) for name in names]
    return _stacked(columns) if columns else np.empty((0, 0))


def _stacked(columns: list[NDArray[Any]]) -> NDArray[Any]:
    """Return columns side by side."""
    lengths = sorted({len(column) for column in columns})
    if len(lengths) > 1:
        raise DataError(f"columns must be equally long, got {lengths[0]} and {lengths[-1]} values")
    return np.stack(columns, axis=1)


def encode_frame(frame: Any, encoding: Encoding, unknown: Unknown | None = None) -> NDArray[Any]:
    """Return a frame's columns, found by their names, as a table of numbers.

    Parameters
    ----------
    frame : pandas, polars or pyarrow frame, or mapping of str to array_like
        Columns in any order; columns that the encoding does not name are ignored.
    encoding : Encoding
        The columns of a model.
    unknown : Counter, optional
        Counts the texts that are no categories.

    Returns
    -------
    float64 array of shape (rows, columns)

    Raises
    ------
    DataError
        If a column is missing or occurs twice, or a value does not fit its column.
    """
    keys = find_keys(frame_columns(frame), encoding.names)
    columns = []
    for name, key, column in zip(encoding.names, keys, encoding.columns, strict=True):
        values = _values(frame[key], name)
        columns.append(_encode(values, column, name, unknown))
    return _stacked(columns)


def find_keys(present: Sequence[Any], wanted: Sequence[str]) -> list[Any]:
    """Return the key of each wanted name; spaces around names do not count.

    Raises
    ------
    DataError
        If a wanted name is missing or occurs twice.
    """
    keys: dict[str, list[Any]] = {}
    for key in present:
        keys.setdefault(clean_name(key), []).append(key)
    for name in wanted:
        found = keys.get(name, [])
        if len(found) != 1:
            number = "no column" if not found else f"{len(found)} columns"
            raise DataError(
                f"the data must have one column {name!r}, as the model was trained on, "
                f"got {number} of that name among {list_names(present)}"
            )
    return [keys[name][0] for name in wanted]


def _values(column: Any, name: str) -> NDArray[Any]:
    """Return a column of a frame as an array of one axis: numbers, dates or objects."""
    if hasattr(column, "to_pylist"):
        # Arrays of pyarrow: those of NumPy that it makes take some missing values for others.
        values = np.array([*column.to_pylist(), None], object)[:-1]
        plain = not column.null_count and {type(value) for value in values} <= {int, float}
        values = values.astype(np.float64) if plain and len(values) else values
    elif isinstance(column, np.ma.MaskedArray):
        values = np.where(np.ma.getmaskarray(column), np.array(None), np.ma.getdata(column))
    elif hasattr(column, "to_numpy"):
        try:
            values = np.asarray(column.to_numpy())
        except (TypeError, ValueError):
            values = np.array(list(column), object)
    else:
        values = np.asarray(column)
    if values.ndim != 1:
        raise DataError(f"column {name!r} must have one value per row, got shape {values.shape}")
    return values if values.dtype.kind in "fiubM" else values.astype(object)


def _encode(
    values: NDArray[Any], column: Column, name: str, unknown: Unknown | None
) -> NDArray[Any]:
    """Return a column's numbers."""
    numbers = _converted(values, column.kind)
    if numbers is None:
        fields = [to_field(value) for value in values]
        found = column.read(fields, name, unknown)
        if found.wrong is not None:
            raise _wrong(name, found.wrong, column.explain(fields[found.wrong]))
        return found.numbers
    row = column.first_wrong(numbers)
    if row is not None:
        raise _wrong(name, row, f"must be a finite number, got {numbers[row]}")
    absent = 0 if column.missing or unknown is None else int(np.isnan(numbers).sum())
    if absent and unknown is not None:
        unknown[name, ""] += absent
    return numbers


def _converted(values: NDArray[Any], kind: str) -> NDArray[Any] | None:
    """Return an array as the numbers of a column, if that needs no look at single values."""
    if kind == "number" and values.dtype.kind in "fiub":
        return values.astype(np.float64)
    if kind == "date" and values.dtype.kind == "M":
        days = values.astype("datetime64[us]").astype(np.int64) / _MICROSECONDS
        return np.where(np.isnat(values), np.nan, days)
    return None


def _wrong(name: str, row: int, reason: str) -> DataError:
    return DataError(f"column {name!r}, row {row} (counted from 0): {reason}")
