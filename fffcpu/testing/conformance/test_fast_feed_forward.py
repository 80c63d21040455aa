"""FastFeedForward through a backend: published numbers, gradients by differences, ties, trees."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import DTypeLike, NDArray
from scipy.special import ndtr

from fffcpu import FastFeedForward, cmm
from fffcpu.testing import golden, oracle
from fffcpu.testing.plugin import Through
from fffcpu.testing.strategies import PathProblem, path_problems

Array = NDArray[Any]


def assert_close(actual: Array, expected: Array, relative: float) -> None:
    """Assert agreement relative to the largest value."""
    assert np.abs(actual - expected).max() <= relative * np.abs(expected).max()


def layer_of(problem: PathProblem) -> FastFeedForward:
    """Return a layer with the problem's parameters."""
    return FastFeedForward.from_arrays(
        problem.weights_in, problem.weights_out, problem.bias, activation=problem.activation
    )


@pytest.mark.parametrize(("dtype", "relative"), [(np.float64, 1e-10), (np.float32, 2e-5)])
@pytest.mark.parametrize("file", golden.files("path_fff"), ids=lambda file: file.stem)
def test_published_outputs_and_gradients(
    file: Path, dtype: DTypeLike, relative: float, through: Through
) -> None:
    check_published(file, dtype, relative, through)


def check_published(file: Path, dtype: DTypeLike, relative: float, through: Through) -> None:
    """Compare outputs and gradients with those of a file."""
    data = np.load(file)
    trees, width = int(data["trees"]), data["x"].shape[1]
    weights_in = data["linear_in_weight"].reshape(trees, -1, width).astype(dtype)
    weights_out = data["linear_out_weight"].T.reshape(weights_in.shape).astype(dtype)
    bias_in = data["linear_in_bias"].reshape(trees, -1).astype(dtype)
    layer = FastFeedForward.from_arrays(weights_in, weights_out, bias_in)
    with through():
        assert_close(layer(data["x"]), data["y"], relative)
        y, cache = layer.forward(data["x"])
        dx, grads = layer.backward(data["dy"], cache)
    assert_close(y, data["y"], relative)
    assert_close(dx, data["dx"], relative)
    d_in = data["d_linear_in_weight"].reshape(weights_in.shape)
    assert_close(grads["weights_in"], d_in, relative)
    assert_close(grads["bias_in"], data["d_linear_in_bias"].reshape(trees, -1), relative)
    d_out = data["d_linear_out_weight"].T.reshape(weights_out.shape)
    assert_close(grads["weights_out"], d_out, relative)


@pytest.mark.parametrize("file", golden.files("bmm_fff"), ids=lambda file: file.stem)
def test_published_outputs_of_the_benchmark_layer(file: Path, through: Through) -> None:
    data = np.load(file)
    layer = FastFeedForward.from_arrays(data["w1s"][np.newaxis], data["w2s"][np.newaxis])
    with through():
        assert_close(layer(data["x"]), data["y"], 2e-5)


@given(
    problem=path_problems(max_rows=4, kinds=("normal",), dtypes=(np.float64,)),
    seed=st.integers(0, 99),
)
def test_gradients_agree_with_finite_differences(
    problem: PathProblem, seed: int, through: Through
) -> None:
    assume(len(problem.x))
    layer = layer_of(problem)
    x, step = problem.x.copy(), 1e-6
    rng = np.random.default_rng(seed)

    def loss() -> float:
        return float((layer(x) * problem.dy).sum())

    with through():
        _, cache = layer.forward(problem.x)
        # A step of a weight or of x moves a logit by less: no route changes, no kink is met.
        assume(np.abs(cache.logits).min() > 20 * step)
        dx, grads = layer.backward(problem.dy, cache)
        checks = [(x, dx), *((layer.params[name], grad) for name, grad in grads.items())]
        for array, grad in checks:
            direction = rng.choice([-1.0, 1.0], array.shape) / math.sqrt(array.size)
            array += step * direction
            above = loss()
            array -= 2 * step * direction
            below = loss()
            array += step * direction
            expected = (above - below) / (2 * step)
            scale = np.linalg.norm(grad) + abs(loss()) * 1e-3 + 1e-6
            assert abs((grad * direction).sum() - expected) <= 1e-5 * scale


@given(problem=path_problems())
def test_calls_with_any_leading_shape_route_alike(problem: PathProblem, through: Through) -> None:
    layer = layer_of(problem)
    with through():
        nodes = layer.route(problem.x)
        logits, again = cmm(problem.x, problem.weights_in, problem.bias)
        stacked = layer.route(problem.x[np.newaxis, :, np.newaxis])
    np.testing.assert_array_equal(nodes, again)
    assert nodes.dtype == np.int32
    assert stacked.shape == (1, len(problem.x), 1, *nodes.shape[1:])
    np.testing.assert_array_equal(stacked.reshape(nodes.shape), nodes)
    assert logits.dtype == problem.weights_in.dtype


