"""Leaves and outputs of LeafFeedForward, and that a row has the same bits in any batch."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import DTypeLike

from fffcpu.kernels import jit
from fffcpu.testing import oracle
from fffcpu.testing.conformance.calls import run_leaf
from fffcpu.testing.conformance.tolerances import close, largest, logit_error
from fffcpu.testing.strategies import DTYPES, LeafProblem, leaf_problems, numbers

BAD = (np.nan, np.inf, -np.inf)


@given(problem=leaf_problems())
def test_leaves_agree_with_the_oracle(backend: ModuleType, problem: LeafProblem) -> None:
    leaves, y = run_leaf(backend, problem)
    expected = oracle.leaf(problem.x, problem.params, problem.activation)
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


@given(problem=leaf_problems(max_rows=8), data=st.data())
def test_a_row_has_the_same_bits_in_any_batch_of_the_leaf_layer(
    backend: ModuleType, problem: LeafProblem, data: st.DataObject
) -> None:
    assume(len(problem.x))
    picks = data.draw(st.lists(st.integers(0, len(problem.x) - 1), max_size=20))
    for batch, alone in zip(
        run_leaf(backend, problem, problem.x[picks]), run_leaf(backend, problem), strict=True
    ):
        np.testing.assert_array_equal(batch, alone[picks])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_row_of_a_large_batch_has_the_bits_it_has_in_a_small_one_of_the_leaf_layer(
    backend: ModuleType, dtype: DTypeLike
) -> None:
    rng = np.random.default_rng(0)
    shapes = {
        "gate_weights": (7, 70),
        "gate_bias": (7,),
        "leaf_weights_in": (8, 70, 19),
        "leaf_bias_in": (8, 19),
        "leaf_weights_out": (8, 19, 33),
        "leaf_bias_out": (8, 33),
    }
    params = {name: numbers(rng, shape, "normal", dtype) for name, shape in shapes.items()}
    x, dy = (numbers(rng, (701, width), "normal", dtype) for width in (70, 33))
    large = LeafProblem(x, params, dy, "gelu", "normal")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jit, "MIN_PARALLEL_WORK", 1)
        whole = run_leaf(backend, large)
    for start in range(0, 701, 10):
        rows = slice(start, start + 10)
        for one, other in zip(whole, run_leaf(backend, large, x[rows]), strict=True):
            np.testing.assert_array_equal(one[rows], other)


@given(problem=leaf_problems(kinds=("normal",)), data=st.data())
def test_a_row_that_is_not_finite_spoils_only_itself_in_the_leaf_layer(
    backend: ModuleType, problem: LeafProblem, data: st.DataObject
) -> None:
    assume(len(problem.x))
    row = data.draw(st.integers(0, len(problem.x) - 1))
    x = problem.x.copy()
    bad = data.draw(st.sampled_from(BAD))
    x[row, data.draw(st.integers(0, x.shape[1] - 1))] = bad
    _, clean = run_leaf(backend, problem)
    leaves, y = run_leaf(backend, problem, x)
    others = np.arange(len(x)) != row
    np.testing.assert_array_equal(y[others], clean[others])
    assert np.isnan(y[row]).all(), f"all outputs of row {row} must be NaN, got {y[row]}"
    assert (leaves >= 0).all()
    assert (leaves < len(problem.params["leaf_bias_in"])).all()
    if np.isnan(bad):
        assert leaves[row] == 0, f"NaN must go left, to leaf 0, got leaf {leaves[row]}"
