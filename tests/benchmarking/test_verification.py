"""Distinct rows, and wrong outputs that are found; no test asserts how fast anything is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fffcpu import DenseFeedForward, FastFeedForward, LeafFeedForward
from fffcpu.benchmarking.verification import (
    DISTINCT_ROWS,
    check_close,
    check_dense,
    check_leaves,
    check_paths,
    distinct_batches,
    path_arguments,
)
from fffcpu.errors import WrongOutputError
from fffcpu.kernels.backends import vectorized


def run_plain(layer: FastFeedForward, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Output and routes by the plain backend."""
    config = layer.config
    shape = (len(x), config.trees, config.depth + 1)
    y = np.empty((len(x), config.output_dim), config.dtype)
    nodes = np.empty(shape, np.int32)
    logits = np.empty(shape, config.dtype)
    vectorized.path_forward(y, logits, nodes, x, *layer._weights.trained, layer._activation)
    return y, nodes


def random_rows(rows: int, width: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(7).standard_normal((rows, width)).astype(dtype)


@pytest.mark.parametrize(
    ("rows", "batches"), [(1, 4096), (16, 256), (1000, 5), (4096, 2), (5000, 2)]
)
def test_batches_are_distinct(rows, batches):
    arrays = distinct_batches(rows, 3, rng=0)
    assert len(arrays) == batches
    assert {array.shape for array in arrays} == {(rows, 3)}
    assert all(array.flags.c_contiguous and array.dtype == np.float32 for array in arrays)
    everything = np.concatenate(arrays)
    assert len(everything) >= DISTINCT_ROWS
    assert len(np.unique(everything, axis=0)) == len(everything)


def test_batches_follow_the_seed_and_dtype():
    first, again, other = (distinct_batches(2048, 2, np.float64, seed)[0] for seed in (1, 1, 2))
    assert first.dtype == np.float64
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@settings(deadline=None, max_examples=25)
@given(
    sizes=st.tuples(st.integers(1, 20), st.integers(1, 6), st.integers(0, 4), st.integers(1, 3)),
    rows=st.integers(0, 12),
    bias=st.booleans(),
    dtype=st.sampled_from(["float32", "float64"]),
    activation=st.sampled_from(["gelu", "relu", "identity"]),
)
def test_right_outputs_pass(sizes, rows, bias, dtype, activation):
    layer = FastFeedForward(*sizes, bias=bias, dtype=dtype, activation=activation, rng=3)
    x = random_rows(rows, sizes[0], dtype)
    y, nodes = run_plain(layer, x)
    leaves = check_paths(layer, x, y, nodes)
    assert leaves == len({(t, n) for row in nodes[:, :, -1].tolist() for t, n in enumerate(row)})
    assert check_paths(layer, x, layer(x), layer.route(x)) == leaves


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1.0])
def test_a_wrong_output_is_found(wrong):
    layer = FastFeedForward(16, 4, 3, rng=0)
    x = random_rows(9, 16)
    y, nodes = run_plain(layer, x)
    y[5, 2] += wrong
    with pytest.raises(WrongOutputError, match="outputs differ"):
        check_paths(layer, x, y, nodes)


def test_a_wrong_route_is_found():
    layer = FastFeedForward(16, 4, 3, rng=0)
    x = random_rows(9, 16)
    y, nodes = run_plain(layer, x)
    nodes[3, 0, 3] ^= 1
    with pytest.raises(WrongOutputError, match=r"routes must .* for row 3 in tree 0"):
        check_paths(layer, x, y, nodes)


def test_a_tie_may_go_either_way():
    layer = FastFeedForward(2, 1, 1, bias=False, rng=0)
    layer.params["weights_in"][0, 0] = 0  # so every logit of the root is 0
    x = random_rows(5, 2)
    y, nodes = run_plain(layer, x)
    nodes[2, 0, 1] = 2
    y[2] = 100  # the output of another path is not comparable
    assert check_paths(layer, x, y, nodes) == 2


def test_outputs_close_to_another():
    expected = np.array([[1.0, -2.0]])
    check_close(expected * 1.01, expected, 0.011)
    for wrong in (expected * 1.02, expected * np.nan):
        with pytest.raises(WrongOutputError, match="outputs differ"):
            check_close(wrong, expected, 0.011)
    with pytest.raises(WrongOutputError, match="shape"):
        check_close(expected[0], expected, 1)


@pytest.mark.parametrize("depth", [0, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_leaf_outputs_are_checked(depth, dtype):
    layer = LeafFeedForward(6, 4, depth, 3, dtype=dtype, rng=0)
    x = random_rows(40, 6, dtype)
    y, leaves = layer(x), layer.route(x)
    assert check_leaves(layer, x, y, leaves) == len(set(leaves.tolist()))
    y[7, 1] += 0.01
    with pytest.raises(WrongOutputError, match="outputs differ"):
        check_leaves(layer, x, y, leaves)


def test_a_wrong_leaf_is_found_unless_it_is_a_tie():
    layer = LeafFeedForward(6, 4, 3, 3, rng=0)
    x = random_rows(40, 6)
    y, leaves = layer(x), layer.route(x)
    leaves[3] ^= 1
    with pytest.raises(WrongOutputError, match=r"leaves must .* for row 3"):
        check_leaves(layer, x, y, leaves)
    gate = 3 + (leaves[3] >> 1)  # the last on the way
    layer.params["gate_weights"][gate] = layer.params["gate_bias"][gate] = 0
    fresh = layer(x)
    leaves = layer.route(x)
    leaves[3] ^= 1
    check_leaves(layer, x, fresh, leaves)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dense_outputs_are_checked(bias, dtype):
    layer = DenseFeedForward(7, 3, 50, bias=bias, dtype=dtype, rng=0)
    x = random_rows(4, 7, dtype)
    y = layer(x)
    check_dense(layer, x, y)
    y[1, 1] *= 1.01
    with pytest.raises(WrongOutputError):
        check_dense(layer, x, y)


def test_path_arguments_hold_the_parameters_themselves():
    layer = FastFeedForward(5, 4, 2, 3, bias=False, activation="relu", rng=0)
    weights_in, bias_in, weights_out, scale_in, scale_out, activation = path_arguments(layer)
    assert np.shares_memory(weights_in, layer.params["weights_in"])
    assert np.shares_memory(weights_out, layer.params["weights_out"])
    assert bias_in.tolist() == np.zeros((3, 7)).tolist()
    assert scale_in is scale_out is None
    assert activation == 1
