"""What an encoder does to rows beside matrix products, in plain NumPy: always there.

All arrays are C-contiguous and of one dtype, float32 or float64, save where a type is named.
`fffcpu.kernels.fused_rows` has the same functions, compiled.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.kernels import vectorized

__all__ = [
    "activate",
    "add_rows",
    "backpropagate",
    "cross_entropy",
    "layer_norm",
    "layer_norm_backward",
    "softmax",
    "softmax_backward",
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


def softmax(scores: Array, penalties: Array, scale: float, rows_each: int) -> None:
    """Softmax of rows, in their place.

    Parameters
    ----------
    scores : array of shape (B, S), changed
        Multiplied by ``scale`` first.
    penalties : array of shape (B / rows_each, S), or (0, S)
        Added next, each row of them to so many rows of the scores; none if there is none.
    scale : float
    rows_each : int
    """
    scores *= scores.dtype.type(scale)
    if len(penalties):
        scores.reshape(len(penalties), rows_each, -1)[...] += penalties[:, np.newaxis]
    _exponentials(scores)
    scores /= scores.sum(axis=1, keepdims=True)


def _exponentials(x: Array) -> None:
    """Write the exponentials of rows less their largest numbers in their place."""
    with np.errstate(invalid="ignore", under="ignore"):
        x -= x.max(axis=1, keepdims=True, initial=-np.inf)
        np.exp(x, out=x)


def softmax_backward(d_scores: Array, probabilities: Array, scale: float) -> None:
    """Turn gradients by probabilities into gradients by scores, in their place.

    Parameters
    ----------
    d_scores : array of shape (B, S), changed
        ``p (d - sum of p d) scale``, with probabilities p and gradients d of one row.
    probabilities : array of shape (B, S)
        From `softmax`.
    scale : float
    """
    d_scores -= np.einsum("bs,bs->b", d_scores, probabilities)[:, np.newaxis]
    d_scores *= probabilities
    d_scores *= d_scores.dtype.type(scale)


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
