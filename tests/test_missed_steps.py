"""What rows miss: ages, decay and drift against sums written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.training import missed_steps
from fffcpu.training.missed_steps import MissedSteps

RATES = st.lists(st.floats(0, 0.9), max_size=30)


@given(rates=RATES, start=st.integers(0, 100), decay=st.floats(0, 1))
def test_age_and_decay(rates, start, decay):
    missed = MissedSteps(start, weight_decay=decay)
    for rate in rates:
        missed.add(rate)
    last = start + np.arange(len(rates) + 1)
    assert missed.age(last).tolist() == list(range(len(rates), -1, -1))
    expected = [math.prod(1 - rate * decay for rate in rates[k:]) for k in range(len(last))]
    np.testing.assert_allclose(missed.decay(last), expected, rtol=1e-9)
    assert missed.rates.tolist() == rates


@given(rates=RATES, momentum=st.sampled_from([0.0, 0.01, 0.5, 0.9, 0.9999, 1.0]))
def test_drift(rates, momentum):
    missed = MissedSteps(7, momentum=momentum)
    for rate in rates:
        missed.add(rate)
    expected = [
        sum(rate * momentum ** (age + 1) for age, rate in enumerate(rates[k:]))
        for k in range(len(rates) + 1)
    ]
    found = missed.drift(7 + np.arange(len(rates) + 1))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("momentum", [0.5, 0.9])
def test_what_has_faded_away_is_left_out(momentum):
    missed, rates = MissedSteps(0, momentum=momentum), np.ones(600)
    for rate in rates:
        missed.add(rate)
    exact = momentum / (1 - momentum)
    assert missed.drift(np.array([0]))[0] == pytest.approx(exact, rel=1e-15)


def test_memory_has_a_bound(monkeypatch):
    monkeypatch.setattr(missed_steps, "MOST_STEPS", 3)
    missed = MissedSteps(0, momentum=0.99)
    for _ in range(3):
        missed.add(0.1)
    with pytest.raises(IndexError):
        missed.add(0.1)
