"""bfloat16 and int8 weights: agreement with the oracle, and bits.

A backend may refuse them with an ArgumentTypeError. Then the test is skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.errors import ArgumentTypeError
from fffcpu.testing import oracle
from fffcpu.testing.conformance.calls import run_infer, run_leaf, run_logits
from fffcpu.testing.conformance.tolerances import chain, close, largest, logit_error, logit_terms
from fffcpu.testing.strategies import (
    LeafProblem,
    PathProblem,
    narrow_leaf_problems,
    narrow_path_problems,
)

WEIGHTS = pytest.mark.parametrize("weights", ["bfloat16", "int8"])


def run_narrow(backend: ModuleType, run: Callable[..., Any], narrow: Any, *x: Any) -> Any:
    """Run a call, or skip the test if the backend refuses narrow weights."""
    try:
        return run(backend, narrow, *x)
    except ArgumentTypeError as refusal:
        pytest.skip(f"the backend takes no narrow weights: {refusal}")


@WEIGHTS
@given(data=st.data())
def test_narrow_weights_agree_with_the_oracle(
    backend: ModuleType, weights: str, data: st.DataObject
) -> None:
    narrow, wide = data.draw(narrow_path_problems(weights))
    logits, nodes = run_narrow(backend, run_logits, narrow)
    y = run_narrow(backend, run_infer, narrow)
    expected = oracle.path(wide.x, wide.weights_in, wide.bias, wide.weights_out, wide.activation)
    error = logit_error(wide, wide.weights_in, wide.bias_in)
    sure = expected.margin > error if error else np.ones(len(wide.x), bool)
    np.testing.assert_array_equal(nodes[sure], expected.nodes[sure])
    own = np.take_along_axis(expected.logits, nodes.astype(int), axis=2)
    np.testing.assert_allclose(logits, own, rtol=0, atol=error)
    visits = expected.nodes[0].size if len(wide.x) else 0
    logit = logit_terms(wide, wide.weights_in, wide.bias_in)
    magnitude = visits * logit * largest(wide.weights_out)
    close(y[sure], expected.y[sure], magnitude, chain(wide))


@WEIGHTS
@given(data=st.data())
def test_narrow_leaves_agree_with_the_oracle(
    backend: ModuleType, weights: str, data: st.DataObject
) -> None:
    narrow, wide = data.draw(narrow_leaf_problems(weights))
    leaves, y = run_narrow(backend, run_leaf, narrow)
    expected = oracle.leaf(wide.x, wide.params, wide.activation)
    error = logit_error(wide, wide.params["gate_weights"], wide.params["gate_bias"])
    sure = expected.margin > error if error else np.ones(len(wide.x), bool)
    np.testing.assert_array_equal(leaves[sure], expected.leaves[sure])
    params, (width, hidden) = wide.params, wide.params["leaf_weights_in"].shape[1:]
    logit = width * largest(wide.x, params["leaf_weights_in"]) + largest(params["leaf_bias_in"])
    magnitude = hidden * logit * largest(params["leaf_weights_out"])
    magnitude += largest(params["leaf_bias_out"])
    close(y[sure], expected.y[sure], magnitude, width + hidden)


@given(path=narrow_path_problems(weights="bfloat16"), leaf=narrow_leaf_problems(weights="bfloat16"))
def test_bfloat16_weights_give_the_bits_of_float32_ones(
    backend: ModuleType,
    path: tuple[PathProblem, PathProblem],
    leaf: tuple[LeafProblem, LeafProblem],
) -> None:
    y = run_narrow(backend, run_infer, path[0])
    np.testing.assert_array_equal(y, run_infer(backend, path[1]))
    pairs = zip(run_narrow(backend, run_logits, path[0]), run_logits(backend, path[1]), strict=True)
    for one, other in pairs:
        np.testing.assert_array_equal(one, other)
    pairs = zip(run_narrow(backend, run_leaf, leaf[0]), run_leaf(backend, leaf[1]), strict=True)
    for one, other in pairs:
        np.testing.assert_array_equal(one, other)


@given(path=narrow_path_problems(), leaf=narrow_leaf_problems(), data=st.data())
def test_a_row_has_the_same_bits_in_any_batch_with_narrow_weights(
    backend: ModuleType,
    path: tuple[PathProblem, PathProblem],
    leaf: tuple[LeafProblem, LeafProblem],
    data: st.DataObject,
) -> None:
    for run, (narrow, _) in ((run_infer, path), (run_leaf, leaf)):
        picks = data.draw(st.lists(st.sampled_from(range(len(narrow.x) or 1)), max_size=20))
        picks = picks if len(narrow.x) else []
        whole = run_narrow(backend, run, narrow)
        batch = run_narrow(backend, run, narrow, narrow.x[picks])
        whole, batch = (part if isinstance(part, tuple) else (part,) for part in (whole, batch))
        for one, other in zip(batch, whole, strict=True):
            np.testing.assert_array_equal(one, other[picks])
