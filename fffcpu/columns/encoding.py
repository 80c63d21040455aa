"""How the columns of a table become the inputs of a layer: numbers, categories, dates.

A table holds one number per row and column; `Encoding.expand` turns blocks of it into inputs::

    column            in the table             inputs
    number            the number               the number
    category          number of its category   one per category: 1 for that of the row, 0 otherwise
    date              days since 1970          the days; sine and cosine of year, week and day
    with missing ...  NaN (category: a code)   one more, 1 where the value is missing

A table of numbers needs no encoding: its columns are the inputs.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.columns.fields import clean_name, is_number, to_days, to_number, value_of
from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError, describe

__all__ = ["KINDS", "PERIODS", "TURN_DIGITS", "Column", "Encoding", "FieldValues", "Unknown"]

Array = NDArray[Any]

KINDS = ("number", "category", "date")

Unknown = Counter[tuple[str, str]]
"""How often each text that is no category of its column occurred, by column and text."""

PERIODS = (365.2425, 7.0, 1.0)
"""Days of a year, a week and a day."""

TURN_DIGITS = 9
"""Digits of a period's fraction: a tenth of a millisecond of a day."""

_DATE_INPUTS = ("days", *(f"{wave} of {unit}" for unit in ("year", "week", "day") for wave in "sc"))


class FieldValues(NamedTuple):
    """The values of some fields of a column."""

    numbers: NDArray[np.float64]
    """A number per field, as the table holds them."""
    wrong: int | None
    """Index of the first field that the column cannot hold, if there is one."""


@dataclasses.dataclass(frozen=True)
class Column:
    """What a column of a table holds, and which inputs of a layer it becomes.

    Parameters
    ----------
    kind : {"number", "category", "date"}
        What the column holds.
    categories : tuple of str
        Category: the texts that have an input each.
    others : bool
        Category: whether all other texts share one more input.
    missing : bool
        Whether one more input is 1 where the value is missing.
    fill : float, optional
        Number or date: value in place of a missing one. By default a missing value is an error.
    low, high : float, optional
        Number or date: limits of the value. Values beyond them, such as a misplaced decimal point,
        count as the limit.
    offset, scale : float
        Number or date: the input is ``(value - offset) / scale``, computed in float64. They are 0
        and 1, except for columns that are too large for a layer's dtype, compared with their
        changes.

    Raises
    ------
    ArgumentError
        If the kind is unknown, or a value does not fit it.
    """

    kind: str = "number"
    categories: tuple[str, ...] = ()
    others: bool = False
    missing: bool = False
    fill: float | None = None
    low: float | None = None
    high: float | None = None
    offset: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ArgumentError(
                f"argument 'kind' must be one of {', '.join(KINDS)}, got {describe(self.kind)}"
            )
        if (self.categories or self.others) and self.kind != "category":
            raise ArgumentError(
                f"argument 'categories' must be empty for a {self.kind}, "
                f"got {describe(self.categories)}"
            )
        if self.missing and self.fill is None and self.kind != "category":
            raise ArgumentError(
                "argument 'fill' must be a number where 'missing' is True, got None"
            )
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ArgumentError(
                f"argument 'low' must be at most 'high', got {self.low} and {self.high}"
            )
        if len(set(self.categories)) < len(self.categories):
            raise ArgumentError(
                f"argument 'categories' must be different texts, got {describe(self.categories)}"
            )
        numbers = (self.fill or 0.0, self.low or 0.0, self.high or 0.0, self.offset, self.scale)
        if not all(map(math.isfinite, numbers)) or self.scale <= 0.0:
            raise ArgumentError(
                "arguments 'fill', 'low', 'high', 'offset' and 'scale' must be finite, and 'scale' "
                f"above 0, got {numbers}"
            )

    @property
    def width(self) -> int:
        """Number of inputs."""
        own = {"number": 1, "date": len(_DATE_INPUTS)}.get(self.kind)
        return (len(self.categories) + self.others if own is None else own) + self.missing

    def inputs(self, name: str) -> list[str]:
        """Return the names of the inputs of a column of this name."""
        if self.kind == "number":
            names = [name]
        elif self.kind == "date":
            names = [f"{name} ({part})" for part in _DATE_INPUTS]
        else:
            names = [f"{name}={text}" for text in self.categories]
            names += [f"{name}: other"] if self.others else []
        return names + ([f"{name} missing"] if self.missing else [])

    def read(
        self, fields: Sequence[str], name: str = "", unknown: Unknown | None = None
    ) -> FieldValues:
        """Return the values of fields.

        Parameters
        ----------
        fields : sequence of str
            The texts of the fields.
        name : str
            Name of the column in ``unknown``.
        unknown : Counter, optional
            Counts the texts that are no categories, and as ``""`` values that are missing though
            none was in training.
        """
        if self.kind == "category":
            return FieldValues(self._codes(fields, name, unknown), None)
        found = self._numbers(fields)
        if unknown is not None and not self.missing and found.wrong is None:
            absent = int(np.isnan(found.numbers).sum())
            if absent:
                unknown[name, ""] += absent
        return found

    def first_wrong(self, numbers: Array) -> int | None:
        """Return the index of the first number that the column cannot hold, if there is one."""
        wrong = ~np.isfinite(numbers) if self.fill is None else np.isinf(numbers)
        return int(np.argmax(wrong)) if wrong.any() else None

    def _numbers(self, fields: Sequence[str]) -> FieldValues:
        """Return numbers or days."""
        values = _plain_numbers(fields) if self.kind == "number" else None
        if values is None:
            convert = to_number if self.kind == "number" else to_days
            values = np.empty(len(fields))
            for place, field in enumerate(fields):
                try:
                    values[place] = convert(field)
                except ValueError:
                    return FieldValues(values, place)
        return FieldValues(values, self.first_wrong(values))

    def _codes(self, fields: Sequence[str], name: str, unknown: Unknown | None) -> Array:
        """Return the number of each field's category among the inputs; -1 for no input."""
        number, alike = self._lookup
        rest = len(self.categories) if self.others else -1
        codes = np.empty(len(fields))
        for place, field in enumerate(fields):
            text = field.strip()
            code = number.get(text)
            if code is None:
                code = alike.get(value_of(text))
            if code is None:
                code = rest
                if unknown is not None:
                    unknown[name, text] += 1
            codes[place] = code
        return codes

    @functools.cached_property
    def _lookup(self) -> tuple[dict[str, int], dict[Any, int]]:
        """The codes of texts, and of the values that only one category's text stands for.

        Files and frames write the same value differently: 1 and 1.0, true and True, NA and an empty
        field.
        """
        number = {text: code for code, text in enumerate(self.categories)}
        if self.missing:
            number[""] = len(self.categories) + self.others
        values = [value_of(text) for text in self.categories]
        once = Counter(values)
        alike = {
            value: code
            for code, value in enumerate(values)
            if value is not None and once[value] == 1 and (value != "" or not self.missing)
        }
        return number, alike

    def explain(self, field: str) -> str:
        """Return the error about a field that the column cannot hold, without its place."""
        text = field.strip()
        came = describe(text) if text else "an empty field"
        if self.kind == "date":
            return f"must be a date such as 2013-01-31, got {came}"
        if not is_number(text):
            return f"must be a number, got {came}"
        return f"must be a finite number, got {float(text)}"


