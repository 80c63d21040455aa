"""How many rows a block has, and where the parts of its memory lie."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.kernels import blocks
from fffcpu.kernels.descent import MORE_ROWS, PRODUCTS, RUN_ARRAYS
from fffcpu.kernels.jit import inner, kernel


@pytest.mark.parametrize("rows", [1, 64, 65, 1000, 1024, 1025, 10**6])
def test_blocks_are_equally_large_and_cover_all_rows(rows):
    size = blocks.equal_blocks(rows, 256)
    number = -(-rows // size)
    assert size <= 256
    assert number == -(-rows // 256)
    assert number * size - rows < number


@pytest.mark.parametrize(
    ("cache", "widths", "visits", "trees", "rows"),
    [
        (2 << 20, 768, 8, 1, 256),
        (1 << 20, 768, 8, 1, 128),
        (2 << 20, 1, 1, 1, 1024),
        (256 << 10, 10**6, 1, 1, 64),
        (512 << 10, 64, 128, 16, 294),  # narrow trees, but many
    ],
)
def test_the_rows_of_a_block_fit_the_cache(monkeypatch, cache, widths, visits, trees, rows):
    monkeypatch.setattr(blocks, "cache_bytes", lambda: cache)
    assert blocks.most_rows(widths, visits, trees, itemsize=4) == rows


# --- The memory of a block ------------------------------------------------------------------------


@inner
def fill(part, count, number):
    for k in range(count):
        part[k] = number


@kernel
def fill_space(rows, width, trees, levels, floats, integers):
    """Fill each part of a block's memory with its own number."""
    space = blocks.new_space(rows, width, trees, floats, integers)
    fill(space.x, rows * width, 1)
    fill(space.products, PRODUCTS, 2)
    fill(space.paths.visits, rows * trees * levels, 3)
    runs, size = space.runs, rows + MORE_ROWS
    fill(runs.nodes, size, 1)
    fill(runs.begins, size, 2)
    fill(runs.next_nodes, size, 3)
    fill(runs.next_begins, size, 4)
    fill(runs.next_order, size, 5)
    fill(runs.ways, size, 6)
    fill(space.paths.rows, rows, 7)
    fill(space.paths.order, trees * rows, 8)
    fill(space.paths.reached, trees * rows, 9)
    return space.paths.capacity


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(
    rows=st.integers(1, 40),
    width=st.integers(1, 40),
    trees=st.integers(1, 4),
    levels=st.integers(1, 5),
    start=st.integers(0, 20),
)
def test_parts_of_a_block_lie_in_its_memory_and_apart(dtype, rows, width, trees, levels, start):
    # Arrays that start anywhere, with zeros on both sides that must stay.
    floats = blocks.float_count(rows, width, trees * levels)
    integers = blocks.integer_count(rows, trees)
    memory = np.zeros(start + floats + 100, dtype)
    numbers = np.zeros(start + integers + 100, np.int32)
    inside, inside_numbers = slice(start, start + floats), slice(start, start + integers)
    capacity = fill_space(rows, width, trees, levels, memory[inside], numbers[inside_numbers])
    assert capacity == rows

    first = memory.ctypes.data + memory.tolist().index(1) * memory.itemsize
    assert first % 64 == 0
    counts = np.bincount(memory[inside].astype(int), minlength=4)
    assert counts[1:].tolist() == [rows * width, PRODUCTS, rows * trees * levels]
    assert np.bincount(numbers[inside_numbers], minlength=10)[1:].tolist() == [
        *[rows + MORE_ROWS] * RUN_ARRAYS,
        *(rows, trees * rows, trees * rows),
    ]
    for whole, part in ((memory, inside), (numbers, inside_numbers)):
        whole[part] = 0
        assert not whole.any()
