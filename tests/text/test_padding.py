"""Texts of several lengths in arrays: each once, with little padding, in filled batches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.text.padding import PADDING, TOKENS, batches_by_length, compute_by_length, padded


def test_texts_are_padded_to_the_longest():
    ids, real = padded([[5, 6, 7], [8]], 9)
    assert ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert real.tolist() == [[True, True, True], [True, False, False]]


@given(lengths=st.lists(st.integers(2, 3000), max_size=200), padding=st.sampled_from([0, 2, 8]))
def test_batches_hold_every_text_once_and_little_padding(lengths, padding):
    batches = list(batches_by_length(lengths, padding))
    assert sorted(k for batch in batches for k in batch) == list(range(len(lengths)))
    for batch in batches:
        own = [lengths[k] for k in batch]
        size = len(own) * max(own)
        assert len(own) == 1 or size <= TOKENS
        assert (size - sum(own)) * max(padding, 1) <= (size if padding else 0)


def test_batches_are_filled():
    batches = list(batches_by_length([8] * 1000, PADDING))
    assert [len(batch) for batch in batches] == [256, 256, 256, 232]


@pytest.mark.parametrize("padding", [0, PADDING])
def test_results_come_in_the_order_of_the_rows(padding):
    rows = [[number] * length for number, length in enumerate([7, 3, 8, 3, 4])]
    shapes = []

    def compute(ids, real):
        shapes.append(ids.shape)
        return (row[kept].tolist() for row, kept in zip(ids, real, strict=True))

    assert compute_by_length(rows, 9, compute, padding) == rows
    together = [(1, 8), (1, 7)] if padding == 0 else [(2, 8)]
    assert shapes == [*together, (1, 4), (2, 3)]
    assert compute_by_length([], 9, np.array, padding) == []
