"""Usage reports: exact numbers on trees made by hand, and what holds for any tree and rows."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu import DenseFeedForward, FastFeedForward, LeafFeedForward, diagnosis
from fffcpu.diagnosis import DeadSubtree, diagnose, leaf_means, reached_leaves
from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError

GATES = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
"""Gate 0 asks for the sign of the first number, gates 1 and 2 for that of the second."""

ROWS = np.array([[-1.0, -1.0]] * 5 + [[1.0, -1.0]] + [[3.0, 1.0], [1.0, 0.001]])
"""Five rows go to leaf 0, none to leaf 1, one to leaf 2 and two to leaf 3."""

VISITS = [8, 5, 3, 5, 0, 1, 2]


def entropy(*shares):
    return -sum(share * math.log(share) for share in shares if share)


def node_layer():
    """A FastFeedForward of depth 2 that routes by `GATES`; the last level never matters."""
    weights_in = np.concatenate([GATES, np.ones((4, 2))])[np.newaxis]
    return FastFeedForward.from_arrays(weights_in, np.ones((1, 7, 3)))


def leaf_layer():
    """The LeafFeedForward with the same gates."""
    leaves = LeafFeedForward(2, 3, 2, 1, dtype=np.float64, rng=0).params
    arrays = {name: array for name, array in leaves.items() if name.startswith("leaf")}
    return LeafFeedForward.from_arrays(GATES, np.zeros(3), **arrays)


MADE = {"node": node_layer, "leaf": leaf_layer}

RANDOM = {
    "node": lambda depth, seed: FastFeedForward(3, 2, depth, 2, rng=seed),
    "no bias": lambda depth, seed: FastFeedForward(3, 2, depth, bias=False, rng=seed),
    "leaf": lambda depth, seed: LeafFeedForward(3, 2, depth, 1, dtype=np.float64, rng=seed),
    "bfloat16": lambda depth, seed: FastFeedForward(3, 2, depth, 2, rng=seed).quantize("bfloat16"),
    "int8": lambda depth, seed: FastFeedForward(3, 2, depth, rng=seed).quantize("int8"),
    "leaf int8": lambda depth, seed: LeafFeedForward(3, 2, depth, 2, rng=seed).quantize("int8"),
}


@st.composite
def problems(draw):
    """A random layer of any kind, and rows."""
    kind, depth = draw(st.sampled_from(sorted(RANDOM))), draw(st.integers(0, 5))
    seed = draw(st.integers(0, 2**32 - 1))
    rows = np.random.default_rng(seed + 1).standard_normal((draw(st.integers(1, 30)), 3))
    return RANDOM[kind](depth, seed), rows


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
    values = diagnosis._choice_entropy(np.array([0.0, 40.0, -1e300, 1e300]))
    assert values[0] == math.log(2)
    assert values[1] == pytest.approx(41 * math.exp(-40))
    assert values[2:].tolist() == [0, 0]


def test_ties_go_where_the_layer_sends_them():
    rows = np.zeros((1, 2))
    assert diagnose(node_layer(), rows).visits[0].tolist() == [1, 1, 0, 1, 0, 0, 0]
    assert diagnose(leaf_layer(), rows).visits[0].tolist() == [1, 0, 1, 0, 0, 0, 1]
    assert diagnose(leaf_layer(), rows, margin=0).levels[0].near_ties == 0
    assert diagnose(leaf_layer(), rows).levels[0].near_ties == 1


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
def test_visits_are_those_of_the_routes(problem):
    layer, rows = problem
    report = diagnose(layer, rows)
    nodes = layer.route(rows)
    if nodes.ndim == 1:  # the leaf of the one tree
        np.testing.assert_array_equal(reached_leaves(layer, rows), nodes)
        leaves = np.bincount(nodes, minlength=len(report.trees[0].leaf_visits))
        np.testing.assert_array_equal(report.trees[0].leaf_visits, leaves)
        return
    for tree in report.trees:
        visits = np.bincount(nodes[:, tree.tree].ravel(), minlength=len(tree.visits))
        np.testing.assert_array_equal(tree.visits, visits)
        gates = len(tree.gate_visits)
        reached = reached_leaves(layer, rows, tree.tree)
        np.testing.assert_array_equal(reached, nodes[:, tree.tree, -1] - gates)


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


def test_a_large_array_is_taken_in_parts(monkeypatch):
    rows = np.random.default_rng(0).standard_normal((50, 3))
    layer = FastFeedForward(3, 2, 3, rng=0)
    whole, taken = diagnose(layer, rows), []
    decide = diagnosis._decisions
    monkeypatch.setattr(diagnosis, "BLOCK_ROWS", 8)
    monkeypatch.setattr(
        diagnosis, "_decisions", lambda layer, rows: taken.append(len(rows)) or decide(layer, rows)
    )
    np.testing.assert_array_equal(diagnose(layer, rows).visits, whole.visits)
    assert taken == [8, 8, 8, 8, 8, 8, 2]


def test_to_dict_is_plain_json():
    layer = LeafFeedForward(3, 2, 4, 1, rng=0)
    report = diagnose(layer, np.ones((1, 3)))
    values = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert values == report.to_dict()
    assert values["kind"] == "LeafFeedForward"
    assert values["trees"][0]["visits"] == report.visits[0].tolist()
    assert values["trees"][0]["choice_entropies"].count(None) == 15 - 4


def test_a_report_of_one_tree_and_of_all():
    layer = FastFeedForward(3, 2, 2, 3, rng=0)
    report = diagnose(layer, np.random.default_rng(0).standard_normal((40, 3)))
    assert [tree.tree for tree in report.trees] == [0, 1, 2]
    assert report.of_tree(2).trees == (report.trees[2],)
    for number, level in enumerate(report.levels):
        alone = [report.of_tree(tree).levels[number] for tree in range(3)]
        assert level.nodes == 3 * 2**number
        assert level.reached == sum(one.reached for one in alone)
        if number < 2:
            assert level.balance == pytest.approx(np.mean([one.balance for one in alone]))
            assert level.near_ties == pytest.approx(np.mean([one.near_ties for one in alone]))
    with pytest.raises(ArgumentError, match="'tree' must be an integer from 0 to 2, got 3"):
        report.of_tree(3)


def test_the_text_of_a_report():
    text = str(diagnose(node_layer(), ROWS))
    assert text.startswith("FastFeedForward: tree 0 of depth 2, 4 leaves, 8 rows\n")
    lines = [line.split() for line in text.splitlines()]
    assert ["0", "3", "of", "4", "6", "of", "7", "0.65", "2.5", "62.5%", "1"] in lines
    assert ["1", "2", "of", "2", "0.34", "-", "12.50%"] in lines
    assert "dead subtrees: tree 0 node 4 (1 node)\n" in text
    assert "|logit| < 0.01" in text


def test_the_text_of_many_trees_is_short():
    layer = FastFeedForward(3, 2, 4, 40, rng=0)
    text = str(diagnose(layer, np.ones((1, 3))))
    assert "40 trees of depth 4, 16 leaves, 1 row\n" in text
    assert "\nand 28 more\n" in text
    assert ", and 154 more" in text
    assert max(map(len, text.splitlines())) < 250
    assert "share of the rows" not in text
    full = diagnose(FastFeedForward(3, 2, 0, rng=0), np.ones((1, 3)))
    assert "no dead subtrees" in str(full)


def test_the_picture_of_a_tree():
    layer = FastFeedForward(2, 1, 8, rng=0)
    layer.params["weights_in"][...] = 0
    layer.params["weights_in"][0, 0] = [1, 0]
    layer.params["bias_in"][...] = -1
    rows = np.array([[3.0, 0.0]] * 15 + [[-1.0, 0.0]])
    picture = diagnose(layer, rows).trees[0].draw().splitlines()
    assert len(picture) == 7  # a level of 64 nodes is the last with a character for each
    assert {len(line) for line in picture} == {5 + 64 + 1}
    assert picture[0][5:-1].strip() == "100%"
    assert picture[1][5:-1].split() == ["6%", "94%"]
    assert picture[2][5:-1].split() == ["6%", "x", "94%", "x"]
    assert picture[4][5:-1] == "++++" + 28 * "x" + "####" + 28 * "x"


@pytest.mark.parametrize(
    ("share", "mark"), [(0, "x"), (0.24, "."), (0.25, "-"), (0.99, "-"), (1, "+"), (4, "#")]
)
def test_marks_compare_with_an_even_share(share, mark):
    assert diagnosis._cell(share / 32, 32) == 2 * mark


@pytest.mark.parametrize("kind", MADE)
def test_means_of_leaves(kind):
    for data in (ROWS, [ROWS[:3], ROWS[3:]]):
        means = leaf_means(MADE[kind](), data, [3, 1, 0])
        np.testing.assert_allclose(means, [[2, 0.5005], [np.nan, np.nan], [-1, -1]])


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (np.ones((0, 2)), ArgumentError, "argument 'data' must have at least one row, got none"),
        ([], ArgumentError, "argument 'data' must have at least one row, got none"),
        (np.ones((4, 3)), ShapeError, r"must hold rows of 2 numbers, got shape \(4, 3\)"),
        ([np.ones((1, 2)), np.ones(3)], ShapeError, r"rows of 2 numbers, got shape \(3,\)"),
        (np.float64(1), ShapeError, r"rows of 2 numbers, got shape \(\)"),
        (3, ArgumentTypeError, "'data' must be an array of rows or an iterable of such, got 3"),
        (["ab"], ArgumentTypeError, "argument 'data' must hold real numbers"),
        (np.array([[1, 2], [np.nan, 1]]), ArgumentError, "got 1 of 2 rows that do not"),
    ],
)
@pytest.mark.parametrize("kind", MADE)
def test_wrong_data(kind, data, error, message):
    with pytest.raises(error, match=message):
        diagnose(MADE[kind](), data)


def test_wrong_arguments():
    for layer in (DenseFeedForward(2, 1, 1, rng=0), "layer"):
        for call in (diagnose, reached_leaves, lambda layer, x: leaf_means(layer, x, [0])):
            with pytest.raises(ArgumentTypeError, match="'layer' must be a FastFeedForward or a"):
                call(layer, ROWS)
    with pytest.raises(ArgumentError, match="argument 'margin' must be"):
        diagnose(node_layer(), ROWS, margin=-1)
    with pytest.raises(ArgumentError, match="argument 'tree' must be an integer from 0 to 0"):
        reached_leaves(leaf_layer(), ROWS, 1)
    with pytest.raises(ArgumentError, match="argument 'leaves' must be an integer from 0 to 3"):
        leaf_means(node_layer(), ROWS, [4])
