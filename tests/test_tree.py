"""Heap arithmetic agrees with trees that are really built, node by node."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.tree import MAX_DEPTH, depth_of, gate_count, leaf_count, level_start, node_count


def built_levels(depth):
    """Nodes of each level of a tree: the root, then the children of each level's nodes."""
    levels = [[0]]
    for _ in range(depth):
        levels.append([child for n in levels[-1] for child in (2 * n + 1, 2 * n + 2)])
    return levels


@pytest.mark.parametrize("depth", range(11))
def test_counts_are_those_of_a_built_tree(depth):
    levels = built_levels(depth)
    nodes = [node for level in levels for node in level]
    assert nodes == list(range(node_count(depth)))
    assert leaf_count(depth) == len(levels[-1])
    assert gate_count(depth) == len(nodes) - len(levels[-1])
    assert [level_start(level) for level in range(depth + 1)] == [level[0] for level in levels]


def test_a_single_node_is_a_tree():
    assert (node_count(0), leaf_count(0), gate_count(0), level_start(0)) == (1, 1, 0, 0)
    assert depth_of(1) == 0


@pytest.mark.parametrize("depth", range(MAX_DEPTH + 1))
def test_depth_of_undoes_node_count(depth):
    assert depth_of(node_count(depth)) == depth


def test_other_numbers_of_nodes_are_no_tree():
    trees = {node_count(depth) for depth in range(13)}
    for nodes in set(range(-10, 5000)) - trees:
        with pytest.raises(ValueError, match=f"no complete binary tree has {nodes} nodes"):
            depth_of(nodes)


@given(st.integers(2, 2**40))
def test_neighbours_of_a_tree_are_no_tree(nodes):
    sizes = {node_count(depth) for depth in range(64)}
    if nodes in sizes:
        assert node_count(depth_of(nodes)) == nodes
    else:
        with pytest.raises(ValueError, match="no complete binary tree"):
            depth_of(nodes)


def test_deepest_tree_is_the_last_whose_last_children_fit_int32():
    largest = np.iinfo(np.int32).max
    children = [2 * (node_count(depth) - 1) + 2 for depth in (MAX_DEPTH, MAX_DEPTH + 1)]
    assert children[0] <= largest < children[1]


@pytest.mark.parametrize("function", [node_count, leaf_count, gate_count, level_start])
def test_counts_are_python_integers(function):
    assert type(function(5)) is int
    assert function(40) > 2**39  # and do not wrap round
