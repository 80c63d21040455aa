"""FastFeedForward and cmm: published numbers, gradients, routes, initial values, bits."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.special import ndtr

from fffcpu import FastFeedForward, cmm
from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError
from fffcpu.testing import oracle
from fffcpu.testing.strategies import path_problems
from tests.support.paths import GOLDEN

PATH_FILES = sorted(GOLDEN.glob("path_fff_*.npz"))
BMM_FILES = sorted(GOLDEN.glob("bmm_fff_*.npz"))


def assert_close(actual, expected, relative):
    """Assert agreement relative to the largest value."""
    assert np.abs(actual - expected).max() <= relative * np.abs(expected).max()


def test_golden_files_are_there():
    assert len(PATH_FILES) == 6
    assert len(BMM_FILES) == 2


@pytest.mark.parametrize(("dtype", "relative"), [(np.float64, 1e-10), (np.float32, 2e-5)])
@pytest.mark.parametrize("file", PATH_FILES, ids=lambda file: file.stem)
def test_published_outputs_and_gradients(file, dtype, relative, through):
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


@pytest.mark.parametrize("file", BMM_FILES, ids=lambda file: file.stem)
def test_published_outputs_of_the_benchmark_layer(file, through):
    data = np.load(file)
    layer = FastFeedForward.from_arrays(data["w1s"][np.newaxis], data["w2s"][np.newaxis])
    with through():
        assert_close(layer(data["x"]), data["y"], 2e-5)


def layer_of(problem):
    return FastFeedForward.from_arrays(
        problem.weights_in, problem.weights_out, problem.bias, activation=problem.activation
    )


@given(
    problem=path_problems(max_rows=4, kinds=("normal",), dtypes=(np.float64,)),
    seed=st.integers(0, 99),
)
def test_gradients_agree_with_finite_differences(problem, seed, through):
    assume(len(problem.x))
    layer = layer_of(problem)
    x, step = problem.x.copy(), 1e-6
    rng = np.random.default_rng(seed)

    def loss():
        return (layer(x) * problem.dy).sum()

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
def test_calls_with_any_leading_shape_route_alike(problem, through):
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
def test_ties_go_left(problem, through):
    layer = layer_of(problem)
    expected = oracle.path(
        problem.x, problem.weights_in, problem.bias, problem.weights_out, problem.activation
    )
    with through():
        np.testing.assert_array_equal(layer.route(problem.x), expected.nodes)


def test_a_zero_row_without_bias_goes_left_all_the_way(through):
    layer = FastFeedForward(4, 3, 3, bias=False, rng=0)
    with through():
        np.testing.assert_array_equal(layer.route(np.zeros(4)), [[0, 1, 3, 7]])
        np.testing.assert_array_equal(layer.route(np.full(4, np.nan)), [[0, 1, 3, 7]])
        assert not layer(np.zeros(4)).any()


@given(problem=path_problems(max_rows=6))
def test_trees_add_up(problem, through):
    layer = layer_of(problem)
    with through():
        together = layer(problem.x)
        alone = sum(
            FastFeedForward.from_arrays(
                problem.weights_in[tree : tree + 1],
                problem.weights_out[tree : tree + 1],
                None if problem.bias is None else problem.bias_in[tree : tree + 1],
                activation=problem.activation,
            )(problem.x)
            for tree in range(layer.config.trees)
        )
    scale = max(1.0, np.abs(together).max(initial=0))
    np.testing.assert_allclose(together, alone, rtol=0, atol=2e-4 * scale)


def test_initial_values_are_uniform_in_the_stated_bounds():
    layer = FastFeedForward(64, 32, 7, trees=3, rng=0)
    bounds = {
        "weights_in": 1 / 8,
        "bias_in": 1 / 8,
        "weights_out": 1 / math.sqrt(8 * 3),
    }
    assert list(layer.params) == list(bounds)
    for name, bound in bounds.items():
        array = layer.params[name]
        assert np.abs(array).max() <= bound
        assert np.abs(array).max() > 0.98 * bound
        assert abs(array.mean()) < 0.1 * bound
        assert abs(array.std() - bound / math.sqrt(3)) < 0.05 * bound


def test_depth_0_is_one_node():
    layer = FastFeedForward(6, 4, 0, rng=0)
    assert layer.params["weights_in"].shape == (1, 1, 6)
    x = np.random.default_rng(1).standard_normal((5, 6))
    np.testing.assert_array_equal(layer.route(x), np.zeros((5, 1, 1)))
    logits, _ = cmm(x, layer.params["weights_in"], layer.params["bias_in"])
    active = oracle.activate(logits[:, 0], "gelu")
    np.testing.assert_allclose(layer(x), active @ layer.params["weights_out"][0], rtol=1e-4)


def test_without_bias_there_is_no_bias_parameter():
    layer = FastFeedForward(6, 4, 2, bias=False, rng=0)
    assert list(layer.params) == ["weights_in", "weights_out"]
    _, cache = layer.forward(np.ones((2, 6)))
    assert list(layer.backward(np.ones((2, 4)), cache)[1]) == ["weights_in", "weights_out"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 4, 2), ArgumentError, "'input_dim' must be an integer of at least 1, got 0"),
        ((4, -1, 2), ArgumentError, "'output_dim' must be an integer of at least 1, got -1"),
        ((4, 4, -1), ArgumentError, "'depth' must be an integer from 0 to 30, got -1"),
        ((4, 4, 31), ArgumentError, "'depth' must be an integer from 0 to 30, got 31"),
        ((4, 4, 2.0), ArgumentTypeError, "'depth' must be an integer from 0 to 30, got 2.0"),
        ((4, 4, 2, 0), ArgumentError, "'trees' must be an integer of at least 1, got 0"),
        (("4", 4, 2), ArgumentTypeError, "'input_dim' must be an integer of at least 1, got '4'"),
        ((4, 4, True), ArgumentTypeError, "'depth' must be an integer from 0 to 30, got True"),
    ],
)
def test_wrong_sizes_are_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        FastFeedForward(*arguments)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"activation": "tanh"}, ArgumentError, "'activation' must be one of 'gelu', 'relu'"),
        ({"dtype": np.float16}, ArgumentError, "'dtype' must be float32 or float64"),
        ({"dtype": "no such"}, ArgumentError, "'dtype' must be float32 or float64"),
        ({"dtype": None}, ArgumentError, "'dtype' must be float32 or float64, got None"),
        ({"bias": 1}, ArgumentTypeError, "'bias' must be True or False, got 1"),
    ],
)
def test_wrong_options_are_errors(options, error, message):
    with pytest.raises(error, match=message):
        FastFeedForward(4, 4, 2, **options)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((1, 6, 4), (1, 6, 3), None), r"'weights_in' must have 2\*\*\(depth \+ 1\) - 1 nodes"),
        (((1, 7, 4), (1, 3, 3), None), r"'weights_out' must have shape \(1, 7, 3\)"),
        (((1, 7, 4), (2, 7, 3), None), r"'weights_out' must have shape \(1, 7, 3\)"),
        (((1, 7, 4), (1, 7, 3), (1, 6)), r"'bias_in' must have shape \(1, 7\)"),
        (((7, 4), (7, 3), None), r"'weights_in' must have 3 axes, got shape \(7, 4\)"),
        (((1, 7, 4), (1, 7, 3), (7,)), r"'bias_in' must have 2 axes, got shape \(7,\)"),
        (((0, 7, 4), (0, 7, 3), None), "'trees' must be an integer of at least 1, got 0"),
    ],
)
def test_arrays_that_do_not_fit_are_errors(shapes, message):
    with pytest.raises(ValueError, match=message):
        FastFeedForward.from_arrays(*(s if s is None else np.zeros(s) for s in shapes))


def test_from_arrays_copies():
    weights_in, weights_out = np.ones((1, 3, 2), np.float32), np.ones((1, 3, 2), np.float32)
    layer = FastFeedForward.from_arrays(weights_in, weights_out)
    weights_in[...] = 9
    assert (layer.params["weights_in"] == 1).all()


def test_cmm_checks_its_arguments():
    with pytest.raises(ShapeError, match=r"'bias_in' must have shape \(1, 3\)"):
        cmm(np.ones((2, 4)), np.ones((1, 3, 4)), np.ones((1, 2)))
    with pytest.raises(ShapeError, match=r"'x' must have shape \(\.\.\., 4\)"):
        cmm(np.ones((2, 5)), np.ones((1, 3, 4)))
    with pytest.raises(ShapeError, match="'weights_in' must have 2"):
        cmm(np.ones((2, 4)), np.ones((1, 4, 4)))


def test_cmm_is_as_precise_as_the_layer_of_its_arrays():
    weights, bias = np.zeros((1, 3, 2), np.float32), np.full((1, 3), 1e-60)
    layer = FastFeedForward.from_arrays(weights, np.zeros((1, 3, 1)), bias)
    logits, nodes = cmm(np.ones(2), weights, bias)
    np.testing.assert_array_equal(nodes, layer.route(np.ones(2)))
    assert logits.dtype == np.float64


def test_sizes_that_no_memory_holds_are_an_error():
    with pytest.raises(
        ArgumentError,
        match=r"sizes of a FastFeedForward .* too large for the parameter 'weights_in'",
    ):
        FastFeedForward(10**12, 10**12, 30)


@given(
    rows=st.integers(0, 20),
    trees=st.integers(1, 3),
    depth=st.integers(0, 6),
    bias=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_row_sparse_gradients_are_the_rows_of_dense_ones(rows, trees, depth, bias, dtype):
    layer = FastFeedForward(5, 3, depth, trees, bias=bias, dtype=dtype, rng=0)
    rng = np.random.default_rng(rows)
    y, cache = layer.forward(rng.standard_normal((rows, 5)))
    dy = rng.standard_normal(y.shape)
    dx, dense = layer.backward(dy, cache)
    again, sparse = layer.backward(dy, cache, row_sparse=True)
    np.testing.assert_array_equal(again, dx)
    assert list(sparse) == list(dense)
    visited = np.unique(layer.route(cache.x) + np.arange(trees)[:, np.newaxis] * (2 << depth))
    for name, grad in sparse.items():
        assert len(grad.rows) == len(visited)
        assert grad.leading == layer.params["weights_in"].shape[:2]
        np.testing.assert_array_equal(grad.dense(), dense[name])
        assert grad.values.dtype == dtype


@pytest.mark.parametrize("flag", ["row_sparse", "straight_through"])
def test_flags_must_be_flags(flag):
    layer = FastFeedForward(5, 3, 2, rng=0)
    y, cache = layer.forward(np.zeros((2, 5)))
    with pytest.raises(ArgumentTypeError, match=f"'{flag}'"):
        layer.backward(y, cache, **{flag: "yes"})


@given(problem=path_problems(dtypes=(np.float64,)), row_sparse=st.booleans())
def test_straight_through_adds_the_gradients_of_choices(problem, row_sparse, through):
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


def test_straight_through_is_the_derivative_of_a_choice_made_smooth(through):
    """Of the root's: its two subtrees mixed by the normal distribution, moved to where it is hard.

    The rows' logits there are far from 0 in units of the step, and the mixture is linear in the
    probability, so that its slope is that of the difference.
    """
    layer = FastFeedForward(5, 3, 2, rng=0, dtype=np.float64)
    rng = np.random.default_rng(1)
    x, dy = rng.standard_normal((6, 5)), rng.standard_normal((6, 3))

    def subtree(child):
        """What rows get below the root when all are sent to one side."""
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


def test_straight_through_of_one_node_is_nothing(through):
    layer = FastFeedForward(5, 3, 0, 2, rng=0)
    with through():
        y, cache = layer.forward(np.ones((4, 5)))
        _, constant = layer.backward(y, cache)
        _, grads = layer.backward(y, cache, straight_through=True)
    for name, grad in grads.items():
        np.testing.assert_array_equal(grad, constant[name])


def test_row_sparse_gradients_take_memory_for_visited_nodes_alone():
    layer = FastFeedForward(32, 48, 11, rng=0)
    y, cache = layer.forward(np.ones((3, 32)))
    layer.backward(y, cache, row_sparse=True)  # what is kept from the first call does not count
    tracemalloc.start()
    layer.backward(y, cache, row_sparse=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    places = 8 * layer.config.neurons
    assert peak < places + 50_000 < layer.nbytes / 5
