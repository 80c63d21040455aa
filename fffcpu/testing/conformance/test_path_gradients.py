"""Gradients of FastFeedForward: against the oracle, of visited nodes alone, and of bad rows."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import DTypeLike

from fffcpu.kernels.backends import vectorized
from fffcpu.testing import oracle
from fffcpu.testing.conformance.calls import (
    run_backward,
    run_backward_rows,
    run_choices,
    run_forward,
    run_logits,
)
from fffcpu.testing.conformance.tolerances import chain, close, largest, logit_error
from fffcpu.testing.strategies import PathProblem, numbers, path_problems

BAD = (np.nan, np.inf, -np.inf)


@given(problem=path_problems())
def test_gradients_agree_with_the_oracle(backend: ModuleType, problem: PathProblem) -> None:
    check_gradients(backend, problem)


def check_gradients(backend: ModuleType, problem: PathProblem, drop: bool = False) -> None:
    """Compare with the oracle. Rows with an unsure route reject an example, or are dropped."""
    expected = oracle.path(
        problem.x, problem.weights_in, problem.bias, problem.weights_out, problem.activation
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
    expected_dx, expected_grads = oracle.path_gradients(
        problem.x,
        problem.weights_in,
        problem.bias_in,
        problem.weights_out,
        problem.dy,
        problem.activation,
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
def test_gradients_of_choices_agree_with_the_oracle(
    backend: ModuleType, problem: PathProblem
) -> None:
    expected, margin = oracle.choice_gradients(
        problem.x, problem.weights_in, problem.bias, problem.weights_out, problem.dy,
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
    magnitude *= problem.sides
    terms = chain(problem) + problem.dy.shape[1]
    close(d_logits[sure], expected[sure], magnitude, terms)
    if problem.sides == 1:
        assert not d_logits[:, :, -1].any()


@given(problem=path_problems(kinds=("normal",)), seed=st.integers(0, 99))
def test_given_gradients_of_logits_are_added(
    backend: ModuleType, problem: PathProblem, seed: int
) -> None:
    """Their gradients alone equal the difference that they make."""
    _, logits, nodes = run_forward(backend, problem)
    d_logits = numbers(np.random.default_rng(seed), logits.shape, "normal", logits.dtype)
    dx, grads = run_backward(backend, problem, logits, nodes, d_logits)
    without_dx, without = run_backward(backend, problem, logits, nodes)
    expected_dx, expected = oracle.logit_gradients(problem.x, problem.weights_in, nodes, d_logits)
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
def test_nodes_and_sides_without_a_visit_get_no_gradient(
    backend: ModuleType, problem: PathProblem
) -> None:
    _, logits, nodes = run_forward(backend, problem)
    _, grads = run_backward(backend, problem, logits, nodes)
    for tree in range(len(problem.weights_in)):
        missed = np.setdiff1d(np.arange(problem.weights_in.shape[1]), nodes[:, tree])
        for grad in grads.values():
            assert not grad[tree, missed].any()
    if problem.sides == 2:
        taken = np.zeros(problem.weights_out.shape[:3], bool)
        trees = np.arange(len(problem.weights_in))[:, np.newaxis]
        taken[trees, nodes, (logits > 0).astype(int)] = True
        assert not grads["weights_out"][~taken].any()


@given(problem=path_problems(), data=st.data())
def test_gradients_of_visited_nodes_go_to_their_places(
    backend: ModuleType, problem: PathProblem, data: st.DataObject
) -> None:
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
@pytest.mark.parametrize("sides", [(), (2,)], ids=["one-sided", "two-sided"])
@pytest.mark.parametrize(
    ("rows", "width_in", "width_out", "trees"),
    [(300, 300, 260, 2), (129, 129, 1, 1), (257, 1, 257, 1), (700, 64, 64, 1)],
)
def test_gradients_of_many_rows_and_wide_layers_agree_with_the_oracle(
    backend: ModuleType,
    rows: int,
    width_in: int,
    width_out: int,
    trees: int,
    sides: tuple[int, ...],
    dtype: DTypeLike,
) -> None:
    rng = np.random.default_rng(0)
    problem = PathProblem(
        numbers(rng, (rows, width_in), "normal", dtype),
        numbers(rng, (trees, 15, width_in), "normal", dtype),
        numbers(rng, (trees, 15), "normal", dtype),
        numbers(rng, (trees, 15, *sides, width_out), "normal", dtype),
        numbers(rng, (rows, width_out), "normal", dtype),
        "gelu",
        "normal",
    )
    check_gradients(backend, problem, drop=True)


@given(problem=path_problems(kinds=("normal",)), data=st.data())
def test_a_row_that_is_not_finite_spoils_only_gradients_of_its_own_nodes(
    backend: ModuleType, problem: PathProblem, data: st.DataObject
) -> None:
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
    sides = (logits[row] > 0).astype(int)
    for tree in range(len(problem.weights_in)):
        missed = np.setdiff1d(np.arange(problem.weights_in.shape[1]), nodes[row, tree])
        for name, grad in grads.items():
            visited = grad[tree, nodes[row, tree]]
            if problem.sides == 2 and name == "weights_out":
                visited = visited[np.arange(len(visited)), sides[tree]]
            assert np.isnan(visited).all()
            assert np.isfinite(grad[tree, missed]).all()


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_output_that_is_not_finite_aside_of_a_path_is_worth_nothing(
    backend: ModuleType, bad: float
) -> None:
    """The row goes left; only the root's output weights for the right are bad."""
    rng = np.random.default_rng(0)
    weights_in = -np.abs(rng.standard_normal((1, 3, 5))).astype(np.float32)
    weights_out = rng.standard_normal((1, 3, 2, 5)).astype(np.float32)
    weights_out[0, 0, 1] = bad
    x, dy = np.ones((1, 5), np.float32), np.ones((1, 5), np.float32)
    bias = np.zeros((1, 3), np.float32)
    problem = PathProblem(x, weights_in, bias, weights_out, dy, "gelu", "normal")
    _, logits, nodes = run_forward(backend, problem)
    d_logits = run_choices(backend, problem, logits, nodes)
    assert d_logits[0, 0, 0] == 0
    assert np.isfinite(d_logits[0, 0, 1])
    assert d_logits[0, 0, 1] != 0


@pytest.mark.parametrize("bad", [np.inf, np.nan, "largest"])
def test_what_is_not_finite_aside_of_a_path_is_worth_nothing(backend: ModuleType, bad: Any) -> None:
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
