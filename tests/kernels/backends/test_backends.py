"""What every backend module must do; ``pytest --kernel MODULE`` runs it on yours.

A dot product of n terms in any order is off by at most ``n * eps * sum |w x|``; a route is compared
with the oracle's only where every logit on it is further than that from 0. Integer problems are
exact, so there every route and every tie is compared.
"""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fffcpu import kernels
from fffcpu.errors import ArgumentTypeError
from fffcpu.kernels import jit
from fffcpu.kernels.backends import vectorized
from fffcpu.kernels.weights import LeafWeights
from tests.support import reference
from tests.support.strategies import (
    PathProblem,
    leaf_problems,
    narrow_leaf_problems,
    narrow_path_problems,
    numbers,
    path_problems,
)


def logit_error(problem, weights, bias):
    """Largest possible error of any logit of these rows."""
    eps = np.finfo(problem.x.dtype).eps
    if problem.kind == "integer" or not problem.x.size or not weights.size:
        return 0.0
    products = np.abs(problem.x) @ np.abs(weights).reshape(-1, weights.shape[-1]).T
    return float((weights.shape[-1] + 2) * eps * (products.max() + np.abs(bias).max(initial=0)))


def close(actual, expected, magnitude, terms):
    """Assert agreement within the rounding of that many additions of terms that sum to magnitude.

    Measured against the terms and not the result, which may be small because they cancel.
    """
    bound = 2 * (terms + 8) * np.finfo(actual.dtype).eps * magnitude
    np.testing.assert_allclose(actual, expected, rtol=0, atol=bound)


def largest(*arrays):
    """Product of the largest absolute values."""
    return math.prod(np.abs(array).max(initial=0) for array in arrays)


def chain(problem):
    """Most roundings between an input and an output: a logit's terms, then the visited nodes."""
    trees, count, width = problem.weights_in.shape
    return width + trees * count.bit_length()


def run_logits(backend, p):
    shape = (len(p.x), len(p.weights_in), p.weights_in.shape[1].bit_length())
    logits, nodes = np.full(shape, 7, p.x.dtype), np.full(shape, 7, np.int32)
    backend.path_logits(logits, nodes, p.x, p.weights_in, p.bias_in, p.scale_in)
    return logits, nodes


def run_infer(backend, p, x=None):
    x = p.x if x is None else x
    y = np.full((len(x), p.weights_out.shape[2]), 7, x.dtype)
    weights = (p.weights_in, p.bias_in, p.weights_out)
    backend.path_infer(y, x, *weights, p.scale_in, p.scale_out, p.code)
    return y


def run_forward(backend, p):
    y, (logits, nodes) = np.full(p.dy.shape, 7, p.x.dtype), run_logits(vectorized, p)
    logits[...], nodes[...] = 7, 7
    backend.path_forward(y, logits, nodes, p.x, p.weights_in, p.bias_in, p.weights_out, p.code)
    return y, logits, nodes


def no_choices(logits):
    """Gradients of logits by choices, where routes are held constant."""
    return np.zeros((*logits.shape[:2], 0), logits.dtype)


def run_choices(backend, p, logits, nodes):
    d_logits = np.full_like(logits, 7)
    weights = (p.weights_in, p.bias_in, p.weights_out)
    backend.path_choices(d_logits, p.dy, p.x, logits, nodes, *weights, p.code)
    return d_logits


def run_backward(backend, p, logits, nodes, d_logits=None):
    d_logits = no_choices(logits) if d_logits is None else d_logits
    dx = np.full_like(p.x, 7)
    grads = {
        "weights_in": np.zeros_like(p.weights_in),
        "bias_in": np.zeros(p.weights_in.shape[:2], p.x.dtype),
        "weights_out": np.zeros_like(p.weights_out),
    }
    trees, count, _ = p.weights_in.shape
    rows = [grad.reshape(trees * count, *grad.shape[2:]) for grad in grads.values()]
    places = np.arange(trees * count)
    paths = (p.dy, p.x, logits, nodes, d_logits)
    backend.path_backward(dx, *rows, *paths, places, p.weights_in, p.weights_out, p.code)
    return dx, grads


def run_backward_rows(backend, p, logits, nodes, places, rows):
    """Gradients of the visited nodes alone, in the rows that ``places`` names."""
    dx = np.full_like(p.x, 7)
    grads = [
        np.zeros((rows, p.x.shape[1]), p.x.dtype),
        np.zeros(rows, p.x.dtype),
        np.zeros((rows, p.dy.shape[1]), p.x.dtype),
    ]
    paths = (p.dy, p.x, logits, nodes, no_choices(logits))
    backend.path_backward(dx, *grads, *paths, places, p.weights_in, p.weights_out, p.code)
    return dx, grads


