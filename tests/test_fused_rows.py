"""Rows of an encoder, compiled (`fused_rows`) and plain (`plain_rows`), against formulas."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.config import Activation
from fffcpu.kernels import fused_rows, jit, plain_rows, vectorized
from fffcpu.kernels.pool import POOL

MODULES = pytest.mark.parametrize("module", [fused_rows, plain_rows], ids=["fused", "plain"])
DTYPES = st.sampled_from([np.float32, np.float64])
ROWS = st.integers(0, 9)
WIDTHS = st.integers(1, 70)
SEEDS = st.integers(0, 2**32 - 1)


def assert_close(actual, expected, factor=1.0):
    """Assert agreement up to some roundings of numbers as large as the largest, or 1."""
    scale = max(1.0, np.abs(expected).max(initial=0.0))
    error = np.abs(actual - expected).max(initial=0.0)
    assert error <= 40 * factor * np.finfo(actual.dtype).eps * scale


def normal(seed, *shape, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def exact_layer_norm(x, scale, bias, eps):
    x = x.astype(np.float64)
    centred = x - x.mean(axis=1, keepdims=True)
    variance = (centred**2).mean(axis=1, keepdims=True)
    return centred / np.sqrt(variance + eps) * scale + bias


def exact_softmax(scores):
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_both_modules_have_the_same_functions():
    assert fused_rows.__all__ == plain_rows.__all__
    for name in plain_rows.__all__:
        plain, fused = getattr(plain_rows, name), getattr(fused_rows, name)
        assert inspect.signature(plain) == inspect.signature(fused)


@MODULES
@given(rows=ROWS, width=WIDTHS, dtype=DTYPES, seed=SEEDS, shift=st.floats(-3, 3))
def test_layer_norm(module, rows, width, dtype, seed, shift):
    x = normal(seed, rows, width, dtype=dtype) + dtype(shift)
    scale, bias = normal(seed + 1, 2, width, dtype=dtype)
    out, moments = np.empty_like(x), np.empty((rows, 2), dtype)
    module.layer_norm(out, moments, x, scale, bias, 0.5)
    assert_close(out, exact_layer_norm(x, scale, bias, 0.5))
    assert_close(moments[:, 0], x.astype(np.float64).mean(axis=1))
    variance = x.astype(np.float64).var(axis=1)
    assert_close(moments[:, 1], 1 / np.sqrt(variance + 0.5))
    module.layer_norm(x, moments, x, scale, bias, 0.5)
    np.testing.assert_array_equal(x, out)


@MODULES
def test_layer_norm_of_a_constant_row_is_the_bias(module):
    x, bias = np.full((2, 20), 3.0), np.arange(20.0)
    module.layer_norm(x, np.empty((2, 2)), x, np.ones(20), bias, 1e-12)
    np.testing.assert_array_equal(x, [bias, bias])


@MODULES
@given(rows=st.sampled_from([0, 1, 5, 64, 130]), width=WIDTHS, dtype=DTYPES, seed=SEEDS)
def test_layer_norm_backward(module, rows, width, dtype, seed):
    x, dy = normal(seed, 2, rows, width, dtype=dtype)
    scale = normal(seed + 1, width, dtype=dtype)
    moments = np.empty((rows, 2), dtype)
    module.layer_norm(np.empty_like(x), moments, x, scale, scale, 0.5)
    dx = np.empty_like(x)
    d_scale, d_bias = module.layer_norm_backward(dx, dy, moments, x, scale)
    mean, inverse = moments.astype(np.float64)[:, np.newaxis].transpose(2, 0, 1)
    n, g = (x - mean) * inverse, dy.astype(np.float64) * scale
    product = (g * n).mean(axis=1, keepdims=True)
    assert_close(dx, (g - g.mean(axis=1, keepdims=True) - n * product) * inverse)
    assert_close(d_scale, (dy * n).sum(axis=0), 4)
    assert_close(d_bias, dy.astype(np.float64).sum(axis=0), 4)
    module.layer_norm_backward(dy, dy, moments, x, scale)
    np.testing.assert_array_equal(dy, dx)


@MODULES
@given(
    groups=st.integers(0, 4),
    rows_each=st.integers(1, 4),
    width=WIDTHS,
    dtype=DTYPES,
    seed=SEEDS,
    scale=st.floats(0.05, 2),
    masked=st.booleans(),
)
def test_softmax(module, groups, rows_each, width, dtype, seed, scale, masked):
    scores = 3 * normal(seed, groups * rows_each, width, dtype=dtype)
    penalties = np.zeros((groups if masked else 0, width), dtype)
    if masked:
        drawn = np.random.default_rng(seed).random(penalties.shape) < 0.5
        penalties[drawn] = -10000
    each = np.repeat(penalties, rows_each, axis=0) if masked else 0
    expected = exact_softmax(scores.astype(np.float64) * scale + each)
    module.softmax(scores, penalties, scale, rows_each)
    # A row of penalties only loses the digits of its scores to them.
    lost = masked and groups and penalties.max(axis=1).min() < 0
    assert_close(scores, expected, 500 if lost else 1)
    if masked and not lost:
        assert not scores[each < 0].any()


@MODULES
def test_softmax_of_numbers_far_apart(module):
    scores = np.array([[1e4, 0, -1e4], [-np.inf, 5, 5], [np.nan, 0, 0]])
    module.softmax(scores, np.empty((0, 3)), 1.0, 1)
    np.testing.assert_array_equal(scores[:2], [[1, 0, 0], [0, 0.5, 0.5]])
    assert np.isnan(scores[2]).all()


@MODULES
@given(rows=ROWS, width=WIDTHS, dtype=DTYPES, seed=SEEDS)
def test_softmax_backward(module, rows, width, dtype, seed):
    d, p = normal(seed, 2, rows, width, dtype=dtype)
    p = exact_softmax(p).astype(dtype) if rows else p
    mean = (d.astype(np.float64) * p).sum(axis=1, keepdims=True)
    expected = p * (d - mean) * 0.3
    module.softmax_backward(d, p, 0.3)
    assert_close(d, expected)


@MODULES
@given(rows=ROWS, classes=st.integers(1, 1100), dtype=DTYPES, seed=SEEDS)
def test_cross_entropy(module, rows, classes, dtype, seed):
    logits = 3 * normal(seed, rows, classes, dtype=dtype)
    labels = np.random.default_rng(seed).integers(0, classes, rows)
    p = exact_softmax(logits.astype(np.float64))
    picked = np.arange(rows), labels
    expected = -np.log(p[picked]).mean() if rows else 0.0
    p[picked] -= 1
    loss = module.cross_entropy(logits, labels)
    assert math.isclose(loss, expected, rel_tol=40 * np.finfo(dtype).eps, abs_tol=1e-6)
    assert_close(logits, p / max(rows, 1))


@MODULES
@given(rows=ROWS, width=WIDTHS, dtype=DTYPES, seed=SEEDS)
def test_rows_are_added_where_they_belong(module, rows, width, dtype, seed):
    ids = np.random.default_rng(seed).integers(0, 4, rows)
    table, added = normal(seed, 4, width, dtype=dtype), normal(seed + 1, rows, width, dtype=dtype)
    expected = table.astype(np.float64)
    np.add.at(expected, ids, added)
    module.add_rows(table, ids, added)
    assert_close(table, expected)


@MODULES
@given(rows=ROWS, width=WIDTHS, dtype=DTYPES, seed=SEEDS)
def test_activations(module, rows, width, dtype, seed):
    s, delta = 2 * normal(seed, 2, rows, width, dtype=dtype)
    slope = vectorized.activate_gradient(s.astype(np.float64), Activation.GELU)
    expected = vectorized.activate(s.astype(np.float64), Activation.GELU)
    assert_close(module.activate(s, int(Activation.GELU)), expected)
    product = delta * slope
    module.backpropagate(delta, s, int(Activation.GELU))
    assert_close(delta, product)


@pytest.mark.slow
def test_threads_do_not_change_a_bit(monkeypatch):
    x, dy = normal(0, 2, 3000, 200)
    scale = normal(1, 200)
    ids = np.random.default_rng(0).integers(0, 50, 3000)
    monkeypatch.setattr(jit, "MIN_PARALLEL_WORK", 1)
    results = []
    for threads in (1, POOL.threads):
        monkeypatch.setattr(POOL, "threads", threads)
        out, moments, dx = np.empty_like(x), np.empty((3000, 2), np.float32), np.empty_like(x)
        fused_rows.layer_norm(out, moments, x, scale, scale, 1e-12)
        sums = fused_rows.layer_norm_backward(dx, dy, moments, x, scale)
        scores, table = x.copy(), np.zeros((50, 200), np.float32)
        fused_rows.softmax(scores, np.empty((0, 200), np.float32), 0.5, 1)
        fused_rows.add_rows(table, ids, dy)
        results.append((out, moments, dx, *sums, scores, table))
    for one, many in zip(*results, strict=True):
        assert one.tobytes() == many.tobytes()


@MODULES
def test_read_only_rows_are_taken(module):
    x = normal(0, 5, 20)
    x.flags.writeable = False
    out, moments = np.empty_like(x), np.empty((5, 2), np.float32)
    module.layer_norm(out, moments, x, np.ones(20, np.float32), np.zeros(20, np.float32), 1e-12)
    module.layer_norm_backward(out, x, moments, x, np.ones(20, np.float32))
    module.softmax_backward(out, x, 1.0)
    module.add_rows(np.zeros((3, 20), np.float32), np.array([0, 2, 2, 1, 0]), x)
    assert module.activate(x, int(Activation.RELU)).min() == 0
