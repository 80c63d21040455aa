"""The meaning of fields: names, numbers, truth values, dates and missing values.

Files, data frames and estimators follow the same rules:

============  ======================================================================================
names         spaces around them do not count
numbers       as Python's float reads them, but without forms like ``1_000`` and ``٣``
truth values  True and False, in three spellings, are 1 and 0 in a column of numbers
dates         ISO 8601, such as 2013-01-31 or 2013-01-31T10:00:00Z; without a zone they are in UTC
missing       an empty field; in a column of numbers or dates also NA, NaN, null and the like
============  ======================================================================================
"""

from __future__ import annotations

import datetime
import math
import re
from typing import Any

__all__ = [
    "MISSING",
    "Classes",
    "clean_name",
    "is_date",
    "is_missing",
    "is_number",
    "to_days",
    "to_field",
    "to_number",
    "value_of",
]

Classes = tuple[str, ...] | tuple[int, ...] | tuple[float, ...] | tuple[bool, ...]
"""Labels of classes, as they are written: all of one type."""

MISSING = frozenset(
    ("", "?", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null", "None", "NaT")
)
"""Fields of a column of numbers or dates that stand for a missing value."""

_TRUTH = dict.fromkeys(("True", "true", "TRUE"), 1.0) | dict.fromkeys(
    ("False", "false", "FALSE"), 0.0
)

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:?[0-9]{2}.*)?", re.ASCII)

_DAY = 86400.0
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def clean_name(name: Any) -> str:
    """Return the name of a column without spaces around it."""
    return str(name).strip()


def is_missing(text: str) -> bool:
    """Whether a field of a column of numbers or dates stands for a missing value."""
    return text.strip() in MISSING


def is_number(text: str) -> bool:
    """Whether a field is a number; truth values and missing values are not, ``nan`` is."""
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and "_" not in text


def to_number(text: str) -> float:
    """Return the number of a field: 1 and 0 for truth values, NaN for a missing value.

    Raises
    ------
    ValueError
        If it is none of these.
    """
    if is_number(text):
        return float(text)
    field = text.strip()
    if field in _TRUTH:
        return _TRUTH[field]
    if field in MISSING:
        return float("nan")
    raise ValueError(f"not a number: {text!r}")


def value_of(text: str) -> float | str | None:
    """Return what a category's text may stand for, if texts that differ can stand for the same.

    Returns
    -------
    float, str or None
        The number of a number; the truth value in one spelling; ``""`` for a missing value; None
        for any other text, which stands for itself.
    """
    if text in _TRUTH:
        return str(bool(_TRUTH[text]))
    if text in MISSING:
        return ""
    return float(text) if is_number(text) else None


def is_date(text: str) -> bool:
    """Whether a field is a date, with or without a time."""
    try:
        to_days(text)
    except ValueError:
        return False
    return not is_missing(text)


def to_days(text: str) -> float:
    """Return the days from the start of 1970, in UTC, to a date; NaN for a missing value.

    Raises
    ------
    ValueError
        If it is neither.
    """
    field = text.strip()
    if field in MISSING:
        return float("nan")
    if not _DATE.fullmatch(field):
        raise ValueError(f"not a date: {text!r}")
    moment = datetime.datetime.fromisoformat(field)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return (moment - _EPOCH).total_seconds() / _DAY


def to_field(value: Any) -> str:
    """Return the field of a file for a value of a data frame; empty if it is missing."""
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, datetime.date | datetime.datetime):
        return "" if str(value) == "NaT" else value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    text = str(value)
    return "" if text in ("<NA>", "NaT", "nan") else text