def run_leaf(backend, p, x=None):
    x = p.x if x is None else x
    leaves, y = np.full(len(x), 7, np.int32), np.full((len(x), p.dy.shape[1]), 7, x.dtype)
    backend.leaf_route(leaves, x, p.params["gate_weights"], p.params["gate_bias"])
    backend.leaf_infer(y, x, *LeafWeights.of(p.params), p.code)
    return leaves, y


@pytest.mark.parametrize("name", kernels.FUNCTIONS)
def test_signature_is_that_of_the_plain_backend(backend, name):
    expected = inspect.signature(getattr(vectorized, name))
    assert list(inspect.signature(getattr(backend, name)).parameters) == list(expected.parameters)


@given(problem=path_problems())
def test_logits_and_routes_agree_with_the_oracle(backend, problem):
    logits, nodes = run_logits(backend, problem)
    expected = reference.path(
        problem.x, problem.weights_in, problem.bias_in, problem.weights_out, problem.activation
    )
    error = logit_error(problem, problem.weights_in, problem.bias_in)
    sure = expected.margin > error if error else np.ones(len(problem.x), bool)
    np.testing.assert_array_equal(nodes[sure], expected.nodes[sure])
    own = np.take_along_axis(expected.logits, nodes.astype(int), axis=2)
    assert logits.dtype == problem.x.dtype
    np.testing.assert_allclose(logits, own, rtol=0, atol=error)


@given(problem=path_problems())
def test_every_route_is_a_path_from_the_root(backend, problem):
    logits, nodes = run_logits(backend, problem)
    assert nodes.dtype == np.int32
    assert (nodes[:, :, 0] == 0).all()
    np.testing.assert_array_equal(
        nodes[:, :, 1:], 2 * nodes[:, :, :-1] + 1 + (logits[:, :, :-1] > 0)
    )


@given(problem=path_problems())
def test_output_agrees_with_the_oracle(backend, problem):
    y = run_infer(backend, problem)
    expected = reference.path(
        problem.x, problem.weights_in, problem.bias_in, problem.weights_out, problem.activation
    )
    error = logit_error(problem, problem.weights_in, problem.bias_in)
    sure = expected.margin > error if error else np.ones(len(problem.x), bool)
    visits = expected.nodes[0].size if len(problem.x) else 0
    magnitude = visits * largest(expected.logits, problem.weights_out)
    assert y.dtype == problem.x.dtype
    close(y[sure], expected.y[sure], magnitude, chain(problem))


@given(problem=path_problems())
def test_forward_gives_the_bits_of_inference_and_of_the_logits(backend, problem):
    y, logits, nodes = run_forward(backend, problem)
    np.testing.assert_array_equal(y, run_infer(backend, problem))
    for kept, alone in zip((logits, nodes), run_logits(backend, problem), strict=True):
        np.testing.assert_array_equal(kept, alone)


@given(problem=path_problems())
def test_gradients_agree_with_the_oracle(backend, problem):
    check_gradients(backend, problem)


def check_gradients(backend, problem, drop=False):
    """Compare with the oracle; rows whose route is not sure spoil an example, or are dropped."""
    expected = reference.path(
        problem.x, problem.weights_in, problem.bias_in, problem.weights_out, problem.activation
    )
    error = logit_error(problem, problem.weights_in, problem.bias_in)
    sure = expected.margin > error if error else np.ones(len(problem.x), bool)
    if problem.activation == "relu" and error:  # its derivative jumps at 0, at the last level too
        own = np.take_along_axis(expected.logits, expected.nodes, axis=2)
        sure &= (np.abs(own) > error).all(axis=(1, 2))
    if drop:
        assert sure.mean() > 0.9
        problem = problem._replace(x=problem.x[sure].copy(), dy=problem.dy[sure].copy())
    else:
        assume(sure.all())
    _, logits, nodes = run_forward(backend, problem)
    dx, grads = run_backward(backend, problem, logits, nodes)
    bias = problem.bias_in
    expected_dx, expected_grads = reference.path_gradients(
        problem.x, problem.weights_in, bias, problem.weights_out, problem.dy, problem.activation
    )
    terms = chain(problem) + problem.dy.shape[1] + len(problem.x)
    rows, visits = len(problem.x), nodes.size // max(1, len(problem.x))
    d_logit = 1.13 * problem.dy.shape[1] * largest(problem.dy, problem.weights_out)
    close(dx, expected_dx, visits * d_logit * largest(problem.weights_in), terms)
    magnitudes = {
        "weights_in": rows * d_logit * largest(problem.x),
        "bias_in": rows * d_logit,
        "weights_out": rows * largest(logits, problem.dy),
    }
    for name, expected_grad in expected_grads.items():
        close(grads[name], expected_grad, magnitudes[name], terms)


