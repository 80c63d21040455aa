"""Pooling of hidden states, and its gradient."""

from __future__ import annotations

import numpy as np
import pytest

from fffcpu.config.encoder import POOLERS
from fffcpu.models.pooling import pool, pool_backward
from tests.support.finite_differences import check_gradients

HIDDEN = np.random.default_rng(0).standard_normal((3, 4, 5))
EXACT = {
    "zero_index": HIDDEN[:, 0],
    "avg": HIDDEN.mean(axis=1),
    "max": HIDDEN.max(axis=1),
    "lse": np.log(np.exp(HIDDEN).sum(axis=1)),
}


@pytest.mark.parametrize("pooler", POOLERS)
def test_what_is_pooled(pooler):
    np.testing.assert_allclose(pool(HIDDEN, pooler), EXACT[pooler], atol=1e-12)
    assert pool(HIDDEN.astype(np.float32), pooler).dtype == np.float32
    assert pool(HIDDEN[:0], pooler).shape == (0, 5)


@pytest.mark.parametrize("pooler", POOLERS)
def test_gradients(pooler):
    hidden = HIDDEN.copy()
    d_pooled = np.random.default_rng(1).standard_normal((3, 5))
    d_hidden = pool_backward(d_pooled, pool(hidden, pooler), hidden, pooler)
    check_gradients(lambda: (pool(hidden, pooler) * d_pooled).sum(), [(hidden, d_hidden)])


def test_the_first_of_equal_numbers_gets_the_gradient():
    hidden = np.zeros((1, 3, 2))
    d_hidden = pool_backward(np.ones((1, 2)), pool(hidden, "max"), hidden, "max")
    np.testing.assert_array_equal(d_hidden[0], [[1, 1], [0, 0], [0, 0]])


def test_large_numbers_do_not_overflow():
    hidden = np.full((1, 2, 1), 1e4)
    assert np.isclose(pool(hidden, "lse"), 1e4 + np.log(2))
