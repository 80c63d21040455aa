"""How many rows a block has."""

from __future__ import annotations

import pytest

from fffcpu.kernels import blocks


@pytest.mark.parametrize("rows", [1, 64, 65, 1000, 1024, 1025, 10**6])
def test_blocks_are_equally_large_and_cover_all_rows(rows):
    size = blocks.equal_blocks(rows, 256)
    number = -(-rows // size)
    assert size <= 256
    assert number == -(-rows // 256)
    assert number * size - rows < number


@pytest.mark.parametrize(
    ("cache", "row_bytes", "rows"),
    [(2 << 20, 3072, 256), (1 << 20, 3072, 128), (2 << 20, 4, 1024), (256 << 10, 1 << 20, 64)],
)
def test_the_rows_of_a_block_fit_the_cache(monkeypatch, cache, row_bytes, rows):
    monkeypatch.setattr(blocks, "cache_bytes", lambda: cache)
    assert blocks.most_rows(row_bytes) == rows
