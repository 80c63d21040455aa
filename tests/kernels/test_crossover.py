"""From how many rows on the grouped kernels are taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.kernels.crossover import FEWEST_ROWS, groups_leaves, groups_paths


@pytest.mark.parametrize(
    ("trees", "nodes", "width", "first"),
    [
        (1, 15, 64, 64),
        (1, 4095, 64, 512),  # a deep tree needs rows that meet
        (1, 4095, 768, 512),
        (8, 63, 64, 64),
        (8, 255, 64, 128),  # narrow trees need more
        (8, 255, 256, 64),
        (4, 63, 768, 32),  # the top levels of wide trees are worth sharing
    ],
)
def test_the_first_number_of_rows(trees, nodes, width, first):
    assert groups_paths(first, 1, trees, nodes, width)
    assert not groups_paths(first - 1, 1, trees, nodes, width)


def test_the_rows_of_one_thread_count_where_threads_share_them():
    assert groups_paths(64, 2, 4, 63, 64)
    assert not groups_paths(64, 2, 8, 255, 384)
    assert groups_paths(128, 2, 8, 255, 384)


@given(
    rows=st.integers(0, 5000),
    threads=st.integers(1, 64),
    trees=st.integers(1, 32),
    depth=st.integers(0, 15),
    width=st.integers(1, 4096),
)
def test_few_rows_are_never_grouped_and_very_many_always(rows, threads, trees, depth, width):
    nodes = 2 ** (depth + 1) - 1
    if groups_paths(rows, threads, trees, nodes, width):
        assert rows >= FEWEST_ROWS
    assert groups_paths(64 * threads * (nodes + 1), threads, trees, nodes, width) is (depth > 0)


@pytest.mark.parametrize(
    ("leaves", "first"),
    [(1, 64), (16, 64), (32, 64), (33, 66), (64, 128), (512, 1024)],  # two rows per leaf
)
def test_the_first_number_of_rows_of_leaves(leaves, first):
    assert groups_leaves(first, leaves)
    assert not groups_leaves(first - 1, leaves)


@given(rows=st.integers(0, 5000), depth=st.integers(0, 12))
def test_more_rows_or_fewer_leaves_are_grouped_no_less(rows, depth):
    if groups_leaves(rows, 2**depth):
        assert groups_leaves(rows + 1, 2**depth)
        assert groups_leaves(rows, max(1, 2**depth // 2))
