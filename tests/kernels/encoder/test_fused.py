"""Rows of an encoder, compiled (`fused`) and plain (`plain`), against formulas."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.config import Activation
from fffcpu.kernels import jit
from fffcpu.kernels.backends import vectorized
from fffcpu.kernels.encoder import fused
from fffcpu.kernels.encoder import vectorized as plain
from fffcpu.system.pool import POOL

MODULES = pytest.mark.parametrize("module", [fused, plain], ids=["fused", "plain"])
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
    assert fused.__all__ == plain.__all__
    for name in plain.__all__:
        ours, theirs = getattr(fused, name), getattr(plain, name)
        assert inspect.signature(ours) == inspect.signature(theirs)


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
@given(rows=ROWS, width=WIDTHS, dtype=DTYPES, seed=SEEDS, shifted=st.booleans())
def test_add_layer_norm_has_the_bits_of_sums_and_a_layer_norm(
    module, rows, width, dtype, seed, shifted
):
    x, y = normal(seed, 2, rows, width, dtype=dtype)
    scale, bias, shift = normal(seed + 1, 3, width, dtype=dtype)
    if not shifted:
        shift = shift[:0]
    total = (y + shift if shifted else y) + x
    module.layer_norm(total, np.empty((rows, 2), dtype), total, scale, bias, 0.5)
    for array in (x, shift):
        array.flags.writeable = False
    module.add_layer_norm(y, x, shift, scale, bias, 0.5)
    np.testing.assert_array_equal(y, total)


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


def attention_problem(batch, heads, length, width, dtype, seed, masked, dropped):
    """Arguments of attention but for the outputs, and the gradient of the context."""
    qkv = 2 * normal(seed, batch * length, 3 * heads * width, dtype=dtype)
    upstream = normal(seed + 1, batch * length, heads * width, dtype=dtype)
    rng = np.random.default_rng(seed)
    penalties = np.zeros((batch if masked else 0, length), dtype)
    penalties[:, 1:][rng.random((len(penalties), length - 1)) < 0.5] = -10000
    kept = rng.random((batch if dropped else 0, heads, length, length)) < 0.6
    return qkv, penalties, kept, 1 / 0.6 if dropped else 1.0, upstream


def exact_attention(qkv, penalties, kept, share, upstream, heads):
    """Context, probabilities and the gradient of qkv in float64, head by head."""
    total = upstream.shape[1]
    length, width = kept.shape[2], total // heads
    batch = len(qkv) // length
    context, d_qkv = np.empty(upstream.shape), np.empty(qkv.shape)
    probabilities = np.empty((batch, heads, length, length))
    for b in range(batch):
        rows = slice(b * length, (b + 1) * length)
        for head in range(heads):
            columns = [slice((3 * head + k) * width, (3 * head + k + 1) * width) for k in range(3)]
            q, k, v = (qkv[rows, own].astype(np.float64) for own in columns)
            mixed = slice(head * width, (head + 1) * width)
            d_mixed = upstream[rows, mixed].astype(np.float64)
            penalty = penalties[b] if len(penalties) else 0
            p = exact_softmax(q @ k.T / math.sqrt(width) + penalty)
            factors = kept[b, head] * share if len(kept) else 1
            dp = d_mixed @ v.T * factors
            ds = p * (dp - (p * dp).sum(axis=1, keepdims=True)) / math.sqrt(width)
            probabilities[b, head], context[rows, mixed] = p, p * factors @ v
            gradients = ds @ k, ds.T @ q, (p * factors).T @ d_mixed
            for own, gradient in zip(columns, gradients, strict=True):
                d_qkv[rows, own] = gradient
    return context, probabilities, d_qkv


@MODULES
@given(
    batch=st.integers(0, 2),
    heads=st.integers(1, 2),
    length=st.integers(1, 18) | st.integers(31, 35),
    width=st.sampled_from([1, 3, 8, 16, 17, 33]),
    dtype=DTYPES,
    seed=SEEDS,
    masked=st.booleans(),
    dropped=st.booleans(),
)
def test_attention(module, batch, heads, length, width, dtype, seed, masked, dropped):
    sizes = (batch, heads, length, width)
    *given, upstream = attention_problem(*sizes, dtype, seed, masked, dropped)
    context, p, d_qkv = exact_attention(*given, upstream, heads)
    found, found_p = np.empty_like(upstream), np.empty(p.shape, dtype)
    module.attention(found, found_p, *given)
    assert_close(found, context, 10)
    assert_close(found_p, p, 10)
    assert not found_p[p == 0].any()
    nowhere, again = np.empty((0, *p.shape[1:]), dtype), np.empty_like(upstream)
    module.attention(again, nowhere, *given)
    assert again.tobytes() == found.tobytes()
    qkv, _, kept, share = given
    gradient = np.empty_like(qkv)
    module.attention_backward(gradient, upstream, found_p, qkv, kept, share)
    assert_close(gradient, d_qkv, 40)


@MODULES
def test_attention_of_numbers_far_apart(module):
    qkv = np.zeros((6, 3))
    qkv[:3] = [[1, 1e4, 1], [0, 0, 2], [-1, -1e4, 4]]  # queries, keys and values of one column
    qkv[3, 0] = np.nan
    context, p = np.empty((6, 1)), np.empty((2, 1, 3, 3))
    none = np.empty((0, 1, 3, 3), bool)
    module.attention(context, p, qkv, np.empty((0, 3)), none, 1.0)
    np.testing.assert_array_equal(p[0, 0], [[1, 0, 0], [1 / 3] * 3, [0, 0, 1]])
    np.testing.assert_allclose(context[:3, 0], [1, 7 / 3, 4], rtol=1e-15)
    assert np.isnan(p[1, 0, 0]).all()
    assert np.isfinite(p[1, 0, 1:]).all()  # what is NaN stays in its row


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
        fused.layer_norm(out, moments, x, scale, scale, 1e-12)
        sums = fused.layer_norm_backward(dx, dy, moments, x, scale)
        total = dy.copy()
        fused.add_layer_norm(total, x, scale, scale, scale, 1e-12)
        table = np.zeros((50, 200), np.float32)
        fused.add_rows(table, ids, dy)
        *given, upstream = attention_problem(3, 5, 40, 24, np.float32, 0, True, True)
        context, d_qkv = np.empty_like(upstream), np.empty_like(given[0])
        p = np.empty(given[2].shape, np.float32)
        fused.attention(context, p, *given)
        fused.attention_backward(d_qkv, upstream, p, given[0], *given[2:])
        results.append((out, moments, dx, *sums, total, table, context, p, d_qkv))
    for one, many in zip(*results, strict=True):
        assert one.tobytes() == many.tobytes()


@MODULES
def test_read_only_rows_are_taken(module):
    x = normal(0, 5, 20)
    x.flags.writeable = False
    out, moments = np.empty_like(x), np.empty((5, 2), np.float32)
    module.layer_norm(out, moments, x, np.ones(20, np.float32), np.zeros(20, np.float32), 1e-12)
    module.layer_norm_backward(out, x, moments, x, np.ones(20, np.float32))
    p, none = np.empty((1, 4, 5, 5), np.float32), np.empty((0, 4, 5, 5), bool)
    qkv = np.concatenate([x] * 3, axis=1)
    module.attention(out, p, qkv, np.empty((0, 5), np.float32), none, 1.0)
    p.flags.writeable = qkv.flags.writeable = False
    module.attention_backward(np.empty((5, 60), np.float32), x, p, qkv, none, 1.0)
    module.add_rows(np.zeros((3, 20), np.float32), np.array([0, 2, 2, 1, 0]), x)
    assert module.activate(x, int(Activation.RELU)).min() == 0
