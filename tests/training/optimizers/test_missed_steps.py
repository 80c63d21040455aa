"""What rows have missed, against the sums that define it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.training.optimizers import missed_steps
from fffcpu.training.optimizers.missed_steps import MissedSteps


@given(
    start=st.integers(0, 10**9),
    rates=st.lists(st.floats(0.0, 0.9), max_size=30),
    weight_decay=st.sampled_from([0.0, 0.1, 1.0]),
    momentum=st.sampled_from([0.0, 0.1, 0.9, 1.0]),
)
def test_sums_are_those_over_the_missed_steps(start, rates, weight_decay, momentum):
    missed = MissedSteps(start, weight_decay, momentum)
    for rate in rates:
        missed.add(rate)
    last = np.arange(start, start + len(rates) + 1)
    comp = missed.age(last), missed.decay(last), missed.drift(last)
    for at, (age, decay, drift) in enumerate(zip(*comp, strict=True)):
        later = rates[at:]
        assert age == len(later)
        assert decay == pytest.approx(math.prod(1 - rate * weight_decay for rate in later))
        ref = math.fsum(rate * momentum**gap for gap, rate in enumerate(later, 1))
        assert drift == pytest.approx(ref, rel=1e-13, abs=1e-30)
    assert missed.rates.tolist() == rates


def test_a_velocity_that_has_faded_moves_nothing_more(monkeypatch):
    monkeypatch.setattr(missed_steps, "NEGLIGIBLE", 0.5**3)
    missed = MissedSteps(0, momentum=0.5)
    for _ in range(10):
        missed.add(1.0)
    assert missed.drift(np.array([0, 6, 7, 10])).tolist() == [0.875, 0.875, 0.875, 0.0]


def test_memory_is_bounded():
    missed = MissedSteps(0, 0.1, 0.999)
    for _ in range(missed_steps.MOST_STEPS):
        missed.add(0.01)
    with pytest.raises(IndexError):
        missed.add(0.01)
