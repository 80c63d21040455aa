"""Exported layers compute what ours do, on every path."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from scipy.special import ndtr

from fffcpu import DenseFeedForward, FastFeedForward, LeafFeedForward
from fffcpu.errors import ArgumentTypeError
from fffcpu.onnx import to_model
from fffcpu.onnx.graph import Graph
from fffcpu.onnx.layers import WHOLE, add_layer
from fffcpu.testing import oracle
from fffcpu.testing.strategies import leaf_problems, path_problems
from tests.onnx.support import assert_close, reaching, run

TOLERANCES = {"float32": 1e-4, "float64": 1e-12}

DEPTH = 5
"""Levels of few places, which are computed as a whole, and of many."""
assert 1 < WHOLE < 2**DEPTH


def fast(**options):
    return FastFeedForward(12, 9, DEPTH, rng=0, **options)


def leaf(**options):
    return LeafFeedForward(12, 9, DEPTH, 3, rng=0, **options)


LAYERS = {
    "fast": fast,
    "fast, two-sided": lambda: fast(two_sided=True),
    "fast, no bias": lambda: fast(bias=False),
    "fast, three trees": lambda: fast(trees=3),
    "fast, three two-sided trees": lambda: fast(trees=3, two_sided=True),
    "fast, float64": lambda: fast(trees=2, dtype=np.float64),
    "fast, two-sided, float64": lambda: fast(two_sided=True, dtype=np.float64),
    "fast, one node": lambda: FastFeedForward(12, 9, 0, trees=20, rng=0),
    "fast, bfloat16": lambda: fast(trees=2).quantize("bfloat16"),
    "fast, two-sided, bfloat16": lambda: fast(two_sided=True).quantize("bfloat16"),
    "fast, int8": lambda: fast().quantize("int8"),
    "fast, two-sided, int8": lambda: fast(trees=2, two_sided=True).quantize("int8"),
    "leaf": leaf,
    "leaf, gelu, float64": lambda: leaf(activation="gelu", dtype=np.float64),
    "leaf, few": lambda: LeafFeedForward(12, 9, 2, 3, activation="gelu", rng=0),
    "leaf, one": lambda: LeafFeedForward(12, 9, 0, 3, rng=0),
    "leaf, bfloat16": lambda: leaf().quantize("bfloat16"),
    "leaf, few, bfloat16": lambda: LeafFeedForward(12, 9, 2, 3, rng=0).quantize("bfloat16"),
    "leaf, int8": lambda: leaf(activation="identity").quantize("int8"),
    "leaf, few, int8": lambda: LeafFeedForward(12, 9, 2, 3, rng=0).quantize("int8"),
    "dense": lambda: DenseFeedForward(12, 9, 30, rng=0),
    "dense, no bias": lambda: DenseFeedForward(12, 9, 30, bias=False, activation="relu", rng=0),
    "dense, float64": lambda: DenseFeedForward(12, 9, 30, dtype=np.float64, rng=0),
}


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_every_leaf_of_a_layer_agrees(make):
    layer = make()
    x = reaching(layer)
    (y,) = run(layer, x=x).values()
    assert_close(y, layer(x), TOLERANCES[layer.config.dtype])


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_any_number_of_rows_will_do(make):
    layer = make()
    for rows in (0, 1):
        x = np.ones((rows, 12), layer.config.dtype)
        assert run(layer, x=x)["y"].shape == (rows, 9)


def parameters(problem):
    bias = problem.bias
    arrays = {"weights_in": problem.weights_in, "weights_out": problem.weights_out}
    return arrays | ({} if bias is None else {"bias_in": bias})


@given(path_problems())
@settings(max_examples=25, deadline=None)
def test_paths_are_those_of_the_oracle(problem):
    params = parameters(problem)
    expected = oracle.path(
        problem.x, params["weights_in"], problem.bias, params["weights_out"], problem.activation
    )
    layer = FastFeedForward.from_arrays(**params, activation=problem.activation)
    y = run(layer, x=problem.x)["y"]
    # Products of small integers are exact, so that ties must be ties.
    sure = slice(None) if problem.kind == "integer" else expected.margin > 1e-4
    largest = np.abs(expected.y).max(initial=1e-30)
    tolerance = 1e-4 if problem.x.dtype == np.float32 else 1e-12
    assert (np.abs(y - expected.y)[sure] <= tolerance * largest).all()


@given(leaf_problems())
@settings(max_examples=25, deadline=None)
def test_leaves_are_those_of_the_oracle(problem):
    expected = oracle.leaf(problem.x, problem.params, problem.activation)
    layer = LeafFeedForward.from_arrays(**problem.params, activation=problem.activation)
    y = run(layer, x=problem.x)["y"]
    sure = slice(None) if problem.kind == "integer" else expected.margin > 1e-4
    largest = np.abs(expected.y).max(initial=1e-30)
    tolerance = 1e-4 if problem.x.dtype == np.float32 else 1e-12
    assert (np.abs(y - expected.y)[sure] <= tolerance * largest).all()


def test_a_tie_goes_left_in_fast_layers_and_right_in_leaf_layers():
    x = np.zeros((1, 4), np.float32)
    tree = FastFeedForward(4, 3, 4, bias=False, rng=0)
    outputs = tree.params["weights_out"]
    outputs[...] = np.arange(outputs.size).reshape(outputs.shape)
    bias = np.zeros((1, 31), np.float32)
    bias[0, 15] = 1.0  # only the leftmost leaf adds something
    tied = FastFeedForward.from_arrays(tree.params["weights_in"], outputs, bias, activation="relu")
    assert run(tied, x=x)["y"].tolist() == outputs[:1, 15].tolist()

    leaves = leaf().params
    zero = {name: np.zeros_like(leaves[name]) for name in ("gate_weights", "gate_bias")}
    tied = LeafFeedForward.from_arrays(**{**leaves, **zero})
    found = run(tied, x=np.ones((1, 12), np.float32))["y"]
    assert tied.route(np.ones((1, 12))).tolist() == [2**DEPTH - 1]
    assert_close(found, tied(np.ones((1, 12))))


@pytest.mark.parametrize("name", ["fast, three trees", "fast, float64", "leaf", "leaf, int8"])
def test_numbers_that_are_not_finite_stay_in_their_rows(name):
    layer = LAYERS[name]()
    x = reaching(layer)[:6]
    x[1, 3], x[3, 0], x[4] = np.nan, np.inf, -np.inf
    with np.errstate(all="ignore"):
        y = run(layer, x=x)["y"]
    assert np.isnan(y[1]).all()
    assert not np.isfinite(y[3]).all() or "leaf" in name
    assert_close(y[[0, 2, 5]], layer(x[[0, 2, 5]]))


WIDE = {
    "fast": lambda: FastFeedForward(96, 96, 7, rng=0),
    "fast, two-sided trees": lambda: FastFeedForward(64, 64, 5, 4, two_sided=True, rng=0),
    "fast, bfloat16": lambda: FastFeedForward(128, 128, 7, rng=0).quantize("bfloat16"),
    "fast, int8": lambda: FastFeedForward(256, 256, 7, rng=0).quantize("int8"),
    "leaf": lambda: LeafFeedForward(96, 96, 4, 8, rng=0),
    "leaf, int8": lambda: LeafFeedForward(128, 128, 5, 8, rng=0).quantize("int8"),
    "dense": lambda: DenseFeedForward(64, 64, 100, rng=0),
    "fast, one node": lambda: FastFeedForward(64, 64, 0, 200, rng=0),
}


@pytest.mark.parametrize("make", WIDE.values(), ids=WIDE)
def test_a_file_takes_little_more_than_the_weights(make):
    layer = make()
    assert layer.nbytes <= len(to_model(layer).SerializeToString()) <= 1.1 * layer.nbytes


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_weights_of_a_quantized_layer_stay_narrow(weights):
    kinds = onnx.TensorProto
    kind = kinds.INT8 if weights == "int8" else kinds.BFLOAT16
    model = to_model(fast().quantize(weights))
    found = [tensor for tensor in model.graph.initializer if "weights" in tensor.name]
    assert len(found) == 2 * (DEPTH + 1)
    assert {tensor.data_type for tensor in found} == {kind}


def test_gelu_of_float64_has_its_digits():
    s = np.concatenate([np.linspace(-37.0, 37.0, 2001), [-1e300, -41.0, 0.0, 41.0, 1e300]])
    layer = DenseFeedForward(1, 1, 1, bias=False, dtype=np.float64, rng=0)
    for array in layer.params.values():
        array[...] = 1.0
    found = run(layer, x=s[:, np.newaxis])["y"][:, 0]
    np.testing.assert_allclose(found, s * ndtr(s), rtol=1e-12, atol=1e-300)


def test_the_same_layer_gives_the_same_bytes():
    first, second = (to_model(fast(trees=2)).SerializeToString() for _ in range(2))
    assert first == second


def test_a_layer_of_another_class_is_refused():
    with pytest.raises(ArgumentTypeError, match=r"'model' must have a FastFeedForward.*got 'x'"):
        add_layer(Graph(), "x", "x")
