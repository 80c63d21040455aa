"""The measures of a tree: exact numbers on trees made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given

from fffcpu import FastFeedForward
from fffcpu.diagnosis import DeadSubtree, diagnose
from tests.diagnosis.support import (
    MADE,
    RANDOM,
    ROWS,
    VISITS,
    entropy,
    problems,
)


@pytest.mark.parametrize("kind", MADE)
def test_a_tree_made_by_hand(kind):
    report = diagnose(MADE[kind](), ROWS)
    (tree,) = report.trees
    assert report.rows == tree.rows == 8
    assert report.visits.tolist() == [VISITS]
    assert tree.gate_visits.tolist() == [8, 5, 3]
    assert tree.leaf_visits.tolist() == [5, 0, 1, 2]
    assert tree.unreached_nodes == 1 / 7
    assert tree.unreached_leaves == 1 / 4
    assert report.dead_subtrees == tree.dead_subtrees == (DeadSubtree(0, 4, 1),)
    leaves = entropy(5 / 8, 1 / 8, 2 / 8)
    assert tree.effective_leaves == pytest.approx(math.exp(leaves))
    assert tree.balance == pytest.approx(leaves / math.log(4))
    assert tree.largest_share == 5 / 8
    splits = [entropy(3 / 8, 5 / 8), 0, entropy(1 / 3, 2 / 3)]
    np.testing.assert_allclose(tree.split_entropies, splits, atol=1e-12)


@pytest.mark.parametrize("kind", MADE)
def test_the_levels_of_a_tree_made_by_hand(kind):
    levels = diagnose(MADE[kind](), ROWS).levels
    assert [(level.nodes, level.reached) for level in levels] == [(1, 1), (2, 2), (4, 3)]
    assert levels[0].balance == pytest.approx(entropy(3 / 8, 5 / 8) / math.log(2))
    assert levels[1].balance == pytest.approx(3 / 8 * entropy(1 / 3, 2 / 3) / math.log(2))
    # The last row's second number is nearly 0.
    assert [level.near_ties for level in levels] == [0, 1 / 8, None]
    assert levels[2].balance is None


def test_dead_subtrees_are_maximal_and_in_heap_order():
    layer = FastFeedForward(2, 1, 3, rng=0)
    layer.params["weights_in"][...] = 0
    layer.params["bias_in"][...] = -1
    tree = diagnose(layer, np.ones((4, 2))).trees[0]
    assert tree.dead_subtrees == tuple(
        DeadSubtree(0, node, size) for node, size in ((2, 7), (4, 3), (8, 1))
    )
    assert (tree.balance, tree.effective_leaves, tree.largest_share) == (0, 1, 1)
    assert np.isnan(tree.split_entropies[2])
    assert [level.balance for level in tree.levels] == [0, 0, 0, None]


@pytest.mark.parametrize("kind", RANDOM)
def test_depth_0_has_one_leaf_that_gets_all(kind):
    (tree, *_) = diagnose(RANDOM[kind](0, 0), np.ones((5, 3))).trees
    assert tree.visits.tolist() == [5]
    assert (tree.balance, tree.effective_leaves, tree.largest_share) == (1, 1, 1)
    assert tree.dead_subtrees == ()
    assert [tuple(level) for level in tree.levels] == [(1, 1, None, None, None)]


@given(problems())
def test_counts_and_entropies_add_up(problem):
    layer, rows = problem
    for tree in diagnose(layer, rows).trees:
        assert tree.leaf_visits.sum() == len(rows)
        np.testing.assert_array_equal(tree.gate_visits, tree.visits[1::2] + tree.visits[2::2])
        assert sum(dead.size for dead in tree.dead_subtrees) == np.sum(tree.visits == 0)
        assert sum(level.reached for level in tree.levels) == np.count_nonzero(tree.visits)
        balances = [level.balance for level in tree.levels[:-1]]
        assert all(0 <= balance <= 1 for balance in balances)
        if balances:
            assert tree.balance == pytest.approx(np.mean(balances), abs=1e-9)
        assert 1 <= tree.effective_leaves <= len(tree.leaf_visits) + 1e-9
