"""What evaluations count: the sums of shards are those of all rows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.recipes.table_objective import tally_of
from fffcpu.recipes.tally import Tally, validation_figures

RNG = np.random.default_rng(0)
OUTPUTS = RNG.standard_normal((40, 3))
TARGETS = {
    "classes": RNG.integers(0, 3, 40),
    "labels": RNG.random((40, 3)) < 0.4,
    "numbers": RNG.standard_normal((40, 3)) * [1, 1000, 0] + [0, 1e6, 5],
}


@given(kind=st.sampled_from(list(TARGETS)), cuts=st.lists(st.integers(0, 40), max_size=4))
def test_tallies_of_parts_add_up(kind, cuts):
    y = TARGETS[kind]
    edges = [0, *sorted(cuts), 40]
    parts = [
        tally_of(lambda rows: OUTPUTS[rows], y, np.arange(start, stop))
        for start, stop in itertools.pairwise(edges)
    ]
    whole = tally_of(lambda rows: OUTPUTS[rows], y, np.arange(40)).figures()
    found = validation_figures(parts)
    assert found == {f"validation_{name}": pytest.approx(value) for name, value in whole.items()}


def test_r2_of_constant_targets_is_not_defined():
    y = np.full((4, 1), 3.0)
    found = tally_of(lambda rows: np.zeros((len(rows), 1)), y, np.arange(4)).figures()
    assert found["loss"] == 9.0
    assert np.isnan(found["r2"])


def test_without_rows_there_are_no_figures():
    assert validation_figures([Tally(0.0, 0.0), Tally(0.0, 0.0)]) == {}
