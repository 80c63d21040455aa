"""LayerNorm: rows of mean 0 and variance 1, and gradients."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError
from fffcpu.layers import LayerNorm
from tests.support.finite_differences import check_gradients


@given(
    leading=st.sampled_from([(), (0,), (1,), (2, 3), (3, 0)]),
    width=st.integers(2, 40),
    seed=st.integers(0, 99),
)
def test_output_and_gradients(leading, width, seed):
    rng = np.random.default_rng(seed)
    layer = LayerNorm(width, 0.1, dtype=np.float64)
    for array in layer.params.values():
        array[...] = rng.standard_normal(width)
    x, dy = rng.standard_normal((2, *leading, width))
    y, cache = layer.forward(x)
    normal = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 0.1)
    expected = normal * layer.params["scale"] + layer.params["bias"]
    np.testing.assert_allclose(y, expected, atol=1e-12)
    np.testing.assert_array_equal(layer(x), y)
    dx, grads = layer.backward(dy, cache)
    assert list(grads) == list(layer.params)
    pairs = [(x, dx), *((layer.params[name], grad) for name, grad in grads.items())]
    check_gradients(lambda: (layer(x) * dy).sum(), pairs, seed)


@given(leading=st.sampled_from([(0,), (1, 1), (2, 3)]), shifted=st.booleans())
def test_of_sum_is_the_norm_of_the_sum_and_reuses_the_second_array(leading, shifted):
    rng = np.random.default_rng(0)
    layer = LayerNorm(20, dtype=np.float64)
    layer.params["scale"][...], layer.params["bias"][...] = rng.standard_normal((2, 20))
    x, y = rng.standard_normal((2, *leading, 20))
    shift = rng.standard_normal(20) if shifted else None
    before, expected = x.copy(), layer((y + shift if shifted else y) + x)
    found = layer.of_sum(x, y, shift)
    assert found is y
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(x, before)


def test_it_starts_as_plain_normalisation():
    y = LayerNorm(50)(np.random.default_rng(0).normal(7, 3, (4, 50)))
    assert y.dtype == np.float32
    assert np.abs(y.mean(axis=1)).max() < 1e-6
    assert np.abs(y.std(axis=1) - 1).max() < 1e-6


def test_wrong_arguments_are_errors():
    layer = LayerNorm(3)
    with pytest.raises(ShapeError, match=r"'x' must have shape \(\.\.\., 3\)"):
        layer(np.ones(4))
    with pytest.raises(ArgumentError, match="'eps' must be a number of at least 0, got -1"):
        LayerNorm(3, -1)
    with pytest.raises(ArgumentTypeError, match="'cache' must be the LayerNormCache"):
        layer.backward(np.ones((5, 3)), "cache")
