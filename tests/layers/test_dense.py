"""Dense: a projection and its gradients."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.errors import ArgumentTypeError, ShapeError
from fffcpu.layers import Dense
from tests.support.finite_differences import check_gradients

LEADING = st.sampled_from([(), (0,), (1,), (2, 3), (3, 0)])


@given(
    leading=LEADING,
    widths=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_output_and_gradients(leading, widths, bias, seed):
    rng = np.random.default_rng(seed)
    layer = Dense(*widths, bias=bias, dtype=np.float64, rng=seed)
    x, dy = rng.standard_normal((*leading, widths[0])), rng.standard_normal((*leading, widths[1]))
    y, cache = layer.forward(x)
    shift = layer.params["bias"] if bias else 0
    np.testing.assert_allclose(y, x @ layer.params["weights"].T + shift, atol=1e-12)
    np.testing.assert_array_equal(layer(x), y)
    dx, grads = layer.backward(dy, cache)
    assert list(grads) == list(layer.params)
    pairs = [(x, dx), *((layer.params[name], grad) for name, grad in grads.items())]
    check_gradients(lambda: (layer(x) * dy).sum(), pairs, seed)


def test_initial_values():
    layer = Dense(64, 100, rng=0)
    assert abs(layer.params["weights"].std() - 0.02) < 0.001
    assert not layer.params["bias"].any()
    assert layer.params["weights"].dtype == np.float32


def test_copies_have_their_own_numbers():
    layer = Dense(3, 2, rng=0)
    for twin in (layer.copy(), pickle.loads(pickle.dumps(layer))):
        np.testing.assert_array_equal(twin(np.ones(3)), layer(np.ones(3)))
        twin.params["weights"][...] = 0
        assert layer.params["weights"].all()
    assert layer.nbytes == 4 * (6 + 2)


def test_wrong_arguments_are_errors():
    layer = Dense(3, 2)
    with pytest.raises(ShapeError, match=r"'x' must have shape \(\.\.\., 3\), got shape \(5, 4\)"):
        layer(np.ones((5, 4)))
    with pytest.raises(ValueError, match="'input_dim' must be an integer of at least 1, got 0"):
        Dense(0, 2)
    with pytest.raises(ValueError, match="'dtype' must be float32 or float64"):
        Dense(3, 2, dtype=np.float16)
    with pytest.raises(ValueError, match="sizes of a Dense must fit into an address space"):
        Dense(2**40, 2**40)
    _, cache = layer.forward(np.ones((5, 3)))
    with pytest.raises(ShapeError, match=r"'dy' must have the shape of the output, \(5, 2\)"):
        layer.backward(np.ones((4, 2)), cache)
    with pytest.raises(ArgumentTypeError, match="'cache' must be the DenseCache"):
        layer.backward(np.ones((5, 2)), None)
    with pytest.raises(ShapeError, match="'cache' must be the DenseCache"):
        Dense(4, 2).backward(np.ones((5, 2)), cache)