@given(problem=path_problems())
def test_gradients_of_choices_agree_with_the_oracle(backend, problem):
    expected, margin = reference.choice_gradients(
        problem.x, problem.weights_in, problem.bias_in, problem.weights_out, problem.dy,
        problem.activation,
    )  # fmt: skip
    error = logit_error(problem, problem.weights_in, problem.bias_in)
    sure = margin > error if error else np.ones(len(problem.x), bool)
    _, logits, nodes = run_forward(backend, problem)
    d_logits = run_choices(backend, problem, logits, nodes)
    logit = problem.x.shape[1] * largest(problem.x, problem.weights_in)
    logit += largest(problem.bias_in)
    levels = nodes.shape[2]
    magnitude = 2 * levels * problem.dy.shape[1] * logit
    magnitude *= largest(problem.dy, problem.weights_out)
    terms = chain(problem) + problem.dy.shape[1]
    close(d_logits[sure], expected[sure], magnitude, terms)
    assert not d_logits[:, :, -1].any()


@given(problem=path_problems(kinds=("normal",)), seed=st.integers(0, 99))
def test_given_gradients_of_logits_are_added(backend, problem, seed):
    """What they lead to by themselves is the difference that they make."""
    _, logits, nodes = run_forward(backend, problem)
    d_logits = numbers(np.random.default_rng(seed), logits.shape, "normal", logits.dtype)
    dx, grads = run_backward(backend, problem, logits, nodes, d_logits)
    without_dx, without = run_backward(backend, problem, logits, nodes)
    expected_dx, expected = reference.logit_gradients(
        problem.x, problem.weights_in, nodes, d_logits
    )
    rows, visits = len(problem.x), nodes.size // max(1, len(problem.x))
    d_logit = 1.13 * problem.dy.shape[1] * largest(problem.dy, problem.weights_out)
    d_logit += largest(d_logits)
    terms = visits + rows + problem.dy.shape[1]
    close(dx - without_dx, expected_dx, 2 * visits * d_logit * largest(problem.weights_in), terms)
    for name, magnitude in {"weights_in": largest(problem.x), "bias_in": 1.0}.items():
        difference = grads[name] - without[name]
        close(difference, expected[name], 2 * rows * d_logit * magnitude, terms)
    np.testing.assert_array_equal(grads["weights_out"], without["weights_out"])


@given(problem=path_problems())
def test_nodes_without_a_visit_get_no_gradient(backend, problem):
    _, logits, nodes = run_forward(backend, problem)
    _, grads = run_backward(backend, problem, logits, nodes)
    for tree in range(len(problem.weights_in)):
        missed = np.setdiff1d(np.arange(problem.weights_in.shape[1]), nodes[:, tree])
        for grad in grads.values():
            assert not grad[tree, missed].any()


@given(problem=leaf_problems())
def test_leaves_agree_with_the_oracle(backend, problem):
    leaves, y = run_leaf(backend, problem)
    expected = reference.leaf(problem.x, problem.params, problem.activation)
    error = logit_error(problem, problem.params["gate_weights"], problem.params["gate_bias"])
    sure = expected.margin > error if error else np.ones(len(problem.x), bool)
    np.testing.assert_array_equal(leaves[sure], expected.leaves[sure])
    hidden = problem.params["leaf_bias_in"].shape[1]
    width, params = problem.x.shape[1], problem.params
    logit = width * largest(problem.x, params["leaf_weights_in"]) + largest(params["leaf_bias_in"])
    magnitude = hidden * logit * largest(params["leaf_weights_out"]) + largest(
        params["leaf_bias_out"]
    )
    assert y.dtype == problem.x.dtype
    close(y[sure], expected.y[sure], magnitude, width + hidden)


