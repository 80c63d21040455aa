"""Gradients have the same bits however the rows are cut into blocks, and by whatever threads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu import FastFeedForward
from fffcpu.errors import ArgumentError
from fffcpu.kernels import blocks, jit
from fffcpu.kernels.backends import grouped
from fffcpu.system.pool import POOL
from fffcpu.testing.conformance.calls import run_backward, run_choices, run_forward
from fffcpu.testing.strategies import path_problems


def gradients(problem):
    """All that the two functions write, with routes that learn."""
    _, logits, nodes = run_forward(grouped, problem)
    d_logits = run_choices(grouped, problem, logits, nodes)
    dx, grads = run_backward(grouped, problem, logits, nodes, d_logits)
    return d_logits, dx, *grads.values()


@given(
    problem=path_problems(max_rows=40),
    block_rows=st.sampled_from([1, 7, 16]),
    threads=st.sampled_from([1, 2]),
)
def test_the_bits_are_those_of_one_block(problem, block_rows, threads):
    whole = gradients(problem)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "MAX_BLOCK_ROWS", block_rows)
        patch.setattr(jit, "MIN_PARALLEL_WORK", 1)
        patch.setattr(POOL, "threads", min(threads, POOL.threads))
        for one, other in zip(gradients(problem), whole, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_cache_whose_paths_end_early_harms_no_memory(depth):
    """The last nodes of a path that was tampered with lie anywhere in the tree."""
    layer = FastFeedForward(3, 2, depth, trees=2, rng=0)
    x, dy = np.ones((40, 3), np.float32), np.ones((40, 2), np.float32)
    _, cache = layer.forward(x)
    nodes = cache.nodes.copy()
    nodes[:, :, -1] = np.arange(40)[:, np.newaxis] % layer.params["bias_in"].shape[1]
    dx, grads = layer.backward(dy, cache._replace(nodes=nodes), straight_through=True)
    assert np.abs(dx).max() < 1e3
    assert all(np.abs(grad).max() < 1e3 for grad in grads.values())
    with pytest.raises(ArgumentError, match="must hold nodes of this layer's trees"):
        layer.backward(dy, cache._replace(nodes=nodes - 1))
