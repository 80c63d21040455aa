"""Masking: exactly as many positions as asked, hidden in the published shares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.checks import IGNORED_LABEL
from fffcpu.recipes.masking import mask_tokens

MASK, VOCABULARY = 4, 50


@given(
    batch=st.integers(0, 5),
    length=st.integers(1, 40),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**32),
)
def test_each_sequence_has_exactly_its_share_to_guess(batch, length, share, seed):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(5, VOCABULARY, (batch, length)).astype(np.uint16)
    before = tokens.copy()
    inputs, labels = mask_tokens(tokens, rng, mask_id=MASK, vocabulary=VOCABULARY, share=share)
    wanted = labels != IGNORED_LABEL
    assert (wanted.sum(axis=1) == round(share * length)).all()
    assert (labels[wanted] == tokens[wanted]).all()
    assert (inputs[~wanted] == tokens[~wanted]).all()
    assert (tokens == before).all()
    assert inputs.shape == labels.shape == tokens.shape
    assert ((inputs >= 0) & (inputs < VOCABULARY)).all()


def test_what_is_seen_there_comes_in_the_published_shares():
    rng = np.random.default_rng(0)
    tokens = np.full((2000, 128), 7)
    inputs, labels = mask_tokens(tokens, rng, mask_id=MASK, vocabulary=1000)
    seen = inputs[labels != IGNORED_LABEL]
    assert len(seen) == 2000 * 32
    assert (seen == MASK).mean() == pytest.approx(0.8, abs=0.01)
    assert (seen == 7).mean() == pytest.approx(0.1, abs=0.01)
    others = seen[(seen != MASK) & (seen != 7)]
    assert len(others) / len(seen) == pytest.approx(0.1, abs=0.01)
    assert len(np.unique(others)) > 900
    # Every position is as likely as any other.
    often = (labels != IGNORED_LABEL).mean(axis=0)
    assert often == pytest.approx(0.25, abs=0.05)


def test_the_same_seed_hides_the_same():
    tokens = np.arange(60).reshape(3, 20) % VOCABULARY
    first, second = (
        mask_tokens(tokens, np.random.default_rng(5), mask_id=MASK, vocabulary=VOCABULARY)
        for _ in range(2)
    )
    assert (first[0] == second[0]).all()
    assert (first[1] == second[1]).all()


def test_wrong_arguments_are_told():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="'tokens' must be integers of shape"):
        mask_tokens(np.zeros(3, int), rng, mask_id=4, vocabulary=9)
    with pytest.raises(ValueError, match="'share'"):
        mask_tokens(np.zeros((1, 3), int), rng, mask_id=4, vocabulary=9, share=1.5)
    with pytest.raises(ValueError, match="'mask_id'"):
        mask_tokens(np.zeros((1, 3), int), rng, mask_id=9, vocabulary=9)
