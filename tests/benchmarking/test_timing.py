"""Alternation, ratios and inputs in turn; no test asserts how fast anything is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fffcpu import FastFeedForward
from fffcpu.benchmarking import timing
from fffcpu.benchmarking.timing import Contender, Timing, alternate, cycling, doubts, ratio
from fffcpu.benchmarking.verification import (
    distinct_batches,
)
from fffcpu.errors import ArgumentError, ArgumentTypeError


def test_contenders_run_once_untimed_and_then_take_turns():
    log: list[str] = []
    contenders = [Contender(name, lambda name=name: log.append(name), 1) for name in "ABC"]
    timings = alternate(contenders, repeats=3, min_time=0, rest=0)
    # One untimed call and one that finds out how long a call takes, then three rounds.
    assert "".join(log) == "AABBCC" + 3 * "ABC"
    assert [timing.name for timing in timings] == ["A", "B", "C"]
    assert all(timing.calls == 1 and len(timing.seconds) == 3 for timing in timings)
    assert all(seconds > 0 for timing in timings for seconds in timing.seconds)


def test_a_measurement_repeats_calls_until_it_is_long_enough():
    count = itertools.count()
    (figures,) = alternate([Contender("fast", lambda: next(count), 3)], 2, min_time=0.002, rest=0)
    # The untimed call, the calls that found out how many are needed, and two rounds.
    assert next(count) >= 1 + 3 * figures.calls
    assert figures.rows == 3


@pytest.mark.parametrize("call_seconds", [1e-9, 1e-6, 3e-3, 0.04, 0.05, 2.0])
def test_calls_fill_the_time_and_little_more(call_seconds):
    class Clockwork:
        def timeit(self, number: int) -> float:
            return number * call_seconds

    calls = timing._calls_to_fill(Clockwork(), 0.05)
    assert calls * call_seconds >= 0.05
    assert calls == 1 or calls * call_seconds <= 0.12


@pytest.mark.parametrize(
    ("options", "rest"),
    [
        ({"min_time": 0, "rest": 0.25}, 0.25),
        ({"min_time": 1e-9}, timing.REST),
        ({"min_time": 0}, 0),
    ],
)
def test_rests_before_each_measurement(options, rest, monkeypatch):
    rests: list[float] = []
    monkeypatch.setattr(timing.time, "sleep", rests.append)
    alternate([Contender("A", list, 1), Contender("B", list, 1)], 2, **options)
    assert rests == 4 * [rest]


def test_an_error_of_a_contender_is_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        alternate([Contender("wrong", lambda: 1 / 0, 1)])


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"contenders": []}, ArgumentError, "contenders"),
        ({"contenders": [Contender("A", list, 0)]}, ArgumentError, "rows"),
        ({"repeats": 0}, ArgumentError, "repeats"),
        ({"repeats": 1.5}, ArgumentTypeError, "repeats"),
        ({"min_time": -1}, ArgumentError, "min_time"),
        ({"min_time": "long"}, ArgumentTypeError, "min_time"),
        ({"rest": float("nan")}, ArgumentError, "rest"),
    ],
)
def test_wrong_arguments_are_named(options, error, name):
    with pytest.raises(error, match=f"argument '{name}'"):
        alternate(**{"contenders": [Contender("A", list, 1)], **options})


def test_work_travels_from_contender_to_timing():
    work = timing.Work(flops=6e3, bytes=3e3)
    worker, idler = alternate(
        [Contender("A", list, 1, work), Contender("B", list, 1)], 1, min_time=0, rest=0
    )
    assert worker.work == work
    assert (idler.work, idler.gigaflops, idler.gigabytes) == (None, None, None)


def test_rates_of_a_timing():
    figures = Timing("A", 4, 10, (2e-6, 1e-6, 3e-6), timing.Work(flops=4e4, bytes=2e3))
    assert figures.gigaflops == pytest.approx(20)
    assert figures.gigabytes == pytest.approx(1)


def test_figures_of_a_timing():
    figures = Timing("A", rows=4, calls=10, seconds=(8e-6, 4e-6, 6e-6))
    assert figures.microseconds == pytest.approx(1.5)
    assert figures.rows_per_second == pytest.approx(1e6 / 1.5)
    assert figures.spread == pytest.approx(1 / 6)


def test_ratio_is_the_median_over_rounds_of_times_a_row():
    # Ratios by round: 2, 10 and 3 a call, over twice as many rows.
    slow = Timing("slow", rows=2, calls=1, seconds=(2.0, 10.0, 9.0))
    fast = Timing("fast", rows=1, calls=5, seconds=(1.0, 1.0, 3.0))
    assert ratio(slow, fast) == pytest.approx(1.5)
    assert ratio(fast, fast) == 1


def test_ratios_of_the_rounds():
    slow, fast = Timing("slow", 2, 1, (2.0, 10.0)), Timing("fast", 1, 5, (1.0, 1.0))
    assert timing.ratios(slow, fast) == pytest.approx([1, 5])


def test_ratio_needs_one_alternation():
    with pytest.raises(ArgumentError, match="got 2 and 1 rounds"):
        ratio(Timing("A", 1, 1, (1.0, 1.0)), Timing("B", 1, 1, (1.0,)))


def test_cycling_takes_the_inputs_in_turn():
    run = cycling(lambda x, y: (x, y), [1, 2, 3], "ab")
    assert [run() for _ in range(7)] == [
        (1, "a"),
        (2, "b"),
        (3, "a"),
        (1, "b"),
        (2, "a"),
        (3, "b"),
        (1, "a"),
    ]


@pytest.mark.parametrize("rows", [3, timing.OUTPUT_GIVEN])
def test_inference_goes_through_the_batches(rows):
    layer = FastFeedForward(3, 2, 1, rng=0)
    batches = distinct_batches(rows, 3, rng=7)[:3]
    run = timing.inference(layer, batches)
    outputs = [run() for _ in range(4)]
    np.testing.assert_array_equal(outputs[3], layer(batches[0]))
    np.testing.assert_array_equal(outputs[2], layer(batches[2]))
    # Large outputs go to two arrays in turn.
    assert (outputs[0] is outputs[2]) == (rows >= timing.OUTPUT_GIVEN)
    assert outputs[0] is not outputs[1]


def test_figures_are_doubtful_beyond_the_arithmetic_or_with_a_spread():
    fast = Timing("fast", 1, 1, (1.0, 1.0, 1.0))
    dense = Timing("dense", 1, 1, (340.0, 341.0, 342.0))
    assert doubts(fast) == doubts(fast, dense) == doubts(fast, dense, 341.25) == []
    (reason,) = doubts(fast, dense, 340.9)
    assert reason == "341.0x exceeds the 340.9x that the arithmetic allows"
    restless = Timing("restless", 1, 1, (1.0, 2.0, 3.0))
    assert doubts(restless) == doubts(restless, restless) == ["restless has a spread of 25%"]
    assert doubts(fast, restless, 9) == ["restless has a spread of 25%"]
