"""LeafFeedForward through a backend: published numbers, hardening, ties, bad gates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from numpy.typing import NDArray

from fffcpu import LeafFeedForward
from fffcpu.testing import golden, oracle
from fffcpu.testing.plugin import Through
from fffcpu.testing.strategies import LeafProblem, leaf_problems

Array = NDArray[Any]

PUBLISHED = {
    "gate_weights": "node_weights",
    "gate_bias": "node_biases",
    "leaf_weights_in": "w1s",
    "leaf_bias_in": "b1s",
    "leaf_weights_out": "w2s",
    "leaf_bias_out": "b2s",
}
"""Our names of parameters, and the published ones."""


def assert_close(actual: Array, expected: Array) -> None:
    """Assert agreement relative to the largest value."""
    assert np.abs(actual - expected).max() <= 2e-5 * np.abs(expected).max()


def layer_of(problem: LeafProblem) -> LeafFeedForward:
    """Return a layer with the problem's parameters."""
    return LeafFeedForward.from_arrays(**problem.params, activation=problem.activation)


@pytest.mark.parametrize("file", golden.files("leaf_fff"), ids=lambda file: file.stem)
def test_published_outputs_and_gradients_of_the_leaf_layer(file: Path, through: Through) -> None:
    data = np.load(file)
    arrays = {ours: data[theirs] for ours, theirs in PUBLISHED.items()}
    arrays["gate_bias"] = arrays["gate_bias"][:, 0]
    layer = LeafFeedForward.from_arrays(**arrays, activation=str(data["activation"]))
    with through():
        assert_close(layer(data["x"]), data["y_hard"])
    assert_close(layer.forward(data["x"], hardened=True)[0], data["y_hard"])
    y, cache = layer.forward(data["x"])
    assert_close(y, data["y_soft"])
    assert_close(cache.entropies, data["mean_entropies"])
    dx, grads = layer.backward(data["dy"], cache, hardening=float(data["hardening"]))
    assert_close(dx, data["dx"])
    for ours, theirs in PUBLISHED.items():
        assert_close(grads[ours], data[f"d_{theirs}"].reshape(grads[ours].shape))


@given(problem=leaf_problems(kinds=("integer",)))
def test_hardened_is_inference_ties_included(problem: LeafProblem, through: Through) -> None:
    layer = layer_of(problem)
    y, cache = layer.forward(problem.x, hardened=True)
    with through():
        np.testing.assert_allclose(y, layer(problem.x), rtol=1e-4, atol=1e-3)
        leaves = layer.route(problem.x)
    expected = oracle.leaf(problem.x, problem.params, problem.activation)
    np.testing.assert_array_equal(leaves, expected.leaves)
    counts = np.bincount(leaves, minlength=len(cache.leaf_usage))
    np.testing.assert_array_equal(cache.leaf_usage, counts)
    assert leaves.dtype == np.int32


def test_ties_go_right(through: Through) -> None:
    layer = LeafFeedForward(4, 3, 3, 2, rng=0)
    layer.params["gate_bias"][...] = 0
    with through():
        assert layer.route(np.zeros(4)) == 7
        assert layer.route(np.full(4, np.nan)) == 0


@pytest.mark.parametrize("gate", [0, 1, 4])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gate_that_is_not_finite_spoils_the_rows_that_pass_it(
    gate: int, bad: Any, through: Through
) -> None:
    layer = LeafFeedForward(4, 2, 3, 2, rng=0)
    x = np.random.default_rng(0).standard_normal((30, 4))
    with through():
        before = layer.route(x)
        layer.params["gate_bias"][gate] = bad
        y = layer(x)
    first, last = {0: (0, 8), 1: (0, 4), 4: (2, 4)}[gate]
    passed = (before >= first) & (before < last)
    assert passed.any()
    np.testing.assert_array_equal(np.isnan(y), np.repeat(passed[:, np.newaxis], 2, axis=1))
    expected = oracle.leaf(x, layer.params)
    np.testing.assert_array_equal(np.isnan(expected.y), np.isnan(y))
