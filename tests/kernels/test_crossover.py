"""From how many rows on the grouped kernels are taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.kernels.crossover import FEWEST_ROWS, groups_paths


@pytest.mark.parametrize(
    ("trees", "nodes", "width", "first"),
    [
        (1, 15, 64, 64),  # as soon as anything is grouped
        (1, 4095, 64, 512),  # a deep tree needs rows that meet
        (1, 4095, 768, 64),  # and fewer of them if it is wide
        (8, 63, 64, 64),
        (8, 255, 64, 128),  # narrow trees need more
        (8, 255, 256, 64),
        (4, 63, 768, 16),  # the top levels of wide trees are worth sharing
    ],
)
def test_the_first_number_of_rows(trees, nodes, width, first):
    assert groups_paths(first, 1, trees, nodes, width)
    assert not groups_paths(first - 1, 1, trees, nodes, width)


@given(
    rows=st.integers(0, 5000),
    threads=st.integers(1, 64),
    trees=st.integers(1, 32),
    depth=st.integers(0, 15),
    width=st.integers(1, 4096),
)
def test_more_rows_are_grouped_where_fewer_are(rows, threads, trees, depth, width):
    shape = (trees, 2 ** (depth + 1) - 1, width)
    if groups_paths(rows, threads, *shape):
        assert rows >= FEWEST_ROWS
        assert groups_paths(rows + 1, threads, *shape)
        assert groups_paths(rows, max(1, threads - 1), *shape)
