"""What the columns of a CSV file hold, found out from the file itself.

The first rows decide whether a column holds numbers, dates or categories. A field further down that
does not fit is an error: it may be a mistake, which must not turn a column of numbers into
categories. All rows decide which categories there are.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.columns.encoding import Column, Encoding, FieldValues, Unknown
from fffcpu.columns.fields import is_date, is_missing, to_number
from fffcpu.data.csv_file import Reader, open_table
from fffcpu.errors import ArgumentError, describe

__all__ = [
    "Learned",
    "Vocabulary",
    "describe_form",
    "learn_encoding",
    "learning_readers",
]

SAMPLED_ROWS = 4096
"""Number of rows that decide what columns hold."""

MOST_CATEGORIES = 128
"""Most categories that have an input each; the most frequent ones."""

CATEGORY_ROWS = 10
"""Rows that a category needs for an input of its own; 1% of the rows if that is less."""

FEW_TEXTS = 20
"""A column with more different texts, and in more than half of its rows, is an identifier."""

MANY_TEXTS = 50_000
"""Different texts from which a column is watched: the texts of an identifier fill the memory."""

_TIME = r"([ T,]+[0-9]{1,2}:[0-9]{2}.*)?"

_FORMS = {
    "looks like numbers with a decimal comma: write a point": re.compile(
        r"[+-]?([0-9]{1,3}([. ][0-9]{3})+|[0-9]*),[0-9]+([eE][+-]?[0-9]+)?"
    ),
    "looks like numbers with commas between thousands: leave them out": re.compile(
        r"[+-]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]*)?"
    ),
    "looks like dates in another order: write 2013-01-31": re.compile(
        r"([0-9]{1,2}([./-])[0-9]{1,2}\2[0-9]{4}|[0-9]{1,2}/[0-9]{1,2}/[0-9]{2}"
        r"|[0-9]{2}([.-])[0-9]{2}\3[0-9]{2}|[0-9]{4}([./-])[0-9]{1,2}\4[0-9]{1,2}"
        r"|[0-9]{1,2}[. -]+[A-Za-z]{3,9}[., -]+[0-9]{2,4}|[A-Za-z]{3,9}[. ]+[0-9]{1,2},? +[0-9]{4})"
        + _TIME
    ),
}
"""Patterns of numbers and dates in other notations, by the hint for a column of them."""


class _Strict(NamedTuple):
    """Reads a column of numbers or dates in which values may be missing."""

    column: Column

    def read(
        self, fields: Sequence[str], name: str = "", unknown: Unknown | None = None
    ) -> FieldValues:
        return self.column.read(fields, name, unknown)

    def explain(self, field: str) -> str:
        form = describe_form([field])
        if form:
            return f"{self.column.explain(field)}; the field {form}"
        return (
            f"{self.column.explain(field)}, as the first rows of this column have; if its texts "
            "are categories, name it with --category (categories=)"
        )


class Vocabulary:
    """Reads a column of texts, and numbers them as they appear.

    Parameters
    ----------
    named : bool
        Whether the caller names the column as one of categories, so that it is no identifier.
    """

    def __init__(self, named: bool = False) -> None:
        self.named = named
        self._numbers: dict[str, int] = {}
        self._counts: list[int] = []
        self.rows = 0
        self.is_identifier = False
        self._forgotten = ""

    def read(
        self, fields: Sequence[str], name: str = "", unknown: Unknown | None = None
    ) -> FieldValues:
        """Return the number of each field's text; -1 for an empty field."""
        codes = np.empty(len(fields))
        self.rows += len(fields)
        for place, field in enumerate(fields):
            text = field.strip()
            if not text or self.is_identifier:
                codes[place] = -1
                continue
            code = self._numbers.setdefault(text, len(self._counts))
            if code == len(self._counts):
                self._counts.append(0)
            self._counts[code] += 1
            codes[place] = code
        self._watch()
        return FieldValues(codes, None)

    def explain(self, field: str) -> str:
        """Return an error; every field is a category."""
        raise AssertionError(field)

    def _watch(self) -> None:
        """Forget the texts of an identifier, which would fill the memory."""
        if self.named or self.is_identifier:
            return
        if len(self._counts) > MANY_TEXTS and 2 * len(self._counts) > self.rows:
            self.is_identifier = True
            self._forgotten = describe_form(self._numbers)
            self._numbers.clear()

    @property
    def seems_identifier(self) -> bool:
        """Whether most rows have a text of their own, of many."""
        many = self.texts > FEW_TEXTS and 2 * self.texts > self.rows
        return self.is_identifier or (many and not self.named)

    @property
    def form(self) -> str:
        """What the texts look like; see `describe_form`."""
        return self._forgotten or describe_form(self._numbers)

    @property
    def texts(self) -> int:
        """Number of different texts so far."""
        return len(self._counts)

    def chosen(self) -> tuple[Column, NDArray[np.float64]]:
        """Return the column with its categories, and its code for each number given so far.

        The last item of the codes is that of an empty field.
        """
        counts = np.array(self._counts, np.int64)
        least = min(CATEGORY_ROWS, max(1, self.rows // 100))
        order = np.argsort(-counts, kind="stable")[:MOST_CATEGORIES]
        frequent = {int(code) for code in order if counts[code] >= least}
        texts = sorted(text for text, code in self._numbers.items() if code in frequent)
        others = len(texts) < len(counts)
        missing = int(counts.sum()) < self.rows
        codes = np.full(len(counts) + 1, len(texts), np.float64)
        for place, text in enumerate(texts):
            codes[self._numbers[text]] = place
        codes[-1] = len(texts) + others
        return Column("category", tuple(texts), others, missing), codes


def learning_readers(
    path: str,
    names: Sequence[str],
    columns: Sequence[int],
    categories: Collection[str] = (),
    separator: str = ",",
) -> dict[int, Reader]:
    """Return a reader for each column, by what the first rows hold.

    Parameters
    ----------
    path : str
        The CSV file.
    names : sequence of str
        Names of all its columns.
    columns : sequence of int
        Numbers of the columns of features.
    categories : collection of str
        Names of columns whose fields are categories, even if they look like numbers.
    separator : str
        The character between fields.

    Raises
    ------
    ArgumentError
        If one of the categories is no column of features.
    """
    features = {names[column] for column in columns}
    for name in categories:
        if name not in features:
            raise ArgumentError(
                "argument 'categories' (--category) must name columns of features, got "
                f"{describe(name)}, which is the target or left out"
            )
    sample = _sample(path, separator)
    readers: dict[int, Reader] = {}
    for column in columns:
        named = names[column] in categories
        kind = "category" if named else _kind({fields[column] for fields in sample})
        readers[column] = (
            Vocabulary(named)
            if kind == "category"
            else _Strict(Column(kind, missing=True, fill=0.0))
        )
    return readers


def describe_form(texts: Collection[str]) -> str:
    """Return what most of some different texts look like, and how to write them; or nothing.

    Nothing is returned for dates that are written as they should be.
    """
    present = [text.strip() for text in texts if not is_missing(text)]
    if 2 * sum(map(is_date, present)) > len(present):
        return ""
    for form, pattern in _FORMS.items():
        if 2 * sum(pattern.fullmatch(text) is not None for text in present) > len(present):
            return form
    return ""


def _sample(path: str, separator: str) -> list[list[str]]:
    """Return the fields of the first rows."""
    with open_table(path, separator) as file:
        return [fields for _, fields in itertools.islice(file.records, SAMPLED_ROWS)]


def _kind(fields: Collection[str]) -> str:
    """Return what a column holds, from its different fields in the first rows."""
    present = [field for field in fields if not is_missing(field)]
    numbers = sum(map(_has_number, present))
    if 2 * numbers >= len(present):
        return "number"
    return "date" if 2 * sum(map(is_date, present)) > len(present) else "category"


def _has_number(field: str) -> bool:
    """Whether a field that is not missing is a number or a truth value."""
    try:
        to_number(field)
    except ValueError:
        return False
    return True


class Learned(NamedTuple):
    """What the columns of a file hold."""

    encoding: Encoding | None
    """The columns; None if none is left."""
    kept: list[int]
    """Places, among the columns that were read, of those that are not left out."""
    left_out: dict[str, str]
    """Names of the columns left out, and why."""
    notices: dict[str, str]
    """Names of columns of texts that look like something else, and what; see `describe_form`."""


def learn_encoding(
    names: Sequence[str], readers: Mapping[int, Reader], x: NDArray[np.float64]
) -> Learned:
    """Return what columns hold, after all rows were read, and give ``x`` the codes of categories.

    Parameters
    ----------
    names : sequence of str
        Names of the columns that were read.
    readers : mapping of int to Reader
        Their readers, of `learning_readers`.
    x : float64 array of shape (rows, columns)
        What the readers returned; columns of categories are changed.
    """
    columns, kept = list[Column](), list[int]()
    left_out, notices = dict[str, str](), dict[str, str]()
    for place, reader in enumerate(readers.values()):
        values = x[:, place]
        reason = ""
        if isinstance(reader, Vocabulary):
            reason = _unusable(reader)
            if not reason:
                column, codes = reader.chosen()
                values[...] = codes[values.astype(np.int64)]
                if reader.form and not reader.named:
                    notices[names[place]] = reader.form
        else:
            assert isinstance(reader, _Strict)
            absent = np.isnan(values)
            reason = "has no value" if absent.all() else ""
            column = Column(reader.column.kind, missing=bool(absent.any()), fill=0.0)
        if reason:
            left_out[names[place]] = reason
            continue
        kept.append(place)
        columns.append(column)
    known = [names[place] for place in kept]
    return Learned(Encoding(known, columns) if columns else None, kept, left_out, notices)


def _unusable(reader: Vocabulary) -> str:
    """Return why a column of texts is left out, or nothing."""
    if not reader.texts:
        return "has no value"
    if reader.seems_identifier:
        number = f"{reader.texts:,} different texts in {reader.rows:,} rows"
        form = f"; it {reader.form}" if reader.form else ""
        return f"seems to be an identifier: {'at least ' * reader.is_identifier}{number}{form}"
    return ""
