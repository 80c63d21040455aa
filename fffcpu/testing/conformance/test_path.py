"""Routes, logits and outputs of FastFeedForward, and that a row has the same bits in any batch.

A dot product of n terms in any order is off by at most ``n * eps * sum |w x|``. A route is compared
with the oracle's only where every logit on it is further than that from 0. Integer problems are
exact, so every route and every tie is compared.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import DTypeLike

from fffcpu.kernels import jit
from fffcpu.testing import oracle
from fffcpu.testing.conformance.calls import run_forward, run_infer, run_logits
from fffcpu.testing.conformance.tolerances import chain, close, largest, logit_error, logit_terms
from fffcpu.testing.strategies import DTYPES, PathProblem, numbers, path_problems

BAD = (np.nan, np.inf, -np.inf)


@given(problem=path_problems())
def test_logits_and_routes_agree_with_the_oracle(backend: ModuleType, problem: PathProblem) -> None:
    logits, nodes = run_logits(backend, problem)
    expected = oracle.path(
        problem.x, problem.weights_in, problem.bias, problem.weights_out, problem.activation
    )
    error = logit_error(problem, problem.weights_in, problem.bias_in)
    sure = expected.margin > error if error else np.ones(len(problem.x), bool)
    np.testing.assert_array_equal(nodes[sure], expected.nodes[sure])
    own = np.take_along_axis(expected.logits, nodes.astype(int), axis=2)
    assert logits.dtype == problem.x.dtype
    np.testing.assert_allclose(logits, own, rtol=0, atol=error)


@given(problem=path_problems())
def test_every_route_is_a_path_from_the_root(backend: ModuleType, problem: PathProblem) -> None:
    logits, nodes = run_logits(backend, problem)
    assert nodes.dtype == np.int32
    assert (nodes[:, :, 0] == 0).all()
    np.testing.assert_array_equal(
        nodes[:, :, 1:], 2 * nodes[:, :, :-1] + 1 + (logits[:, :, :-1] > 0)
    )


@given(problem=path_problems())
def test_output_agrees_with_the_oracle(backend: ModuleType, problem: PathProblem) -> None:
    y = run_infer(backend, problem)
    expected = oracle.path(
        problem.x, problem.weights_in, problem.bias, problem.weights_out, problem.activation
    )
    error = logit_error(problem, problem.weights_in, problem.bias_in)
    sure = expected.margin > error if error else np.ones(len(problem.x), bool)
    visits = expected.nodes[0].size if len(problem.x) else 0
    logit = logit_terms(problem, problem.weights_in, problem.bias_in)
    magnitude = visits * logit * largest(problem.weights_out)
    assert y.dtype == problem.x.dtype
    close(y[sure], expected.y[sure], magnitude, chain(problem))


@given(problem=path_problems())
def test_forward_gives_the_bits_of_inference_and_of_the_logits(
    backend: ModuleType, problem: PathProblem
) -> None:
    y, logits, nodes = run_forward(backend, problem)
    np.testing.assert_array_equal(y, run_infer(backend, problem))
    for kept, alone in zip((logits, nodes), run_logits(backend, problem), strict=True):
        np.testing.assert_array_equal(kept, alone)


@given(problem=path_problems(max_rows=8), data=st.data())
def test_a_row_has_the_same_bits_in_any_batch(
    backend: ModuleType, problem: PathProblem, data: st.DataObject
) -> None:
    assume(len(problem.x))
    picks = data.draw(st.lists(st.integers(0, len(problem.x) - 1), max_size=20))
    x = problem.x[picks]
    y, (logits, nodes) = run_infer(backend, problem), run_logits(backend, problem)
    batch = problem._replace(x=x)
    batch_logits, batch_nodes = run_logits(backend, batch)
    np.testing.assert_array_equal(run_infer(backend, batch), y[picks])
    np.testing.assert_array_equal(batch_logits, logits[picks])
    np.testing.assert_array_equal(batch_nodes, nodes[picks])


@pytest.mark.slow
@given(
    seed=st.integers(0, 1000),
    sides=st.sampled_from([1, 2]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_a_row_has_the_same_bits_in_a_batch_large_enough_for_all_threads(
    backend: ModuleType, seed: int, sides: int, dtype: DTypeLike
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((701, 96)).astype(dtype)
    weights_in = rng.standard_normal((2, 31, 96)).astype(dtype)
    weights_out = rng.standard_normal((2, 31, sides, 96)).astype(dtype)
    bias_in = rng.standard_normal((2, 31)).astype(dtype)
    many, alone = np.empty((701, 96), dtype), np.empty((1, 96), dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jit, "MIN_PARALLEL_WORK", 1)
        backend.path_infer(many, x, weights_in, bias_in, weights_out, None, None, 0)
    for row in [0, 350, 351, 700, *rng.integers(0, 701, 20)]:
        weights = (weights_in, bias_in, weights_out, None, None)
        backend.path_infer(alone, x[row : row + 1], *weights, 0)
        np.testing.assert_array_equal(alone[0], many[row])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sides", [(), (2,)], ids=["one-sided", "two-sided"])
def test_every_row_of_a_large_batch_has_the_bits_it_has_in_a_small_one(
    backend: ModuleType, sides: tuple[int, ...], dtype: DTypeLike
) -> None:
    rng = np.random.default_rng(0)
    shapes = ((701, 70), (2, 63, 70), (2, 63), (2, 63, *sides, 33), (701, 33))
    x, weights_in, bias_in, weights_out, dy = (
        numbers(rng, shape, "normal", dtype) for shape in shapes
    )
    large = PathProblem(x, weights_in, bias_in, weights_out, dy, "gelu", "normal")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jit, "MIN_PARALLEL_WORK", 1)
        whole = [
            run_infer(backend, large),
            *run_forward(backend, large),
            *run_logits(backend, large),
        ]
    for start in range(0, 701, 10):
        rows = slice(start, start + 10)
        small = large._replace(x=large.x[rows], dy=large.dy[rows])
        alone = [run_infer(backend, small), *run_forward(backend, small)]
        for one, other in zip(whole, [*alone, *run_logits(backend, small)], strict=True):
            np.testing.assert_array_equal(one[rows], other)


@given(problem=path_problems(kinds=("normal",)), data=st.data())
def test_a_row_that_is_not_finite_spoils_only_itself(
    backend: ModuleType, problem: PathProblem, data: st.DataObject
) -> None:
    assume(len(problem.x))
    row = data.draw(st.integers(0, len(problem.x) - 1))
    x = problem.x.copy()
    x[row, data.draw(st.integers(0, x.shape[1] - 1))] = data.draw(st.sampled_from(BAD))
    clean, y = run_infer(backend, problem), run_infer(backend, problem, x)
    logits, nodes = run_logits(backend, problem._replace(x=x))
    others = np.arange(len(x)) != row
    np.testing.assert_array_equal(y[others], clean[others])
    # Weights are never exactly 0 here, so a bad number reaches the first logit already.
    first = logits[row, :, 0]
    assert not np.isfinite(first).any(), f"logits at the roots must not be finite, got {first}"
    assert np.isnan(y[row]).all(), f"all outputs of row {row} must be NaN, got {y[row]}"
    assert (nodes >= 0).all()
    assert (nodes < problem.weights_in.shape[1]).all()
    if np.isnan(x[row]).any() and nodes.shape[2] > 1:
        assert (nodes[row, :, 1] == 1).all(), f"NaN must go left, to node 1, got {nodes[row, :, 1]}"


@given(problem=path_problems(kinds=("normal",)))
def test_a_logit_that_overflows_makes_the_row_nan(
    backend: ModuleType, problem: PathProblem
) -> None:
    largest = np.finfo(problem.x.dtype).max
    big = problem._replace(weights_in=np.full_like(problem.weights_in, largest))
    x = np.full_like(problem.x, 4)
    assert np.isnan(run_infer(backend, big, x)).all()
    assert np.isnan(run_infer(backend, big, -x)).all()