@given(problem=path_problems(max_rows=8), data=st.data())
def test_a_row_has_the_same_bits_in_any_batch(backend, problem, data):
    assume(len(problem.x))
    picks = data.draw(st.lists(st.integers(0, len(problem.x) - 1), max_size=20))
    x = problem.x[picks]
    y, (logits, nodes) = run_infer(backend, problem), run_logits(backend, problem)
    batch = problem._replace(x=x)
    batch_logits, batch_nodes = run_logits(backend, batch)
    np.testing.assert_array_equal(run_infer(backend, batch), y[picks])
    np.testing.assert_array_equal(batch_logits, logits[picks])
    np.testing.assert_array_equal(batch_nodes, nodes[picks])


@given(problem=leaf_problems(max_rows=8), data=st.data())
def test_a_row_has_the_same_bits_in_any_batch_of_the_leaf_layer(backend, problem, data):
    assume(len(problem.x))
    picks = data.draw(st.lists(st.integers(0, len(problem.x) - 1), max_size=20))
    for batch, alone in zip(
        run_leaf(backend, problem, problem.x[picks]), run_leaf(backend, problem), strict=True
    ):
        np.testing.assert_array_equal(batch, alone[picks])


@pytest.mark.slow
@given(seed=st.integers(0, 1000), dtype=st.sampled_from([np.float32, np.float64]))
def test_a_row_has_the_same_bits_in_a_batch_large_enough_for_all_threads(backend, seed, dtype):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((701, 96)).astype(dtype)
    weights_in, weights_out = rng.standard_normal((2, 2, 31, 96)).astype(dtype)
    bias_in = rng.standard_normal((2, 31)).astype(dtype)
    many, alone = np.empty((701, 96), dtype), np.empty((1, 96), dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jit, "MIN_PARALLEL_WORK", 1)
        backend.path_infer(many, x, weights_in, bias_in, weights_out, None, None, 0)
    for row in [0, 350, 351, 700, *rng.integers(0, 701, 20)]:
        weights = (weights_in, bias_in, weights_out, None, None)
        backend.path_infer(alone, x[row : row + 1], *weights, 0)
        np.testing.assert_array_equal(alone[0], many[row])


@given(problem=path_problems(), data=st.data())
def test_gradients_of_visited_nodes_go_where_they_are_told(backend, problem, data):
    logits, nodes = run_logits(vectorized, problem)
    trees, count, _ = problem.weights_in.shape
    visited = np.unique(nodes + np.arange(trees)[:, np.newaxis] * count)
    order = np.array(data.draw(st.permutations(range(len(visited)))), int)
    places = np.full(trees * count, 1 << 40)  # of nodes without a visit nothing is read
    places[visited] = order
    dx, grads = run_backward(backend, problem, logits, nodes)
    again, rows = run_backward_rows(backend, problem, logits, nodes, places, len(visited))
    np.testing.assert_array_equal(again, dx)
    for dense, found in zip(grads.values(), rows, strict=True):
        flat = dense.reshape(trees * count, *dense.shape[2:])
        np.testing.assert_array_equal(found[order], flat[visited])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("rows", "width_in", "width_out", "trees"),
    [(300, 300, 260, 2), (129, 129, 1, 1), (257, 1, 257, 1), (700, 64, 64, 1)],
)
def test_gradients_of_many_rows_and_wide_layers_agree_with_the_oracle(
    backend, rows, width_in, width_out, trees, dtype
):
    rng = np.random.default_rng(0)
    problem = PathProblem(
        numbers(rng, (rows, width_in), "normal", dtype),
        numbers(rng, (trees, 15, width_in), "normal", dtype),
        numbers(rng, (trees, 15), "normal", dtype),
        numbers(rng, (trees, 15, width_out), "normal", dtype),
        numbers(rng, (rows, width_out), "normal", dtype),
        "gelu",
        "normal",
    )
    check_gradients(backend, problem, drop=True)


