"""Schedules against hand-computed values of their formulas, and their shape in between."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.training import constant, cosine, linear_warmup, one_cycle_triangle

FRACTIONS = st.floats(0.0, 1.0)
SCHEDULES = {
    "one_cycle_triangle": one_cycle_triangle,
    "cosine": cosine,
    "linear_warmup": lambda fraction: linear_warmup(fraction, 0.3),
    "constant": constant,
}
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


@pytest.mark.parametrize(
    ("fraction", "factor"),
    [(0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0), (0.875, 0.5), (1.0, 0.0), (1.5, 0.0)],
)
def test_triangle_rises_from_a_quarter_and_falls_four_times_as_fast(fraction, factor):
    assert one_cycle_triangle(fraction) == factor


@pytest.mark.parametrize(
    ("fraction", "share", "factor"),
    [
        (0.0, 0.1, 0.0),
        (0.05, 0.1, 0.5),
        (0.1, 0.1, 1.0),
        (0.4, 0.1, 0.75),
        (0.55, 0.1, 0.5),
        (0.7, 0.1, 0.25),
        (1.0, 0.1, 0.0),
        (7.0, 0.1, 0.0),
        (0.0, 0.0, 1.0),
        (0.5, 0.0, 0.5),
        (0.5, 1.0, 0.5),
        (1.0, 1.0, 1.0),
    ],
)
def test_cosine_warms_up_linearly_then_falls(fraction, share, factor):
    assert cosine(fraction, warmup=share) == pytest.approx(factor, abs=1e-15)


def test_cosine_warms_up_over_a_tenth_unless_told():
    assert [cosine(f) for f in (0.02, 0.3, 0.9)] == [cosine(f, 0.1) for f in (0.02, 0.3, 0.9)]


@pytest.mark.parametrize(
    ("fraction", "until", "factor"),
    [(0.0, 0.5, 0.0), (0.25, 0.5, 0.5), (0.5, 0.5, 1.0), (0.9, 0.5, 1.0), (3.0, 1.0, 1.0)],
)
def test_warmup_rises_linearly_then_stays(fraction, until, factor):
    assert linear_warmup(fraction, until) == factor


def test_warmup_of_no_length_starts_at_the_peak():
    assert linear_warmup(0.0, 0.0) == 1.0


def test_constant_stays_at_the_peak():
    assert {constant(fraction) for fraction in (0, 0.5, 1.0, 2.5)} == {1.0}


@each_schedule
@given(fraction=FRACTIONS)
def test_factor_is_a_float_from_0_to_1(schedule, fraction):
    factor = schedule(fraction)
    assert type(factor) is float
    assert 0.0 <= factor <= 1.0


@each_schedule
def test_peak_is_reached(schedule):
    assert max(schedule(step / 1000) for step in range(1001)) == pytest.approx(1.0, abs=1e-12)


@each_schedule
@given(fraction=FRACTIONS)
def test_factor_changes_without_jumps(schedule, fraction):
    step = 1e-6
    assert abs(schedule(fraction + step) - schedule(fraction)) <= 11 * step


@each_schedule
@given(beyond=st.floats(1.0, 1e300))
def test_value_at_1_stays_beyond(schedule, beyond):
    assert schedule(beyond) == schedule(1.0)


@each_schedule
def test_numpy_numbers_are_numbers(schedule):
    assert schedule(np.float32(0.5)) == schedule(0.5)


@each_schedule
@pytest.mark.parametrize("fraction", [-0.001, math.nan, math.inf, -math.inf])
def test_fraction_must_be_finite_and_not_negative(schedule, fraction):
    with pytest.raises(ValueError, match="argument 'fraction' must be a number of at least 0, got"):
        schedule(fraction)


@each_schedule
@pytest.mark.parametrize("fraction", ["0.5", None, [0.1, 0.2]])
def test_fraction_must_be_a_number(schedule, fraction):
    with pytest.raises(TypeError, match="argument 'fraction' must be a number of at least 0, got"):
        schedule(fraction)


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_length_of_the_warm_up_is_a_fraction_too(share):
    with pytest.raises(ValueError, match="argument 'warmup' must be a number from 0 to 1, got"):
        cosine(0.5, share)
    with pytest.raises(ValueError, match="argument 'until' must be a number from 0 to 1, got"):
        linear_warmup(0.5, share)