def _plain_numbers(fields: Sequence[str]) -> NDArray[np.float64] | None:
    """Return fields that are all numbers; None if one is not."""
    joined = "".join(fields)
    if "_" in joined or not joined.isascii():
        return None  # float would accept some of these
    try:
        return np.fromiter(map(float, fields), np.float64, len(fields))
    except ValueError:
        return None


class Encoding:
    """The columns of a table by name, and how they become inputs.

    Parameters
    ----------
    names : sequence of str
        Names of the columns.
    columns : sequence of Column
        What each of them holds.

    Attributes
    ----------
    names : tuple of str
    columns : tuple of Column
    width : int
        Number of inputs.

    Raises
    ------
    ArgumentError
        If names and columns differ in number, or there is no input.

    Examples
    --------
    >>> import numpy as np
    >>> encoding = Encoding(["size", "colour"], [Column(), Column("category", ("blue", "red"))])
    >>> encoding.inputs
    ('size', 'colour=blue', 'colour=red')
    >>> encoding.expand(np.array([[1.5, 1.0]])).tolist()
    [[1.5, 0.0, 1.0]]
    """

    def __init__(self, names: Sequence[str], columns: Sequence[Column]) -> None:
        if len(names) != len(columns) or not columns:
            raise ArgumentError(
                "arguments 'names' and 'columns' must have the same number of items, at least one, "
                f"got {len(names)} and {len(columns)}"
            )
        self.names = tuple(map(clean_name, names))
        if len(set(self.names)) < len(self.names):
            raise ArgumentError(f"argument 'names' must be different names, got {describe(names)}")
        self.columns = tuple(columns)
        starts = np.cumsum([0, *(column.width for column in columns)])
        self.width = int(starts[-1])
        if not self.width:
            raise ArgumentError("argument 'columns' must have an input, got none")
        kinds = np.array([column.kind for column in columns])
        self._codes = np.flatnonzero(kinds == "category")
        self._code_starts = starts[self._codes]
        self._values = np.flatnonzero(kinds != "category")
        self._value_starts = starts[self._values]
        chosen = [columns[int(place)] for place in self._values]
        self._fill = np.array([column.fill or 0.0 for column in chosen])
        self._low = np.array([-np.inf if column.low is None else column.low for column in chosen])
        self._high = np.array([np.inf if column.high is None else column.high for column in chosen])
        self._offset = np.array([column.offset for column in chosen])
        self._factor = np.array([1.0 / column.scale for column in chosen])
        self._indicated = np.flatnonzero([column.missing for column in chosen])
        self._indicators = np.array(
            [starts[self._values[place] + 1] - 1 for place in self._indicated], np.int64
        )
        self._dates = np.flatnonzero(kinds[self._values] == "date")

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""
        pairs = zip(self.names, self.columns, strict=True)
        return tuple(text for name, column in pairs for text in column.inputs(name))

    def check_numbers(self, name: str) -> None:
        """Raise unless all columns hold numbers, so that rows of numbers can be taken for them.

        Raises
        ------
        ArgumentTypeError
            If a column holds texts or dates.
        """
        for column, held in zip(self.names, self.columns, strict=True):
            if held.kind != "number":
                raise ArgumentTypeError(
                    f"{name} must have columns with names (a .csv or .parquet file, a data frame "
                    f"or a mapping), because the model's column {column!r} is a {held.kind}, got "
                    "numbers"
                )

    def expand(self, block: Array) -> NDArray[np.float64]:
        """Return the inputs of rows of a table.

        Parameters
        ----------
        block : array of shape (..., C)
            A number per column, as `Column.read` returns them.

        Returns
        -------
        float64 array of shape (..., I)

        Raises
        ------
        ShapeError
            If the block has another number of columns.
        """
        if block.ndim == 0 or block.shape[-1] != len(self.columns):
            raise ShapeError(
                f"argument 'x' must have {len(self.columns)} columns, as the model was trained on, "
                f"got shape {block.shape}"
            )
        rows = block.reshape(-1, len(self.columns)).astype(np.float64, copy=False)
        inputs = np.zeros((len(rows), self.width))
        self._expand_values(rows[:, self._values], inputs)
        if len(self._codes):
            codes = rows[:, self._codes].astype(np.int64)
            row, column = np.nonzero(codes >= 0)
            inputs[row, codes[row, column] + self._code_starts[column]] = 1.0
        return inputs.reshape(*block.shape[:-1], self.width)

    def _expand_values(self, values: Array, inputs: Array) -> None:
        """Write the inputs of columns of numbers and dates."""
        absent = np.isnan(values)
        filled = np.where(absent, self._fill, values)
        limited = np.clip(filled, self._low, self._high)
        inputs[:, self._value_starts] = (limited - self._offset) * self._factor
        inputs[:, self._indicators] = absent[:, self._indicated]
        for date in self._dates:
            for number, period in enumerate(PERIODS):
                # Rounded, so that a time of day which is always the same gives equal numbers.
                turns = np.round(np.mod(filled[:, date] / period, 1.0), TURN_DIGITS)
                angle = 2.0 * math.pi * turns
                place = self._value_starts[date] + 1 + 2 * number
                inputs[:, place], inputs[:, place + 1] = np.sin(angle), np.cos(angle)

    def with_values(self, **values: Array) -> Encoding:
        """Return a copy whose columns have other numbers: ``fill=`` (C,), ``offset=`` and so on.

        Columns of categories have no such numbers, and stay as they are.
        """
        columns = list(self.columns)
        for place in self._values.tolist():
            numbers: dict[str, Any] = {name: float(items[place]) for name, items in values.items()}
            columns[place] = dataclasses.replace(columns[place], **numbers)
        return Encoding(self.names, columns)

    def scaling(self) -> tuple[Array, Array]:
        """Return the offset and the scale of each column, (C,) each."""
        offset = np.array([column.offset for column in self.columns])
        return offset, np.array([column.scale for column in self.columns])

    def value_inputs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the columns that hold numbers or dates, and the input of each one's value."""
        return self._values, self._value_starts

    def __repr__(self) -> str:
        counts = Counter(column.kind for column in self.columns)
        kinds = ", ".join(f"{count} of kind {kind}" for kind, count in counts.items())
        return f"<Encoding: {len(self.columns)} columns ({kinds}), {self.width} inputs>"
