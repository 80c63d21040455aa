"""Dense layers of equal quality, read off lines."""

from __future__ import annotations

import math

import pytest

from benchmarks.accuracy.worth.worths import Width, equal_width, time_of_width

DENSE = {32: 0.4, 64: 0.5, 128: 0.7, 256: 0.8}


@pytest.mark.parametrize(
    ("r2", "neurons", "mark"),
    [
        (0.5, 64, ""),
        (0.4, 32, ""),
        (0.6, 64 * math.sqrt(2), ""),  # half of the way between two powers of two
        (0.75, 128 * math.sqrt(2), ""),
        (0.8, 256, ""),
        (0.9, 512, ">"),
        (0.3, 16, "<"),
        (-9.6, 2.0**-95, "<"),
    ],
)
def test_the_width_of_equal_quality_is_interpolated_in_its_logarithm(r2, neurons, mark):
    found = equal_width(r2, dict(reversed(DENSE.items())))
    assert found.mark == mark
    assert found.neurons == pytest.approx(neurons)


def test_the_narrowest_of_several_widths_counts():
    dense = {32: 0.4, 64: 0.6, 128: 0.5, 256: 0.7}
    assert equal_width(0.55, dense).neurons == pytest.approx(32 * 2**0.75)
    assert equal_width(0.65, dense).neurons == pytest.approx(128 * 2**0.75)


def test_without_a_gain_by_width_no_width_is_enough():
    assert equal_width(0.9, {32: 0.4, 64: 0.4}) == Width(math.inf, ">")
    assert equal_width(0.9, {32: 0.4, 64: 0.4 + 1e-9}) == Width(math.inf, ">")
    assert equal_width(0.3, {32: 0.4, 64: 0.4}) == Width(0.0, "<")
    assert equal_width(0.4, {32: 0.4, 64: 0.4}) == Width(32.0)


def test_one_dense_layer_gives_no_width():
    assert equal_width(0.5, {32: 0.5}) is None
    assert time_of_width(32, {32: 1.0}) is None


@pytest.mark.parametrize(
    ("width", "time"),
    [(32, 1.0), (64, 2.0), (64 * math.sqrt(2), 4.0), (128, 8.0), (256, 32.0), (16, 0.5)],
)
def test_times_are_interpolated_in_logarithms(width, time):
    assert time_of_width(width, {128: 8.0, 32: 1.0, 64: 2.0}) == pytest.approx(time)


@pytest.mark.parametrize("width", [0.0, math.inf])
def test_a_width_that_no_layer_has_takes_no_time(width):
    assert time_of_width(width, {32: 1.0, 64: 2.0}) is None
