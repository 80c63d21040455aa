"""Rows of a block descend like single rows, and are sorted by node along the way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.kernels.descent import (
    MORE_ROWS,
    PRODUCTS,
    RUN_ARRAYS,
    Block,
    Tree,
    descend,
    follow,
    new_runs,
    write_reached,
)
from fffcpu.kernels.jit import kernel
from fffcpu.kernels.simd import pointer

SEEDS = st.integers(0, 2**32 - 1)


# --- Kernels under test ---------------------------------------------------------------------------


@kernel
def sort_by_last_node(leaves, logits, stride, order, reached, integers, rows, levels, sides):
    runs = new_runs(pointer(integers, 0), rows)
    paths = pointer(leaves, 0), pointer(logits, 0)
    places = pointer(order, 0), pointer(reached, 0)
    follow(paths[0], paths[1], stride, places[0], places[1], rows, runs, levels, sides)


@kernel
def descend_in_two(
    weights, bias, scale, ties_right, x, logits, above, order, reached, integers, products, levels
):
    """Move all rows from the root through some levels, and then through the others."""
    rows, width = x.shape
    first, last = levels
    tree = Tree(pointer(weights, 0), pointer(bias, 0), pointer(scale, 0), width, ties_right)
    block = Block(
        pointer(x, 0),
        rows,
        pointer(logits, 0),
        logits.shape[1],
        above,
        pointer(order, 0),
        pointer(products, 0),
    )
    runs = new_runs(pointer(integers, 0), rows)
    runs.nodes[0], runs.begins[0], runs.begins[1] = 0, 0, rows
    count = descend(tree, block, runs, 1, 0, first)
    count = descend(tree, block, runs, count, first, last)
    write_reached(runs, count, pointer(reached, 0))
    return count


def scratch(rows):
    """Integers for the runs, with others behind them that must stay as they are."""
    return np.full(RUN_ARRAYS * (rows + MORE_ROWS) + 8, -5, np.int32)


def numbered(rows, more=4):
    """Row numbers, and memory for nodes, each with others behind it that must stay as they are."""
    order, reached = np.full((2, rows + more), -5, np.int32)
    order[:rows] = np.arange(rows)
    return order, reached


# --- Sorting by known nodes -----------------------------------------------------------------------


def sorted_by_last_node(nodes, levels, stride=1, logits=None):
    rows = len(nodes)
    leaves = np.full(max(1, rows * stride), -9, np.int32)
    leaves[: rows * stride : stride] = nodes
    own = np.full(leaves.shape, np.nan, np.float32)
    if logits is not None:
        own[: rows * stride : stride] = logits
    sides = 1 if logits is None else 2
    order, reached = numbered(rows)
    order[:rows] = -7
    integers = scratch(rows)
    sort_by_last_node(leaves, own, stride, order, reached, integers, rows, levels, sides)
    assert (order[rows:] == -5).all()
    assert (reached[rows:] == -5).all()
    assert (integers[-8:] == -5).all()
    return order[:rows], reached[:rows]


@given(
    seed=SEEDS,
    rows=st.integers(0, 1024),
    levels=st.integers(1, 6),
    stride=st.integers(1, 3),
    few=st.booleans(),
)
def test_rows_are_sorted_by_last_node_and_equal_ones_stay_in_order(seed, rows, levels, stride, few):
    first = 2 ** (levels - 1) - 1
    rng = np.random.default_rng(seed)
    choice = rng.integers(first, 2 * first + 1, 3) if few else np.arange(first, 2 * first + 1)
    nodes = rng.choice(choice, rows)
    order, reached = sorted_by_last_node(nodes, levels, stride)
    expected = np.argsort(nodes, kind="stable")
    np.testing.assert_array_equal(order, expected)
    np.testing.assert_array_equal(reached, 2 * nodes[expected] + 1)


@given(seed=SEEDS, rows=st.integers(0, 1024), levels=st.integers(1, 6), stride=st.integers(1, 3))
def test_rows_of_two_sided_nodes_are_sorted_by_their_last_side_as_well(seed, rows, levels, stride):
    first = 2 ** (levels - 1) - 1
    rng = np.random.default_rng(seed)
    nodes, logits = rng.integers(first, 2 * first + 1, rows), rng.integers(-1, 2, rows)
    order, reached = sorted_by_last_node(nodes, levels, stride, logits)
    children = 2 * nodes + 1 + (logits > 0)
    expected = np.argsort(children, kind="stable")
    np.testing.assert_array_equal(order, expected)
    np.testing.assert_array_equal(reached, children[expected])


@given(seed=SEEDS, rows=st.integers(0, 200), levels=st.integers(1, 6))
def test_rows_whose_last_node_is_on_another_level_stay_inside_the_tree(seed, rows, levels):
    nodes = np.random.default_rng(seed).integers(0, 2**levels - 1, rows)
    order, reached = sorted_by_last_node(nodes, levels)
    np.testing.assert_array_equal(np.sort(order), np.arange(rows))
    assert ((reached >= 2**levels - 1) & (reached <= 2 ** (levels + 1) - 2)).all()
    # Those on the last level arrive where they belong.
    last = nodes[order] >= 2 ** (levels - 1) - 1
    np.testing.assert_array_equal(reached[last], 2 * nodes[order][last] + 1)


# --- The descent ----------------------------------------------------------------------------------


def one_by_one(weights, bias, scale, ties_right, x, levels):
    """Logits of each row, and the node that it reaches below the last level."""
    logits = np.zeros((len(x), levels))
    node = np.zeros(len(x), np.int64)
    for level in range(levels):
        product = (x.astype(np.float64) * weights[node].astype(np.float64)).sum(axis=1)
        logits[:, level] = product * (1 if scale is None else scale[node]) + bias[node]
        right = logits[:, level] >= 0 if ties_right else logits[:, level] > 0
        node = 2 * node + 1 + right
    return logits, node


def descended(problem, ties_right, levels, first=0, above=0):
    """Run the kernel on (weights, bias, scale, x); logits, order and nodes of the sorted rows."""
    weights, bias, scale, x = problem
    rows = len(x)
    logits = np.full((rows, levels - above + 1), 77, x.dtype)
    order, reached = numbered(rows)
    integers, products = scratch(rows), np.empty(PRODUCTS, x.dtype)
    count = descend_in_two(
        *(weights, bias, scale, ties_right, x, logits, above, order, reached),
        *(integers, products, (first, levels)),
    )
    assert (order[rows:] == -5).all()
    assert (reached[rows:] == -5).all()
    assert (integers[-8:] == -5).all()
    assert (logits[:, -1] == 77).all()
    assert count == len(np.unique(reached[:rows]))
    return logits[:, :-1], order[:rows], reached[:rows]


def small_integers(seed, rows, width, levels, kinds):
    """A tree and rows of small integers, so that sums are exact and many logits are 0."""
    dtype, stored = kinds
    rng = np.random.default_rng(seed)
    nodes = 2**levels - 1
    weights = rng.integers(-2, 3, (nodes, width)).astype(stored)
    bias = rng.integers(-1, 2, nodes).astype(dtype)
    scale = rng.integers(1, 4, nodes).astype(dtype) if stored is np.int8 else None
    return weights, bias, scale, rng.integers(-2, 3, (rows, width)).astype(dtype)


@pytest.mark.parametrize("ties_right", [None, True], ids=["ties left", "ties right"])
@pytest.mark.parametrize(
    "kinds",
    [(np.float32, np.float32), (np.float64, np.float64), (np.float32, np.int8)],
    ids=["float32", "float64", "int8"],
)
@given(
    seed=SEEDS,
    rows=st.integers(0, 40),
    width=st.integers(1, 40),
    levels=st.integers(1, 5),
    data=st.data(),
)
def test_rows_of_a_block_descend_like_single_rows(
    kinds, ties_right, seed, rows, width, levels, data
):
    problem = small_integers(seed, rows, width, levels, kinds)
    first = data.draw(st.integers(0, levels), label="levels of the first descent")
    expected_logits, node = one_by_one(*problem[:3], ties_right, problem[3], levels)
    logits, order, reached = descended(problem, ties_right, levels, first)
    np.testing.assert_array_equal(logits, expected_logits)
    # Each split is stable; so is the whole.
    np.testing.assert_array_equal(order, np.argsort(node, kind="stable"))
    np.testing.assert_array_equal(reached, node[order])


@pytest.mark.parametrize(("ties_right", "way"), [(None, 0), (True, 1)])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 7, 8, 9])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_a_logit_of_zero_goes_left_unless_ties_go_right(ties_right, way, rows, levels):
    nodes = 2**levels - 1
    problem = (
        np.ones((nodes, 3), np.float32),
        np.zeros(nodes, np.float32),
        None,
        np.zeros((rows, 3), np.float32),
    )
    _, order, reached = descended(problem, ties_right, levels)
    np.testing.assert_array_equal(order, np.arange(rows))
    assert (reached == (1 + way) * 2**levels - 1 - way).all()


@given(seed=SEEDS, rows=st.integers(0, 40), levels=st.integers(2, 5))
def test_reordered_logits_are_those_of_the_same_rows(seed, rows, levels):
    # A block may begin with rows in any order: the logits are at the rows' places all the same.
    kinds = (np.float32, np.float32)
    weights, bias, scale, x = small_integers(seed, rows, 5, levels, kinds)
    shuffle = np.random.default_rng(seed).permutation(rows)
    logits, _, _ = descended((weights, bias, scale, x), None, levels)
    again, _, _ = descended((weights, bias, scale, np.ascontiguousarray(x[shuffle])), None, levels)
    np.testing.assert_array_equal(again, logits[shuffle])


# --- Logits from a level below the root on --------------------------------------------------------


@kernel
def continue_below(
    weights, bias, x, logits, above, order, reached, integers, products, nodes, begins, last
):
    """Move rows on that are sorted already, and keep only the logits of the levels left."""
    rows, width = x.shape
    tree = Tree(pointer(weights, 0), pointer(bias, 0), None, width, None)
    block = Block(
        pointer(x, 0),
        rows,
        pointer(logits, 0),
        logits.shape[1],
        above,
        pointer(order, 0),
        pointer(products, 0),
    )
    runs = new_runs(pointer(integers, 0), rows)
    for run in range(len(nodes)):
        runs.nodes[run], runs.begins[run] = nodes[run], begins[run]
    runs.begins[len(nodes)] = rows
    count = descend(tree, block, runs, len(nodes), above, last)
    write_reached(runs, count, pointer(reached, 0))


@given(seed=SEEDS, rows=st.integers(1, 40), levels=st.integers(1, 5), data=st.data())
def test_sorted_rows_continue_from_any_level_and_keep_only_logits_below_it(
    seed, rows, levels, data
):
    above = data.draw(st.integers(0, levels - 1), label="above")
    kinds = (np.float32, np.float32)
    weights, bias, _, x = small_integers(seed, rows, 7, levels, kinds)
    expected, node = one_by_one(weights, bias, None, None, x, levels)
    _, before = one_by_one(weights, bias, None, None, x, above)
    order, reached = numbered(rows)
    order[:rows] = np.argsort(before, kind="stable")
    nodes, begins = np.unique(np.sort(before), return_index=True)
    logits = np.full((rows, levels - above), 77, np.float32)
    continue_below(
        *(weights, bias, x, logits, above, order, reached, scratch(rows)),
        *(np.empty(PRODUCTS, np.float32), nodes, begins, levels),
    )
    np.testing.assert_array_equal(logits, expected[:, above:])
    np.testing.assert_array_equal(order[:rows], np.argsort(node, kind="stable"))
    np.testing.assert_array_equal(reached[:rows], np.sort(node))
