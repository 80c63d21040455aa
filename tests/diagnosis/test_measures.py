"""What is counted: entropies, ties, blocks and means."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu import LeafFeedForward
from fffcpu.diagnosis import diagnose, leaf_means, measures
from tests.diagnosis.support import (
    MADE,
    ROWS,
    entropy,
    leaf_layer,
    node_layer,
    problems,
)


def test_choice_entropy_of_a_tree_made_by_hand():
    report = diagnose(leaf_layer(), ROWS)
    by_logit = {s: entropy(1 / (1 + math.exp(s)), 1 / (1 + math.exp(-s))) for s in (0.001, 1, 3)}
    gates = [(7 * by_logit[1] + by_logit[3]) / 8, by_logit[1], by_logit[1] * 2 / 3]
    gates[2] += by_logit[0.001] / 3
    np.testing.assert_allclose(report.trees[0].choice_entropies, gates, rtol=1e-12)
    below = (7 * by_logit[1] + by_logit[0.001]) / 8
    expected = [pytest.approx(gates[0]), pytest.approx(below), None]
    assert [level.choice_entropy for level in report.levels] == expected
    assert diagnose(node_layer(), ROWS).trees[0].choice_entropies is None


def test_choice_entropy_is_that_of_the_hardening_loss():
    layer = LeafFeedForward(3, 2, 1, 1, dtype=np.float64, rng=0)
    rows = np.random.default_rng(1).standard_normal((50, 3))
    _, cache = layer.forward(rows)
    np.testing.assert_allclose(diagnose(layer, rows).trees[0].choice_entropies, cache.entropies)


def test_choice_entropy_of_the_firmest_choices():
    values = measures._choice_entropy(np.array([0.0, 40.0, -1e300, 1e300]))
    assert values[0] == math.log(2)
    assert values[1] == pytest.approx(41 * math.exp(-40))
    assert values[2:].tolist() == [0, 0]


def test_ties_go_where_the_layer_sends_them():
    rows = np.zeros((1, 2))
    assert diagnose(node_layer(), rows).visits[0].tolist() == [1, 1, 0, 1, 0, 0, 0]
    assert diagnose(leaf_layer(), rows).visits[0].tolist() == [1, 0, 1, 0, 0, 0, 1]
    assert diagnose(leaf_layer(), rows, margin=0).levels[0].near_ties == 0
    assert diagnose(leaf_layer(), rows).levels[0].near_ties == 1


@given(problems(), st.integers(1, 7))
def test_neither_blocks_nor_order_matter(problem, rows_in_a_block):
    layer, rows = problem
    expected = diagnose(layer, rows).to_dict()
    blocks = [
        rows[start : start + rows_in_a_block] for start in range(0, len(rows), rows_in_a_block)
    ]
    order = np.random.default_rng(0).permutation(len(rows))
    for data in (blocks, iter(blocks), rows.tolist(), rows[order], rows[np.newaxis]):
        assert_alike(diagnose(layer, data).to_dict(), expected)


def assert_alike(one, other):
    """Counts must be equal; entropies, whose sums are rounded, nearly so."""
    if isinstance(other, dict):
        assert list(one) == list(other)
        one, other = list(one.values()), list(other.values())
    if isinstance(other, list):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_alike(left, right)
    elif isinstance(other, float):
        assert one == pytest.approx(other, rel=1e-9, abs=1e-12)
    else:
        assert one == other


@pytest.mark.parametrize("kind", MADE)
def test_means_of_leaves(kind):
    for data in (ROWS, [ROWS[:3], ROWS[3:]]):
        means = leaf_means(MADE[kind](), data, [3, 1, 0])
        np.testing.assert_allclose(means, [[2, 0.5005], [np.nan, np.nan], [-1, -1]])
