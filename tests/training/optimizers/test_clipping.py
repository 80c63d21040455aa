"""Clipping against PyTorch, and what it makes of norms and layouts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.training import clip_gradients
from fffcpu.training.optimizers import blocks
from tests.support.optimizers import (
    DTYPES,
    LAYOUTS,
    SEEDS,
    assert_same,
    copies,
    random_arrays,
    read_only,
    row_sparse_run,
)


def test_clipping_agrees_with_pytorch():
    grads = {"a": np.array([[1.0, -2.0], [3.0, 0.5]]), "b": np.array([0.25, 4.0, -1.0])}
    # torch.nn.utils.clip_grad_norm_, PyTorch 2.13, float64
    assert clip_gradients(grads, 0.5) == pytest.approx(5.595757321399848, rel=1e-15)
    ref_a = [[0.08935339435369304, -0.17870678870738607], [0.2680601830610791, 0.04467669717684652]]
    np.testing.assert_allclose(grads["a"], ref_a, rtol=1e-14)
    ref_b = [0.02233834858842326, 0.35741357741477214, -0.08935339435369304]
    np.testing.assert_allclose(grads["b"], ref_b, rtol=1e-14)


@given(SEEDS, st.just(0.0) | st.floats(1e-6, 20.0), st.sampled_from([1e-3, 1.0, 1e3]), DTYPES)
def test_clipping_bounds_the_norm_and_keeps_the_direction(seed, max_norm, scale, dtype):
    grads = random_arrays(np.random.default_rng(seed), dtype)
    for grad in grads.values():
        grad *= scale
    before, objects = copies(grads), dict(grads)
    norm = clip_gradients(grads, max_norm)

    joint = np.concatenate([grad.ravel().astype(np.float64) for grad in before.values()])
    clipped = np.concatenate([grad.ravel().astype(np.float64) for grad in grads.values()])
    rounding = 4 * np.finfo(dtype).eps
    assert type(norm) is float
    assert norm == pytest.approx(np.linalg.norm(joint), rel=1e-13)
    assert np.linalg.norm(clipped) <= max_norm * (1 + rounding)
    factor = min(1.0, max_norm / (norm + 1e-6))
    np.testing.assert_allclose(clipped, joint * factor, rtol=rounding, atol=0)
    assert all(grads[name] is array for name, array in objects.items())
    if factor == 1.0:
        assert_same(grads, before)


def test_float32_squares_do_not_overflow():
    grads = {"w": np.full(4, 1e30, np.float32)}
    assert clip_gradients(grads, 1.0) == pytest.approx(2e30, rel=1e-6)
    np.testing.assert_allclose(grads["w"], 0.5, rtol=1e-6)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_gradients_without_a_finite_norm_are_left(number):
    grads = {"w": np.array([1.0, number]), "b": np.array([5.0])}
    before = copies(grads)
    assert not math.isfinite(clip_gradients(grads, 1.0))
    assert_same(grads, before)


def test_norm_beyond_float64_is_infinite_without_a_warning():
    assert clip_gradients({"w": np.array([1e200, 1.0])}, 1.0) == math.inf


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_clipping_of_any_layout(layout, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 7)
    array = np.random.default_rng(17).normal(size=(4, 5, 3))
    grads = {"w": layout(array)}
    norm = clip_gradients(grads, 1.0)
    assert norm == pytest.approx(np.linalg.norm(array), rel=1e-14)
    np.testing.assert_allclose(grads["w"], array / (norm + 1e-6), rtol=1e-14)


def test_no_gradients_have_no_norm():
    assert clip_gradients({}, 1.0) == 0.0
    assert clip_gradients({"w": np.empty((0, 3), np.float32)}, 1.0) == 0.0


@pytest.mark.parametrize(
    ("grads", "max_norm", "error", "message"),
    [
        ({"w": np.ones(2)}, -1.0, ValueError, "'max_norm' must be a number of at least 0, got -1"),
        ({"w": np.ones(2)}, math.nan, ValueError, "'max_norm' must be"),
        ({"w": read_only()}, 1.0, ValueError, "'grads' .* got a read-only one for 'w'"),
        ({"w": np.ones(2, int)}, 1.0, TypeError, "'grads' must hold NumPy arrays of floats"),
        (np.ones(2), 1.0, TypeError, "'grads' must be a mapping"),
    ],
)
def test_clipping_says_what_is_wrong(grads, max_norm, error, message):
    with pytest.raises(error, match=message):
        clip_gradients(grads, max_norm)


@given(seed=st.integers(0, 100), limit=st.floats(0, 3))
def test_row_sparse_gradients_are_clipped_like_dense_ones(seed, limit):
    ((sparse, dense),) = row_sparse_run(seed, 1)
    rest = np.random.default_rng(seed).standard_normal(4)
    grads = {"weights": sparse, "bias": rest.copy()}
    wholes = {"weights": dense, "bias": rest.copy()}
    norm, expected = clip_gradients(grads, limit), clip_gradients(wholes, limit)
    assert np.isclose(norm, expected, rtol=1e-12)
    np.testing.assert_allclose(grads["weights"].dense(), wholes["weights"], rtol=1e-12)
    np.testing.assert_allclose(grads["bias"], wholes["bias"], rtol=1e-12)
