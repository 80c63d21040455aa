"""Dropout: what is dropped, what is kept, and the scale."""

from __future__ import annotations

import numpy as np
import pytest

from fffcpu.layers import Dropout


def test_a_share_is_dropped_and_the_mean_stays():
    x = np.ones((200, 300), np.float32)
    y, cache = Dropout(0.25).forward(x, np.random.default_rng(0))
    assert y.dtype == np.float32
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((y == 0).mean() - 0.25) < 0.01
    np.testing.assert_array_equal(cache.kept, y > 0)
    assert cache.kept.nbytes == x.size


def test_the_gradient_passes_where_the_number_did():
    x, dy = np.random.default_rng(0).standard_normal((2, 50))
    drop = Dropout(0.5)
    y, cache = drop.forward(x, np.random.default_rng(1))
    dx = drop.backward(dy, cache)
    np.testing.assert_array_equal(dx, np.where(y != 0, 2 * dy, 0))


def test_the_same_seed_drops_the_same():
    x = np.ones(100)
    first, again, other = (Dropout(0.5).forward(x, np.random.default_rng(s))[0] for s in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(("rate", "rng"), [(0.0, np.random.default_rng(0)), (0.5, None)])
def test_nothing_is_dropped_and_nothing_is_copied(rate, rng):
    x = np.ones(5)
    y, cache = Dropout(rate).forward(x, rng)
    assert y is x
    assert cache.kept is None
    assert Dropout(rate).backward(x, cache) is x


def test_rate_1_drops_everything():
    drop = Dropout(1)
    y, cache = drop.forward(np.ones(5), np.random.default_rng(0))
    assert not y.any()
    assert not drop.backward(np.ones(5), cache).any()


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_other_rates_are_errors(rate):
    with pytest.raises(ValueError, match="'rate' must be a number from 0 to 1, got"):
        Dropout(rate)
