"""Row operations of an encoder and its products, in plain NumPy: always available.

All arrays are C-contiguous and of one dtype, float32 or float64, unless another type is given.
`fffcpu.kernels.encoder.fused` has the same functions, compiled.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.config.layers import NO_ACTIVATION
from fffcpu.kernels.backends import vectorized
from fffcpu.lowbit import LARGEST

__all__ = [
    "activate",
    "add_layer_norm",
    "add_rows",
    "attention",
    "attention_backward",
    "backpropagate",
    "cross_entropy",
    "feed_forward",
    "hidden_layer",
    "integer_matrix",
    "layer_norm",
    "layer_norm_backward",
    "matmul",
    "project",
]

Array = NDArray[Any]


def activate(s: Array, activation: int) -> Array:
    """Return the activation of every number of rows.

    Parameters
    ----------
    s : array of shape (B, W)
        Input. It is not changed.
    activation : int
        Code of `fffcpu.config.Activation`.

    Returns
    -------
    array of shape (B, W)
        Activations; NaN for numbers that are not finite.
    """
    return vectorized.activate(s, activation)


def backpropagate(delta: Array, s: Array, activation: int) -> None:
    """Multiply ``delta`` by the derivatives of the activation.

    Parameters
    ----------
    delta : array of shape (B, W), changed
        Gradients of the activations, which become gradients of ``s``.
    s : array of shape (B, W)
        Input of the activation.
    activation : int
        Code of `fffcpu.config.Activation`.
    """
    delta *= vectorized.activate_gradient(s, activation)


def layer_norm(out: Array, moments: Array, x: Array, scale: Array, bias: Array, eps: float) -> None:
    """Write the layer norm of rows; ``out`` may be ``x``.

    Parameters
    ----------
    out : array of shape (B, D), written
        ``(x - mean) / sqrt(variance + eps) * scale + bias``, with the moments of each row.
    moments : array of shape (B, 2), written
        Mean and ``1 / sqrt(variance + eps)``.
    x : array of shape (B, D)
    scale, bias : arrays of shape (D,)
    eps : float
    """
    mean = x.mean(axis=1, keepdims=True)
    np.subtract(x, mean, out=out)
    variance = np.square(out).mean(axis=1, keepdims=True)
    inverse = 1 / np.sqrt(variance + x.dtype.type(eps))
    moments[:, 0], moments[:, 1] = mean[:, 0], inverse[:, 0]
    out *= inverse
    out *= scale
    out += bias


def add_layer_norm(y: Array, x: Array, shift: Array, scale: Array, bias: Array, eps: float) -> None:
    """Write the layer norm of a sum of rows over one of them.

    Parameters
    ----------
    y : array of shape (B, D), changed
        Rows, which become the `layer_norm` of ``(y + shift) + x``.
    x : array of shape (B, D)
    shift : array of shape (D,), or of shape (0,) for none
    scale, bias : arrays of shape (D,)
    eps : float
    """
    if len(shift):
        y += shift
    y += x
    layer_norm(y, np.empty((len(y), 2), y.dtype), y, scale, bias, eps)


def layer_norm_backward(
    dx: Array, dy: Array, moments: Array, x: Array, scale: Array
) -> tuple[Array, Array]:
    """Write and return the gradients of `layer_norm`; ``dx`` may be ``dy``.

    Parameters
    ----------
    dx : array of shape (B, D), written
    dy : array of shape (B, D)
    moments : array of shape (B, 2)
        Moments that `layer_norm` wrote.
    x : array of shape (B, D)
    scale : array of shape (D,)

    Returns
    -------
    d_scale, d_bias : arrays of shape (D,)
    """
    inverse = moments[:, 1:]
    normal = (x - moments[:, :1]) * inverse
    d_scale, d_bias = (dy * normal).sum(axis=0), dy.sum(axis=0)
    d_normal = dy * scale
    product = (d_normal * normal).mean(axis=1, keepdims=True)
    d_normal -= d_normal.mean(axis=1, keepdims=True)
    d_normal -= normal * product
    np.multiply(d_normal, inverse, out=dx)
    return d_scale, d_bias


def attention(
    context: Array,
    probabilities: Array,
    qkv: Array,
    penalties: Array,
    kept: NDArray[np.bool_],
    share: float,
) -> None:
    """Write the context of every position, from queries, keys and values.

    There are B sequences of S positions and A heads of width W, so D = A W.

    Parameters
    ----------
    context : array of shape (B S, D), written
        ``p v`` of each head, with ``p = softmax(q k^T / sqrt(W) + penalty)``.
    probabilities : array of shape (B, A, S, S), written
        Probabilities p of the keys for each query, or shape (0, A, S, S) to skip them.
    qkv : array of shape (B S, 3 D)
        Queries, keys and values of one head after the other, W columns each.
    penalties : array of shape (B, S)
        Numbers added to the scores of each key; shape (0, S) for none.
    kept : bool array of shape (B, A, S, S)
        Mask of the probabilities that are kept; the others count as 0. Shape (0, A, S, S) keeps
        all.
    share : float
        Factor of the kept probabilities.
    """
    heads, length = probabilities.shape[1:3]
    queries, keys, values = _split(qkv, heads, length)
    mixed = _by_head(context, heads, length)
    for b in range(len(queries)):  # scores of one sequence at a time
        p = queries[b] @ keys[b].swapaxes(1, 2)
        p *= p.dtype.type(1 / math.sqrt(values.shape[3]))
        if len(penalties):
            p += penalties[b]
        _exponentials(p)
        p /= p.sum(axis=-1, keepdims=True)
        if len(probabilities):
            probabilities[b] = p
        np.matmul(_dropped(p, kept, b, share), values[b], out=mixed[b])


def attention_backward(
    d_qkv: Array,
    d_context: Array,
    probabilities: Array,
    qkv: Array,
    kept: NDArray[np.bool_],
    share: float,
) -> None:
    """Write the gradients of `attention` with respect to queries, keys and values.

    Parameters
    ----------
    d_qkv : array of shape (B S, 3 D), written
    d_context : array of shape (B S, D)
        Gradient of the context.
    probabilities : array of shape (B, A, S, S)
        Probabilities that `attention` wrote.
    qkv, kept, share
        Same arguments as of `attention`.
    """
    heads, length = probabilities.shape[1:3]
    d_queries, d_keys, d_values = _split(d_qkv, heads, length)
    queries, keys, values = _split(qkv, heads, length)
    d_mixed = _by_head(d_context, heads, length)
    for b, p in enumerate(probabilities):
        weights = _dropped(p, kept, b, share)
        np.matmul(weights.swapaxes(1, 2), d_mixed[b], out=d_values[b])
        d_scores = _dropped(d_mixed[b] @ values[b].swapaxes(1, 2), kept, b, share)
        d_scores -= (d_scores * p).sum(axis=2, keepdims=True)
        d_scores *= p
        d_scores *= d_scores.dtype.type(1 / math.sqrt(values.shape[3]))
        np.matmul(d_scores, keys[b], out=d_queries[b])
        np.matmul(d_scores.swapaxes(1, 2), queries[b], out=d_keys[b])


def _split(qkv: Array, heads: int, length: int) -> tuple[Array, Array, Array]:
    """Return views (B, A, S, W) of queries, keys and values."""
    split = qkv.reshape(-1, length, heads, 3, qkv.shape[1] // (3 * heads))
    queries, keys, values = split.transpose(3, 0, 2, 1, 4)
    return queries, keys, values


def _by_head(rows: Array, heads: int, length: int) -> Array:
    """Return a view (B, A, S, W) of rows (B S, D)."""
    return rows.reshape(-1, length, heads, rows.shape[1] // heads).transpose(0, 2, 1, 3)


def _dropped(x: Array, kept: NDArray[np.bool_], b: int, share: float) -> Array:
    """Return numbers of a sequence, with those that are not kept set to 0."""
    return x * kept[b] * x.dtype.type(share) if len(kept) else x


def _exponentials(x: Array) -> None:
    """Replace rows x by exp(x - largest number of the row)."""
    with np.errstate(invalid="ignore", under="ignore"):
        x -= x.max(axis=-1, keepdims=True, initial=-np.inf)
        np.exp(x, out=x)


def cross_entropy(logits: Array, labels: Array) -> float:
    """Return the mean cross-entropy of rows, which are replaced by its gradient.

    Parameters
    ----------
    logits : array of shape (M, C), changed
        Logits, which become ``(softmax - onehot) / M``.
    labels : int64 array of shape (M,)
        Labels from 0 to C - 1.

    Returns
    -------
    float
        Mean of ``-log softmax[label]``; 0 if there are no rows. Sums are computed in float64.
    """
    rows = len(logits)
    if not rows:
        return 0.0
    picked = np.arange(rows), labels
    largest = logits.max(axis=1)
    of_labels = (logits[picked] - largest).astype(np.float64)
    _exponentials(logits)
    totals = logits.sum(axis=1, dtype=np.float64)
    logits /= (totals * rows)[:, np.newaxis].astype(logits.dtype)
    logits[picked] -= logits.dtype.type(1 / rows)
    return float(np.mean(np.log(totals) - of_labels))


def add_rows(table: Array, ids: Array, rows: Array) -> None:
    """Add each of some rows to the row of a table with its id.

    Parameters
    ----------
    table : array of shape (V, D), changed
    ids : int64 array of shape (B,)
        Row numbers from 0 to V - 1, in any order; they may repeat.
    rows : array of shape (B, D)
    """
    if not len(ids):
        return
    order = np.argsort(ids, kind="stable")
    distinct, first = np.unique(ids[order], return_index=True)
    table[distinct] += np.add.reduceat(rows[order], first, axis=0)


def matmul(
    y: Array,
    x: Array,
    weights: Array,
    bias: Array | None = None,
    activation: int = NO_ACTIVATION,
) -> None:
    """Write products of rows with weights, ``y = activation(x weights + bias)``.

    In compiled kernels, a row has the same bits in any batch.

    Parameters
    ----------
    y : array of shape (B, O), written
    x : array of shape (B, I)
        Rows, in any order of memory.
    weights : array of shape (I, O)
        Weights, in any order of memory.
    bias : array of shape (O,), optional
    activation : int
        Code of `fffcpu.config.Activation`, or `NO_ACTIVATION`.
    """
    np.matmul(x, weights, out=y)
    if bias is not None:
        y += bias
    if activation != NO_ACTIVATION:
        y[...] = activate(y, activation)


def hidden_layer(
    y: Array, x: Array, weights_in: Array, bias: Array | None, activation: int, weights_out: Array
) -> None:
    """Write the output of a hidden layer, ``y = activation(x weights_in^T + bias) weights_out``.

    In compiled kernels, a row has the same bits in any batch.

    Parameters
    ----------
    y : array of shape (B, O), written
    x : array of shape (B, I)
    weights_in : array of shape (W, I)
        Input weights, one row per neuron.
    bias : array of shape (W,), optional
    activation : int
        Code of `fffcpu.config.Activation`.
    weights_out : array of shape (W, O)
    """
    hidden = np.empty((len(x), len(weights_in)), y.dtype)
    matmul(hidden, x, weights_in.T, bias, activation)
    matmul(y, hidden, weights_out)


class _IntegerMatrix(NamedTuple):
    """Weights of a product: I inputs and O outputs."""

    weights: Array
    scales: Array
    bias: Array | None


def integer_matrix(weights: Array, scales: Array, bias: Array | None) -> Any:
    """Return the weights of a product as `project` and `feed_forward` take them.

    Parameters
    ----------
    weights : int8 array of shape (O, I)
        Rows of weights, one per output, from -127 to 127.
    scales : float32 array of shape (O,)
    bias : float32 array of shape (O,), optional
    """
    return _IntegerMatrix(weights, scales, bias)


def project(y: Array, x: Array, matrix: Any) -> None:
    """Write the products of rows with a matrix of int8 weights, in float32.

    A row x has the scale ``s``, its largest magnitude / 127, and the numbers ``q = round(x / s)``.
    Then ``y[n] = (sum over k of q[k] w[n, k]) (s scale[n]) + bias[n]``, with an exact sum. The
    output of a row that is not finite is NaN.

    Parameters
    ----------
    y : float32 array of shape (B, O), written
    x : float32 array of shape (B, I)
    matrix : object
        Weights that `integer_matrix` of this module returned.
    """
    weights, scales, bias = matrix
    largest = np.abs(x).max(axis=1, keepdims=True, initial=0)
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        own = np.maximum(largest / np.float32(LARGEST), np.finfo(np.float32).tiny)
        own = np.where(np.isfinite(largest), own, np.float32(np.nan))
        numbers = np.rint(np.where(np.isfinite(own), x, 0) * (np.float32(1) / own))
        # Products of float64 are exact here, and a BLAS has them.
        sums = np.nan_to_num(numbers).astype(np.float64) @ weights.T.astype(np.float64)
        np.multiply(sums.astype(np.float32), own * scales, out=y)
        y += np.float32(0) if bias is None else bias


def feed_forward(y: Array, x: Array, first: Any, activation: int, second: Any) -> None:
    """Write the outputs of a dense feedforward with int8 weights.

    Parameters
    ----------
    y : float32 array of shape (B, O), written
    x : float32 array of shape (B, I)
    first, second : object
        Weights of both products, from `integer_matrix`.
    activation : int
        Code of `fffcpu.config.Activation`.
    """
    logits = np.empty((len(x), len(first.scales)), np.float32)
    project(logits, x, first)
    project(y, activate(logits, activation), second)