@given(problem=path_problems(kinds=("integer",)))
def test_ties_go_left(problem: PathProblem, through: Through) -> None:
    layer = layer_of(problem)
    expected = oracle.path(
        problem.x, problem.weights_in, problem.bias, problem.weights_out, problem.activation
    )
    with through():
        np.testing.assert_array_equal(layer.route(problem.x), expected.nodes)


def test_a_zero_row_without_bias_goes_left_all_the_way(through: Through) -> None:
    layer = FastFeedForward(4, 3, 3, bias=False, rng=0)
    with through():
        np.testing.assert_array_equal(layer.route(np.zeros(4)), [[0, 1, 3, 7]])
        np.testing.assert_array_equal(layer.route(np.full(4, np.nan)), [[0, 1, 3, 7]])
        assert not layer(np.zeros(4)).any()


@given(problem=path_problems(max_rows=6))
def test_trees_add_up(problem: PathProblem, through: Through) -> None:
    layer = layer_of(problem)
    with through():
        together = layer(problem.x)
        alone = sum(
            FastFeedForward.from_arrays(
                problem.weights_in[tree : tree + 1],
                problem.weights_out[tree : tree + 1],
                None if problem.bias is None else problem.bias[tree : tree + 1],
                activation=problem.activation,
            )(problem.x)
            for tree in range(layer.config.trees)
        )
    scale = max(1.0, np.abs(together).max(initial=0))
    np.testing.assert_allclose(together, alone, rtol=0, atol=2e-4 * scale)


@given(problem=path_problems(dtypes=(np.float64,)), row_sparse=st.booleans())
def test_straight_through_adds_the_gradients_of_choices(
    problem: PathProblem, row_sparse: bool, through: Through
) -> None:
    layer = layer_of(problem)
    arrays = (problem.x, problem.weights_in, problem.bias, problem.weights_out, problem.dy)
    d_logits, margin = oracle.choice_gradients(*arrays, problem.activation)
    assume(problem.kind == "integer" or (margin > 1e-9).all())
    with through():
        _, cache = layer.forward(problem.x)
        constant_dx, constant = layer.backward(problem.dy, cache)
        dx, grads = layer.backward(problem.dy, cache, row_sparse, straight_through=True)
    if row_sparse:
        grads = {name: grad.dense() for name, grad in grads.items()}
    added_dx, added = oracle.logit_gradients(problem.x, problem.weights_in, cache.nodes, d_logits)
    pairs = [(dx, constant_dx + added_dx)]
    pairs += [(grads[name], constant[name] + added.get(name, 0.0)) for name in grads]
    for actual, expected in pairs:
        size = 1 + np.abs(expected).max(initial=0)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-9 * size)
    np.testing.assert_array_equal(grads["weights_out"], constant["weights_out"])


def test_straight_through_is_the_derivative_of_a_choice_made_smooth(through: Through) -> None:
    """The choice is the root's: the normal distribution mixes its two subtrees.

    The mixture is shifted so that it equals the hard choice at the logit. The rows' logits there
    are far from 0 in units of the step, and the mixture is linear in the probability. So its slope
    is that of the difference.
    """
    layer = FastFeedForward(5, 3, 2, rng=0, dtype=np.float64)
    rng = np.random.default_rng(1)
    x, dy = rng.standard_normal((6, 5)), rng.standard_normal((6, 3))

    def subtree(child: int) -> Array:
        """Return the outputs below the root if all rows go to one side."""
        moved = layer.copy()
        moved.params["weights_in"][0, 0], moved.params["bias_in"][0, 0] = 0, 2 * child - 1
        below = moved(x)
        moved.params["weights_out"][0, 1:] = 0
        return below - moved(x)

    with through():
        _, cache = layer.forward(x)
        _, constant = layer.backward(dy, cache)
        _, grads = layer.backward(dy, cache, straight_through=True)
        better = ((subtree(1) - subtree(0)) * dy).sum(axis=1)
    step = 1e-6
    slope = (ndtr(cache.logits[:, 0, 0] + step) - ndtr(cache.logits[:, 0, 0] - step)) / (2 * step)
    added = grads["bias_in"][0, 0] - constant["bias_in"][0, 0]
    assert added == pytest.approx((better * slope).sum(), rel=1e-6)


def test_straight_through_of_one_node_is_nothing(through: Through) -> None:
    layer = FastFeedForward(5, 3, 0, 2, rng=0)
    with through():
        y, cache = layer.forward(np.ones((4, 5)))
        _, constant = layer.backward(y, cache)
        _, grads = layer.backward(y, cache, straight_through=True)
    for name, grad in grads.items():
        np.testing.assert_array_equal(grad, constant[name])
