"""The meaning of fields: numbers, truth values, dates and missing values."""

from __future__ import annotations

import datetime
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.columns.fields import MISSING, is_date, is_number, to_days, to_number


@pytest.mark.parametrize(
    ("field", "number"),
    [("1.5", 1.5), (" -3 ", -3), ("True", 1), ("false", 0), ("TRUE", 1), ("1e999", math.inf)],
)
def test_numbers_and_truth_values(field, number):
    assert to_number(field) == number


@pytest.mark.parametrize("field", sorted(MISSING))
def test_missing_values_have_many_names(field):
    assert math.isnan(to_number(f" {field} "))
    assert math.isnan(to_days(field))
    assert not is_date(field)


@pytest.mark.parametrize("field", ["one", "1,5", "1_0", "٣", "yes", "0x10", "2013-01-01"])
def test_other_fields_are_no_numbers(field):
    assert not is_number(field)
    with pytest.raises(ValueError, match="not a number"):
        to_number(field)


@pytest.mark.parametrize(
    ("field", "days"),
    [
        ("1970-01-01", 0),
        ("1970-01-02T12:00:00Z", 1.5),
        ("1970-01-02 12:00", 1.5),
        ("1970-01-02T12:00:00+06:00", 1.25),
        ("1969-12-31T18:00:00.000", -0.25),
    ],
)
def test_dates_are_days_since_1970(field, days):
    assert to_days(field) == days
    assert is_date(field)


@given(st.datetimes(datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31)))
def test_dates_come_back(moment):
    days = to_days(moment.isoformat())
    back = datetime.datetime(1970, 1, 1) + datetime.timedelta(days=days)
    assert abs(back - moment) < datetime.timedelta(milliseconds=1)


@pytest.mark.parametrize("field", ["20130101", "2013-13-01", "01.02.2013", "2013", "2013-01-01x"])
def test_other_fields_are_no_dates(field):
    assert not is_date(field)
