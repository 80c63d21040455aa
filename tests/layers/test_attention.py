"""Attention against the formula written out head by head, masks, dropout, gradients."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError
from fffcpu.layers import Attention
from tests.support.finite_differences import check_gradients


def exact(layer, x, mask=None):
    """The output, a head of a sequence at a time."""
    width = layer.config.head_width
    y = np.empty_like(x)
    for b in range(len(x)):
        qkv = x[b] @ layer.params["weights_qkv"].T + layer.params.get("bias_qkv", 0)
        contexts = []
        for head in range(layer.config.heads):
            own = qkv[:, 3 * width * head : 3 * width * (head + 1)]
            q, k, v = own[:, :width], own[:, width : 2 * width], own[:, 2 * width :]
            scores = q @ k.T / math.sqrt(width)
            if mask is not None:
                scores = scores + (1 - mask[b]) * -10000.0
            p = np.exp(scores - scores.max(axis=1, keepdims=True))
            contexts.append(p / p.sum(axis=1, keepdims=True) @ v)
        y[b] = np.concatenate(contexts, axis=1) @ layer.params["weights_out"].T
        y[b] += layer.params.get("bias_out", 0)
    return y


def problem(heads, head_width, shape, seed, bias=False):
    """A layer whose probabilities are far from equal, and rows."""
    rng = np.random.default_rng(seed)
    layer = Attention(heads * head_width, heads, bias=bias, dtype=np.float64, rng=seed)
    layer.params["weights_qkv"][...] *= 20
    for name in ("bias_qkv", "bias_out")[: 2 * bias]:
        layer.params[name][...] = rng.standard_normal(layer.params[name].shape)
    return layer, rng.standard_normal((*shape, heads * head_width)), rng


@given(
    heads=st.integers(1, 3),
    head_width=st.integers(1, 5),
    shape=st.tuples(st.integers(0, 3), st.integers(1, 6)),
    masked=st.booleans(),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_output_and_gradients(heads, head_width, shape, masked, bias, seed):
    layer, x, rng = problem(heads, head_width, shape, seed, bias)
    mask = None
    if masked:
        mask = (rng.random(shape) < 0.6).astype(int)
        mask[:, 0] = 1
    y, cache = layer.forward(x, mask)
    np.testing.assert_allclose(y, exact(layer, x, mask), atol=1e-10)
    np.testing.assert_array_equal(layer(x, mask), y)
    assert cache.probabilities.shape == (shape[0], heads, shape[1], shape[1])
    dy = rng.standard_normal(x.shape)
    dx, grads = layer.backward(dy, cache)
    assert list(grads) == list(layer.params)
    pairs = [(x, dx), *((layer.params[name], grad) for name, grad in grads.items())]
    check_gradients(lambda: (layer(x, mask) * dy).sum(), pairs, seed)


def test_gradients_with_dropout():
    layer, x, rng = problem(2, 3, (3, 5), 0)
    dy = rng.standard_normal(x.shape)
    y, cache = layer.forward(x, None, 0.3, 7)
    assert np.abs(y - layer(x)).max() > 1e-3
    dx, grads = layer.backward(dy, cache)
    pairs = [(x, dx), *((layer.params[name], grad) for name, grad in grads.items())]
    check_gradients(lambda: (layer.forward(x, None, 0.3, 7)[0] * dy).sum(), pairs)


def test_what_is_masked_does_not_count():
    layer, x, rng = problem(2, 4, (2, 6), 0)
    mask = np.array([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
    y = layer(x, mask)
    changed = x.copy()
    changed[0, 4:] = rng.standard_normal((2, 8))
    np.testing.assert_array_equal(layer(changed, mask)[0, :4], y[0, :4])
    np.testing.assert_allclose(y[0, :4], layer(x[:1, :4])[0], atol=1e-12)
    np.testing.assert_array_equal(layer(x, mask.astype(bool)), y)
    np.testing.assert_array_equal(layer(x, np.ones((2, 6))), layer(x))


def test_dropout_of_all_or_nothing():
    layer, x, _ = problem(2, 3, (2, 4), 0)
    y, cache = layer.forward(x, None, 1.0, 0)
    assert not y.any()
    assert not cache.kept.any()
    assert cache.probabilities.all()
    np.testing.assert_array_equal(layer.forward(x, None, 0.0, 0)[0], layer(x))
    with pytest.raises(ArgumentError, match="'dropout' must be"):
        layer.forward(x, None, 1.5)


def test_no_positions():
    layer = Attention(6, 2)
    for shape in ((0, 3, 6), (2, 0, 6)):
        x = np.empty(shape, np.float32)
        y, cache = layer.forward(x)
        dx, grads = layer.backward(y, cache)
        assert y.shape == dx.shape == layer(x).shape == shape
        assert not any(grad.any() for grad in grads.values())


@pytest.mark.slow
def test_inference_keeps_no_probabilities():
    layer = Attention(16, 4, rng=0)
    x = np.zeros((64, 128, 16), np.float32)
    layer(x)  # compiles
    tracemalloc.start()
    layer(x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    sequence = 4 * 128 * 128 * 4
    assert peak < 3 * sequence + 6 * x.nbytes < 64 * sequence


def test_initial_values():
    layer = Attention(96, 4, rng=0)
    for array in layer.params.values():
        assert abs(array.std() - 0.02) < 0.001


def test_wrong_arguments_are_errors():
    layer = Attention(6, 2)
    x = np.ones((2, 3, 6))
    with pytest.raises(ShapeError, match=r"'x' must have shape \(batch, sequence, 6\), got shape"):
        layer(x[0])
    with pytest.raises(ShapeError, match=r"'attention_mask' must have shape \(2, 3\), got shape"):
        layer(x, np.ones((2, 4)))
    message = r"'attention_mask' must hold only 0 and 1, got 0.5 at index \(1, 2\)"
    with pytest.raises(ArgumentError, match=message):
        layer(x, [[0, 0, 1], [1, 1, 0.5]])
    with pytest.raises(ArgumentError, match="'heads' must divide the width 6, got 4"):
        Attention(6, 4)
    _, cache = layer.forward(x)
    with pytest.raises(ArgumentTypeError, match="'cache' must be the AttentionCache"):
        layer.backward(x, ())
    with pytest.raises(ShapeError, match="'cache' must be one that forward of this layer returned"):
        Attention(6, 3).backward(x, cache)
    with pytest.raises(ShapeError, match="'dy' must have the shape of the output"):
        layer.backward(x[:1], cache)


def test_a_mask_may_lie_in_any_order_of_memory():
    layer = Attention(6, 2, rng=0)
    x = np.random.default_rng(0).standard_normal((3, 4, 6)).astype(np.float32)
    mask = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]])
    expected = layer(x, mask)
    for other in (np.asfortranarray(mask), np.repeat(mask, 2, axis=1)[:, ::2], mask.T.copy().T):
        assert np.array_equal(layer(x, other), expected)
        assert np.array_equal(layer.forward(x, other)[0], expected)
