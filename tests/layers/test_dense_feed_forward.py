"""DenseFeedForward: a FastFeedForward of depth 0 computes the same, forward and backward."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from fffcpu import DenseFeedForward, FastFeedForward
from fffcpu.testing.strategies import path_problems


def twins(problem):
    """A dense layer and the FastFeedForward of one-node trees with the same numbers."""
    weights_in, weights_out = problem.weights_in[:, :1], problem.weights_out[:, :1]
    bias = None if problem.bias is None else problem.bias_in[:, :1]
    trees = FastFeedForward.from_arrays(
        weights_in, weights_out, bias, activation=problem.activation
    )
    dense = DenseFeedForward(
        weights_in.shape[2],
        weights_out.shape[2],
        len(weights_in),
        bias=bias is not None,
        activation=problem.activation,
        dtype=weights_in.dtype,
    )
    for name, array in trees.params.items():
        dense.params[name][...] = array[:, 0]
    return dense, trees


@given(problem=path_problems(kinds=("normal",), dtypes=(np.float64,), two_sided=False))
def test_it_computes_what_trees_of_depth_0_compute(problem):
    dense, trees = twins(problem)
    np.testing.assert_allclose(dense(problem.x), trees(problem.x), rtol=1e-9, atol=1e-9)
    y, cache = dense.forward(problem.x)
    np.testing.assert_allclose(y, trees(problem.x), rtol=1e-9, atol=1e-9)
    dx, grads = dense.backward(problem.dy, cache)
    _, cache = trees.forward(problem.x)
    expected_dx, expected = trees.backward(problem.dy, cache)
    np.testing.assert_allclose(dx, expected_dx, rtol=1e-9, atol=1e-9)
    assert list(grads) == list(expected)
    for name, grad in expected.items():
        np.testing.assert_allclose(grads[name], grad[:, 0], rtol=1e-9, atol=1e-9)


def test_all_neurons_are_active():
    layer = DenseFeedForward(8, 3, 20)
    assert layer.config.neurons == layer.config.active_neurons == 20


def test_initial_values_are_uniform_in_the_stated_bounds():
    layer = DenseFeedForward(64, 32, 400, rng=0)
    for name, bound in (("weights_in", 1 / 8), ("bias_in", 1 / 8), ("weights_out", 1 / 20)):
        assert 0.98 * bound < np.abs(layer.params[name]).max() <= bound
        assert abs(layer.params[name].std() - bound / np.sqrt(3)) < 0.05 * bound


def test_wrong_arguments_are_errors():
    with pytest.raises(ValueError, match="'width' must be an integer of at least 1, got 0"):
        DenseFeedForward(8, 3, 0)
    with pytest.raises(TypeError, match="'bias' must be True or False, got 1"):
        DenseFeedForward(8, 3, 4, bias=1)
