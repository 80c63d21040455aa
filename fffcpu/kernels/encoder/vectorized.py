"""What an encoder does to rows beside matrix products, in plain NumPy: always there.

All arrays are C-contiguous and of one dtype, float32 or float64, save where a type is named.
`fffcpu.kernels.encoder.fused` has the same functions, compiled.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.kernels.backends import vectorized

__all__ = [
    "activate",
    "add_rows",
    "attention",
    "attention_backward",
    "backpropagate",
    "cross_entropy",
    "layer_norm",
    "layer_norm_backward",
]

Array = NDArray[Any]


def activate(s: Array, activation: int) -> Array:
    """Activation of every number of rows.

    Parameters
    ----------
    s : array of shape (B, W)
        Not changed.
    activation : int
        A code of `fffcpu.config.Activation`.

    Returns
    -------
    array of shape (B, W)
        NaN for numbers that are not finite.
    """
    return vectorized.activate(s, activation)


def backpropagate(delta: Array, s: Array, activation: int) -> None:
    """Multiply ``delta`` by the derivatives of the activation.

    Parameters
    ----------
    delta : array of shape (B, W), changed
        Gradients by activations, which become gradients by ``s``.
    s : array of shape (B, W)
        What the activation was taken of.
    activation : int
        A code of `fffcpu.config.Activation`.
    """
    delta *= vectorized.activate_gradient(s, activation)


def layer_norm(out: Array, moments: Array, x: Array, scale: Array, bias: Array, eps: float) -> None:
    """Layer norm of rows; ``out`` may be ``x``.

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


def layer_norm_backward(
    dx: Array, dy: Array, moments: Array, x: Array, scale: Array
) -> tuple[Array, Array]:
    """Gradients of `layer_norm`; ``dx`` may be ``dy``.

    Parameters
    ----------
    dx : array of shape (B, D), written
    dy : array of shape (B, D)
    moments : array of shape (B, 2)
        From `layer_norm`.
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
    """Context of every position, from queries, keys and values.

    For B sequences of S positions and A heads of width W, D = A W in all.

    Parameters
    ----------
    context : array of shape (B S, D), written
        ``p v`` of each head, with ``p = softmax(q k^T / sqrt(W) + penalty)``.
    probabilities : array of shape (B, A, S, S), written
        The probabilities p of the keys for each query. Of shape (0, A, S, S) if nobody wants them.
    qkv : array of shape (B S, 3 D)
        Queries, keys and values of one head after the other, W columns each.
    penalties : array of shape (B, S)
        What is added to the scores of each key; of shape (0, S) for nothing.
    kept : bool array of shape (B, A, S, S)
        Which probabilities v is multiplied by; the others count as 0. Of shape (0, A, S, S) for
        all.
    share : float
        What those that are kept are multiplied by before.
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
    """Gradients of `attention` by queries, keys and values.

    Parameters
    ----------
    d_qkv : array of shape (B S, 3 D), written
    d_context : array of shape (B S, D)
        Gradient by the context.
    probabilities : array of shape (B, A, S, S)
        From `attention`.
    qkv, kept, share
        As `attention` took them.
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
    """Return numbers of a sequence with those dropped that are not kept."""
    return x * kept[b] * x.dtype.type(share) if len(kept) else x


def _exponentials(x: Array) -> None:
    """Write the exponentials of rows less their largest numbers in their place."""
    with np.errstate(invalid="ignore", under="ignore"):
        x -= x.max(axis=-1, keepdims=True, initial=-np.inf)
        np.exp(x, out=x)


def cross_entropy(logits: Array, labels: Array) -> float:
    """Mean cross-entropy of rows, which become its gradient.

    Parameters
    ----------
    logits : array of shape (M, C), changed
        Becomes ``(softmax - onehot) / M``.
    labels : int64 array of shape (M,)
        From 0 to C - 1.

    Returns
    -------
    float
        Mean of ``-log softmax[label]``; 0 if there are no rows. Sums are taken in float64.
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
    """Add each of some rows to the row of a table that its number names.

    Parameters
    ----------
    table : array of shape (V, D), changed
    ids : int64 array of shape (B,)
        From 0 to V - 1, in any order, and as often as may be.
    rows : array of shape (B, D)
    """
    if not len(ids):
        return
    order = np.argsort(ids, kind="stable")
    distinct, first = np.unique(ids[order], return_index=True)
    table[distinct] += np.add.reduceat(rows[order], first, axis=0)
