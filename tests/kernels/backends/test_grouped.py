"""Grouped kernels give the bits of the row kernels, however a batch is cut and sorted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu import FastFeedForward, LeafFeedForward
from fffcpu.kernels import blocks, jit
from fffcpu.kernels.backends import grouped, rowwise
from fffcpu.parameters import aligned_empty
from fffcpu.system.pool import POOL
from fffcpu.testing.conformance.calls import run_forward, run_infer, run_leaf, run_logits
from fffcpu.testing.strategies import (
    ACTIVATIONS,
    DTYPES,
    LeafProblem,
    PathProblem,
    leaf_problems,
    narrow_leaf_problems,
    narrow_path_problems,
    numbers,
    path_problems,
)


def assert_same_bits(problem):
    np.testing.assert_array_equal(run_infer(grouped, problem), run_infer(rowwise, problem))
    for run in (run_logits, run_forward):
        for one, other in zip(run(grouped, problem), run(rowwise, problem), strict=True):
            np.testing.assert_array_equal(one, other)


def assert_same_bits_of_leaves(problem):
    for one, other in zip(run_leaf(grouped, problem), run_leaf(rowwise, problem), strict=True):
        np.testing.assert_array_equal(one, other)


@given(
    path=path_problems(max_rows=40),
    leaf=leaf_problems(max_rows=40),
    nodes_per_row=st.sampled_from([0, 1]),
    block_rows=st.sampled_from([1, 7, 1024]),
    rows_in_subtree=st.sampled_from([1, 3, 48]),
    levels=st.integers(2, 4),
)
def test_the_bits_are_those_of_the_row_kernels(
    path, leaf, nodes_per_row, block_rows, rows_in_subtree, levels
):
    """In one stage or two, in blocks of any size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouped, "NODES_PER_ROW", nodes_per_row)
        patch.setattr(blocks, "MAX_BLOCK_ROWS", block_rows)
        patch.setattr(grouped, "ROWS_IN_SUBTREE", rows_in_subtree)
        patch.setattr(grouped, "LEAST_LEVELS_ABOVE", 2)
        patch.setattr(grouped, "MOST_LEVELS_ABOVE", levels)
        assert_same_bits(path)
        assert_same_bits_of_leaves(leaf)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["normal", "integer"])
