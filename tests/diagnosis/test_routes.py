"""Where rows go, and the data and layers that are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from fffcpu import DenseFeedForward, FastFeedForward
from fffcpu.diagnosis import diagnose, leaf_means, measures, reached_leaves, routes
from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError
from tests.diagnosis.support import (
    MADE,
    ROWS,
    leaf_layer,
    node_layer,
    problems,
)


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


def test_a_large_array_is_taken_in_parts(monkeypatch):
    rows = np.random.default_rng(0).standard_normal((50, 3))
    layer = FastFeedForward(3, 2, 3, rng=0)
    whole, taken = diagnose(layer, rows), []
    decide = routes.decisions
    monkeypatch.setattr(routes, "BLOCK_ROWS", 8)
    monkeypatch.setattr(
        measures,
        "decisions",
        lambda layer, rows, first: taken.append(len(rows)) or decide(layer, rows, first),
    )
    np.testing.assert_array_equal(diagnose(layer, rows).visits, whole.visits)
    assert taken == [8, 8, 8, 8, 8, 8, 2]


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
        (
            np.array([[1, 2], [np.nan, 1]]),
            ArgumentError,
            "got nan for row 1 in tree 0 at level 0",
        ),
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