@given(problem=path_problems(max_rows=12), leaf=leaf_problems(max_rows=12))
def test_the_plain_backend_does_not_depend_on_its_blocks(problem, leaf):
    whole = [run_infer(vectorized, problem), *run_leaf(vectorized, leaf)]
    paths = run_logits(vectorized, problem)
    gradients = run_backward(vectorized, problem, *paths)
    choices = run_choices(vectorized, problem, *paths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectorized, "BLOCK_ELEMENTS", 100)
        parts = [run_infer(vectorized, problem), *run_leaf(vectorized, leaf)]
        again = run_backward(vectorized, problem, *run_logits(vectorized, problem))
        choices_again = run_choices(vectorized, problem, *paths)
    for one, other in zip(
        [*whole, choices, gradients[0], *gradients[1].values()],
        [*parts, choices_again, again[0], *again[1].values()],
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


BAD = (np.nan, np.inf, -np.inf)


@given(problem=path_problems(kinds=("normal",)), data=st.data())
def test_a_row_that_is_not_finite_spoils_only_itself(backend, problem, data):
    assume(len(problem.x))
    row = data.draw(st.integers(0, len(problem.x) - 1))
    x = problem.x.copy()
    x[row, data.draw(st.integers(0, x.shape[1] - 1))] = data.draw(st.sampled_from(BAD))
    clean, y = run_infer(backend, problem), run_infer(backend, problem, x)
    logits, nodes = run_logits(backend, problem._replace(x=x))
    others = np.arange(len(x)) != row
    np.testing.assert_array_equal(y[others], clean[others])
    # Weights are never exactly 0 here, so a bad number reaches the first logit already.
    assert not np.isfinite(logits[row, :, 0]).any()
    assert np.isnan(y[row]).all()
    assert (nodes >= 0).all()
    assert (nodes < problem.weights_in.shape[1]).all()
    if np.isnan(x[row]).any() and nodes.shape[2] > 1:
        assert (nodes[row, :, 1] == 1).all()


@given(problem=path_problems(kinds=("normal",)), data=st.data())
def test_a_row_that_is_not_finite_spoils_only_gradients_of_its_own_nodes(backend, problem, data):
    assume(len(problem.x))
    row = data.draw(st.integers(0, len(problem.x) - 1))
    x = problem.x.copy()
    x[row] = data.draw(st.sampled_from(BAD))
    bad = problem._replace(x=x)
    _, logits, nodes = run_forward(backend, bad)
    d_logits = run_choices(backend, bad, logits, nodes)
    dx, grads = run_backward(backend, bad, logits, nodes, d_logits)
    assert np.isnan(dx[row]).all()
    others = np.arange(len(x)) != row
    assert np.isfinite(dx[others]).all()
    for tree in range(len(problem.weights_in)):
        missed = np.setdiff1d(np.arange(problem.weights_in.shape[1]), nodes[row, tree])
        for grad in grads.values():
            assert np.isnan(grad[tree, nodes[row, tree]]).all()
            assert np.isfinite(grad[tree, missed]).all()


@pytest.mark.parametrize("bad", [np.inf, np.nan, "largest"])
def test_what_is_not_finite_aside_of_a_path_is_worth_nothing(backend, bad):
    """The row goes left; only the right child's weights are bad."""
    rng = np.random.default_rng(0)
    weights_in, weights_out = rng.standard_normal((2, 1, 3, 5)).astype(np.float32)
    x, dy = np.ones((1, 5), np.float32), np.ones((1, 5), np.float32)
    weights_in[0, 0] = -1
    weights_in[0, 2] = np.finfo(np.float32).max if bad == "largest" else bad
    bias = np.zeros((1, 3), np.float32)
    problem = PathProblem(x, weights_in, bias, weights_out, dy, "gelu", "normal")
    _, logits, nodes = run_forward(backend, problem)
    assert nodes.tolist() == [[[0, 1]]]
    assert run_choices(backend, problem, logits, nodes).tolist() == [[[0, 0]]]


@given(problem=path_problems(kinds=("normal",)))
def test_a_logit_that_overflows_makes_the_row_nan(backend, problem):
    largest = np.finfo(problem.x.dtype).max
    big = problem._replace(weights_in=np.full_like(problem.weights_in, largest))
    x = np.full_like(problem.x, 4)
    assert np.isnan(run_infer(backend, big, x)).all()
    assert np.isnan(run_infer(backend, big, -x)).all()


@given(problem=leaf_problems(kinds=("normal",)), data=st.data())
def test_a_row_that_is_not_finite_spoils_only_itself_in_the_leaf_layer(backend, problem, data):
    assume(len(problem.x))
    row = data.draw(st.integers(0, len(problem.x) - 1))
    x = problem.x.copy()
    bad = data.draw(st.sampled_from(BAD))
    x[row, data.draw(st.integers(0, x.shape[1] - 1))] = bad
    _, clean = run_leaf(backend, problem)
    leaves, y = run_leaf(backend, problem, x)
    others = np.arange(len(x)) != row
    np.testing.assert_array_equal(y[others], clean[others])
    assert np.isnan(y[row]).all()
    assert (leaves >= 0).all()
    assert (leaves < len(problem.params["leaf_bias_in"])).all()
    if np.isnan(bad):
        assert leaves[row] == 0


@given(path=path_problems(), leaf=leaf_problems())
def test_inputs_may_be_read_only_and_stay_as_they_are(backend, path, leaf):
    inputs = [*path[:5], leaf.x, leaf.dy]
    before = [array.copy() for array in inputs]
    path.x.flags.writeable = path.dy.flags.writeable = leaf.x.flags.writeable = False
    _, logits, nodes = run_forward(backend, path)
    run_choices(backend, path, logits, nodes)
    run_backward(backend, path, logits, nodes)
    run_infer(backend, path)
    run_leaf(backend, leaf)
    for array, copy in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(array, copy)


# --- Narrow weights -------------------------------------------------------------------------------


def run_narrow(backend, run, narrow, *x):
    """Run, unless the backend is one that refuses narrow weights."""
    try:
        return run(backend, narrow, *x)
    except ArgumentTypeError as refusal:
        pytest.skip(f"the backend takes no narrow weights: {refusal}")


@given(problems=narrow_path_problems())
def test_narrow_weights_agree_with_the_oracle(backend, problems):
    narrow, wide = problems
    logits, nodes = run_narrow(backend, run_logits, narrow)
    y = run_narrow(backend, run_infer, narrow)
    expected = reference.path(
        wide.x, wide.weights_in, wide.bias_in, wide.weights_out, wide.activation
    )
    error = logit_error(wide, wide.weights_in, wide.bias_in)
    sure = expected.margin > error if error else np.ones(len(wide.x), bool)
    np.testing.assert_array_equal(nodes[sure], expected.nodes[sure])
    own = np.take_along_axis(expected.logits, nodes.astype(int), axis=2)
    np.testing.assert_allclose(logits, own, rtol=0, atol=error)
    visits = expected.nodes[0].size if len(wide.x) else 0
    magnitude = visits * largest(expected.logits, wide.weights_out)
    close(y[sure], expected.y[sure], magnitude, chain(wide))


@given(problems=narrow_leaf_problems())
def test_narrow_leaves_agree_with_the_oracle(backend, problems):
    narrow, wide = problems
    leaves, y = run_narrow(backend, run_leaf, narrow)
    expected = reference.leaf(wide.x, wide.params, wide.activation)
    error = logit_error(wide, wide.params["gate_weights"], wide.params["gate_bias"])
    sure = expected.margin > error if error else np.ones(len(wide.x), bool)
    np.testing.assert_array_equal(leaves[sure], expected.leaves[sure])
    params, (width, hidden) = wide.params, wide.params["leaf_weights_in"].shape[1:]
    logit = width * largest(wide.x, params["leaf_weights_in"]) + largest(params["leaf_bias_in"])
    magnitude = hidden * logit * largest(params["leaf_weights_out"])
    magnitude += largest(params["leaf_bias_out"])
    close(y[sure], expected.y[sure], magnitude, width + hidden)


@given(path=narrow_path_problems(weights="bfloat16"), leaf=narrow_leaf_problems(weights="bfloat16"))
def test_bfloat16_weights_give_the_bits_of_float32_ones(backend, path, leaf):
    narrow, wide = path
    np.testing.assert_array_equal(run_narrow(backend, run_infer, narrow), run_infer(backend, wide))
    for run, (narrow, wide) in ((run_logits, path), (run_leaf, leaf)):
        for one, other in zip(run_narrow(backend, run, narrow), run(backend, wide), strict=True):
            np.testing.assert_array_equal(one, other)


@given(path=narrow_path_problems(), leaf=narrow_leaf_problems(), data=st.data())
def test_a_row_has_the_same_bits_in_any_batch_with_narrow_weights(backend, path, leaf, data):
    for run, (narrow, _) in ((run_infer, path), (run_leaf, leaf)):
        picks = data.draw(st.lists(st.sampled_from(range(len(narrow.x) or 1)), max_size=20))
        picks = picks if len(narrow.x) else []
        whole = run_narrow(backend, run, narrow)
        batch = run_narrow(backend, run, narrow, narrow.x[picks])
        whole, batch = (part if isinstance(part, tuple) else (part,) for part in (whole, batch))
        for one, other in zip(batch, whole, strict=True):
            np.testing.assert_array_equal(one, other[picks])