@pytest.mark.parametrize(
    ("width_in", "width_out", "depth", "trees"), [(100, 65, 6, 2), (32, 128, 7, 1), (7, 3, 0, 1)]
)
def test_the_bits_are_those_of_the_row_kernels_in_large_batches(
    width_in, width_out, depth, trees, kind, dtype
):
    rng = np.random.default_rng(0)
    rows, nodes, leaves, hidden = 701, 2 ** (depth + 1) - 1, 2**depth, 19
    path = PathProblem(
        numbers(rng, (rows, width_in), kind, dtype),
        numbers(rng, (trees, nodes, width_in), kind, dtype),
        numbers(rng, (trees, nodes), kind, dtype),
        numbers(rng, (trees, nodes, width_out), kind, dtype),
        numbers(rng, (rows, width_out), kind, dtype),
        ACTIVATIONS[0],
        kind,
    )
    shapes = {
        "gate_weights": (leaves - 1, width_in),
        "gate_bias": (leaves - 1,),
        "leaf_weights_in": (leaves, width_in, hidden),
        "leaf_bias_in": (leaves, hidden),
        "leaf_weights_out": (leaves, hidden, width_out),
        "leaf_bias_out": (leaves, width_out),
    }
    params = {name: numbers(rng, shape, kind, dtype) for name, shape in shapes.items()}
    leaf = LeafProblem(path.x, params, path.dy, "relu", kind)
    # Rows that are much alike fill one subtree; a bad row must not move the others.
    path.x[100:400] = path.x[100] + numbers(rng, (300, width_in), kind, dtype) / 8
    path.x[5, 0], path.x[333, 1] = np.nan, np.inf
    for threads, nodes_per_row in ((1, 0), (2, 0), (2, grouped.NODES_PER_ROW)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(POOL, "threads", threads)
            patch.setattr(grouped, "NODES_PER_ROW", nodes_per_row)
            patch.setattr(grouped, "LEAST_LEVELS_ABOVE", 2)
            patch.setattr(jit, "MIN_PARALLEL_WORK", 1)
            assert_same_bits(path)
            assert_same_bits_of_leaves(leaf)


def guarded(shape, dtype):
    """Yield arrays that start at a cache line and beside one; nothing around them may change."""
    size = int(np.prod(shape))
    for offset in (0, 1):
        memory = aligned_empty((size + 8,), dtype)
        memory[:] = -1
        yield memory[offset : offset + size].reshape(shape)
        assert (memory[:offset] == -1).all()
        assert (memory[offset + size :] == -1).all()


@pytest.mark.parametrize("trees", [1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("width", [64, 80, 70])
@pytest.mark.parametrize("two_sided", [False, True])
def test_stores_past_the_caches_write_the_same(monkeypatch, trees, dtype, width, two_sided):
    """Rows of whole cache lines, some of which registers do not fill in threes, and others."""
    layer = FastFeedForward(width, width, 4, trees, two_sided=two_sided, dtype=dtype, rng=0)
    x = np.random.default_rng(1).standard_normal((203, width)).astype(dtype)
    expected = np.empty_like(x)
    rowwise.path_infer(expected, x, *layer._weights, layer._activation)
    monkeypatch.setattr(jit, "MIN_PARALLEL_WORK", 1)
    for y in guarded(x.shape, dtype):
        grouped.path_infer(y, x, *layer._weights, layer._activation)
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("trees", [1, 2])
@pytest.mark.parametrize("width", [64, 70])
def test_the_input_gradient_is_the_same_past_the_caches(monkeypatch, trees, width):
    layer = FastFeedForward(width, width, 4, trees, rng=0)
    x, dy = np.random.default_rng(1).standard_normal((2, 203, width)).astype(np.float32)
    _, cache = layer.forward(x)
    expected, _ = layer.backward(dy, cache)
    weights_in, _, weights_out = layer._weights.trained
    monkeypatch.setattr(jit, "MIN_PARALLEL_WORK", 1)
    for dx in guarded(x.shape, np.float32):
        rows = trees * weights_in.shape[1]
        grouped.path_backward(
            dx,
            np.zeros((rows, width), np.float32),
            np.zeros(rows, np.float32),
            np.zeros((rows, 1, width), np.float32),
            dy,
            x,
            cache.logits,
            cache.nodes,
            np.empty((*cache.nodes.shape[:2], 0), np.float32),
            np.arange(rows),
            weights_in,
            weights_out,
            layer._activation,
        )
        np.testing.assert_array_equal(dx, expected)


@pytest.mark.parametrize(
    ("rows", "levels", "top"),
    [(1, 12, 0), (4096, 12, 6), (4096, 11, 5), (4096, 9, 5), (4096, 8, 0), (10**6, 1, 0)],
)
def test_the_levels_below_the_sorting_come_in_pairs(rows, levels, top):
    assert grouped._top(rows, 1, levels, most=256) == top


@pytest.mark.parametrize(
    ("trees", "levels", "staged"), [(2, 9, False), (2, 10, True), (8, 11, True), (8, 10, False)]
)
def test_more_trees_take_one_stage_for_more_nodes(trees, levels, staged):
    assert bool(grouped._top(4096, trees, levels, most=256)) is staged


def test_a_batch_is_sorted_where_subtrees_get_enough_rows():
    tops = [grouped._top(rows, 1, 16, 256) for rows in (10, 100, 200, 1000, 3500, 10**9)]
    assert tops == sorted(tops)
    assert tops[0] == 0
    assert tops[-1] == grouped.MOST_LEVELS_ABOVE


@given(path=narrow_path_problems(), leaf=narrow_leaf_problems())
def test_the_bits_are_those_of_the_row_kernels_with_narrow_weights(path, leaf):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouped, "NODES_PER_ROW", 0)
        patch.setattr(grouped, "LEAST_LEVELS_ABOVE", 2)
        patch.setattr(grouped, "ROWS_IN_SUBTREE", 1)
        for one, other in zip(
            (run_infer(grouped, path[0]), *run_logits(grouped, path[0])),
            (run_infer(rowwise, path[0]), *run_logits(rowwise, path[0])),
            strict=True,
        ):
            np.testing.assert_array_equal(one, other)
        assert_same_bits_of_leaves(leaf[0])


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
@pytest.mark.parametrize(("width_in", "width_out", "trees"), [(96, 96, 1), (50, 33, 2)])
def test_narrow_weights_give_the_same_bits_in_large_batches(width_in, width_out, trees, weights):
    """In batches that are grouped, and shared by all threads, and in others."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((701, width_in)).astype(np.float32)
    path = FastFeedForward(width_in, width_out, 5, trees, rng=rng).quantize(weights)
    leaf = LeafFeedForward(width_in, width_out, 3, 17, rng=rng).quantize(weights)
    for layer, run in ((path, "path_infer"), (leaf, "leaf_infer")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jit, "MIN_PARALLEL_WORK", 1)
            outputs = []
            for backend, rows in ((rowwise, 701), (grouped, 701), (grouped, 5), (grouped, 1)):
                y = np.empty((rows, width_out), np.float32)
                getattr(backend, run)(y, x[:rows], *layer._weights, layer._activation)
                outputs.append(y)
        assert np.isfinite(outputs[0]).all()
        for y in outputs[1:]:
            np.testing.assert_array_equal(y, outputs[0][: len(y)])
