"""FastFeedForward and cmm: published numbers, gradients, routes, initial values, bits."""

from __future__ import annotations

import contextlib
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu import FastFeedForward, cmm
from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError
from fffcpu.testing import oracle
from fffcpu.testing.conformance.test_fast_feed_forward import check_published
from tests.support.paths import GOLDEN


@pytest.mark.parametrize(("dtype", "relative"), [(np.float64, 1e-10), (np.float32, 2e-5)])
def test_published_outputs_and_gradients_of_a_whole_tree(dtype, relative):
    """Of the file that the suite has the visited nodes of alone, by the kernels a layer chooses."""
    file = GOLDEN / "path_fff_w64_d11_t1.npz"
    check_published(file, dtype, relative, contextlib.nullcontext)


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


def test_two_sided_nodes_have_output_weights_for_each_side():
    layer = FastFeedForward(6, 4, 2, trees=3, two_sided=True, rng=0)
    assert layer.params["weights_out"].shape == (3, 7, 2, 4)
    params = layer.params
    again = FastFeedForward.from_arrays(
        params["weights_in"], params["weights_out"], params["bias_in"]
    )
    assert again.config == layer.config
    x = np.random.default_rng(1).standard_normal((5, 6))
    np.testing.assert_array_equal(again(x), layer(x))
    single = FastFeedForward.from_arrays([[[1.0]]], [[[[10.0], [20.0]]]], activation="relu")
    np.testing.assert_array_equal(single([[-3.0], [0.0], [3.0]]), [[30.0], [0.0], [60.0]])


def test_a_layer_with_equal_sides_depends_on_magnitudes_alone():
    layer = FastFeedForward(6, 4, 3, activation="relu", two_sided=True, rng=0)
    layer.params["weights_out"][:, :, 0] = layer.params["weights_out"][:, :, 1]
    mirrored = layer.copy()
    mirrored.params["weights_in"][:, 7:] *= -1
    mirrored.params["bias_in"][:, 7:] *= -1
    x = np.random.default_rng(1).standard_normal((50, 6))
    np.testing.assert_allclose(mirrored(x), layer(x), rtol=1e-5)


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
        ((4, 4, -1), ArgumentError, "'depth' must be an integer from 0 to 29, got -1"),
        ((4, 4, 31), ArgumentError, "'depth' must be an integer from 0 to 29, got 31"),
        ((4, 4, 2.0), ArgumentTypeError, "'depth' must be an integer from 0 to 29, got 2.0"),
        ((4, 4, 2, 0), ArgumentError, "'trees' must be an integer of at least 1, got 0"),
        (("4", 4, 2), ArgumentTypeError, "'input_dim' must be an integer of at least 1, got '4'"),
        ((4, 4, True), ArgumentTypeError, "'depth' must be an integer from 0 to 29, got True"),
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
        ({"two_sided": 1}, ArgumentTypeError, "'two_sided' must be True or False, got 1"),
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
        (((1, 7, 4), (1, 7, 3, 3), None), r"'weights_out' must have shape \(1, 7, 2, 3\)"),
        (((1, 7, 4), (7, 3), None), r"'weights_out' must have 3 or 4 axes, got shape \(7, 3\)"),
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
        FastFeedForward(10**12, 10**12, 29)


@given(
    rows=st.integers(0, 20),
    trees=st.integers(1, 3),
    depth=st.integers(0, 6),
    bias=st.booleans(),
    two_sided=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_row_sparse_gradients_are_the_rows_of_dense_ones(
    rows, trees, depth, bias, two_sided, dtype
):
    options = {"bias": bias, "two_sided": two_sided, "dtype": dtype}
    layer = FastFeedForward(5, 3, depth, trees, **options, rng=0)
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
