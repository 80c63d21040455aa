"""The oracle: both layers in float64, every neuron computed and then masked.

Nothing here is fast, and nothing is imported from fffcpu, so an error goes undetected only if it
is made twice. Trees are numbered as the papers do: the children of node n are 2n + 1 and 2n + 2.

Output weights of shape (T, N, O) are one-sided: a node adds ``act(s) * weights_out[t, n]``. Those
of shape (T, N, 2, O) are two-sided: it adds ``act(|s|)`` times its row for the left or right side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

__all__ = [
    "Leaf",
    "Mixture",
    "Path",
    "activate",
    "activate_gradient",
    "choice_gradients",
    "leaf",
    "logit_gradients",
    "mixture",
    "path",
    "path_gradients",
]

Array = NDArray[Any]
Gradients = dict[str, Array]
"""Gradients by the names of their parameters."""


def activate(s: ArrayLike, activation: str) -> Array:
    """Return the activation. A logit that is not finite gives NaN."""
    s = np.asarray(s, np.float64)
    with np.errstate(invalid="ignore"):
        if activation == "gelu":
            result = 0.5 * s * special.erfc(-s / math.sqrt(2))
        elif activation == "relu":
            result = np.where(s > 0, s, 0.0)
        else:
            result = s
    return np.where(np.isfinite(s), result, np.nan)


def activate_gradient(s: ArrayLike, activation: str) -> Array:
    """Return the derivative of the activation."""
    s = np.asarray(s, np.float64)
    if activation == "gelu":
        density = np.exp(-(s**2) / 2) / math.sqrt(2 * math.pi)
        gradient: Array = 0.5 * special.erfc(-s / math.sqrt(2)) + s * density
        return gradient
    return np.where(s > 0, 1.0, 0.0) if activation == "relu" else np.ones_like(s)


class Path(NamedTuple):
    """Result of the dense computation of a FastFeedForward layer."""

    y: Array  # (B, O)
    logits: Array  # (B, T, N), of every node
    mask: Array  # (B, T, N), True for visited nodes
    nodes: Array  # (B, T, L)
    margin: Array  # (B,) the smallest |logit| that decided a turn, or on a side


def path(
    x: ArrayLike,
    weights_in: ArrayLike,
    bias_in: ArrayLike | None,
    weights_out: ArrayLike,
    activation: str = "gelu",
) -> Path:
    """Compute all N neurons of every tree, mask those off the path, and sum the rest."""
    two_sided = np.ndim(weights_out) == 4
    x, weights_in = np.asarray(x, np.float64), np.asarray(weights_in, np.float64)
    weights_out = np.asarray(weights_out, np.float64)
    (rows, _), (trees, count, _) = x.shape, weights_in.shape
    with np.errstate(invalid="ignore"):
        logits = np.einsum("bi,tni->btn", x, weights_in)
    if bias_in is not None:
        logits = logits + np.asarray(bias_in, np.float64)
    levels = int(math.log2(count + 1))
    mask = np.zeros((rows, trees, count), bool)
    nodes = np.zeros((rows, trees, levels), int)
    margin = np.full(rows, np.inf)
    for row in range(rows):
        for tree in range(trees):
            node = 0
            for level in range(levels):
                nodes[row, tree, level] = node
                mask[row, tree, node] = True
                logit = logits[row, tree, node]
                if level < levels - 1 or two_sided:
                    margin[row] = min(margin[row], abs(logit))
                node = 2 * node + 2 if logit > 0 else 2 * node + 1
    with np.errstate(invalid="ignore"):
        if two_sided:
            left, right = _sides(logits)
            active = np.where(mask, activate(np.abs(logits), activation), 0.0)
            y = np.einsum("btn,tno->bo", active * left, weights_out[:, :, 0])
            y += np.einsum("btn,tno->bo", active * right, weights_out[:, :, 1])
        else:
            active = np.where(mask, activate(logits, activation), 0.0)
            y = np.einsum("btn,tno->bo", active, weights_out)
    return Path(y, logits, mask, nodes, margin)


def _sides(logits: Array) -> tuple[Array, Array]:
    """Return 1 where a node sends its row left, else 0; and the same for right."""
    right = (logits > 0).astype(np.float64)
    return 1.0 - right, right


def path_gradients(
    x: ArrayLike,
    weights_in: ArrayLike,
    bias_in: ArrayLike | None,
    weights_out: ArrayLike,
    dy: ArrayLike,
    activation: str = "gelu",
) -> tuple[Array, Gradients]:
    """Return gradients of ``sum(y * dy)`` with constant routes, through the dense masked layer."""
    result = path(x, weights_in, bias_in, weights_out, activation)
    x, weights_in, weights_out, dy = (
        np.asarray(array, np.float64) for array in (x, weights_in, weights_out, dy)
    )
    if weights_out.ndim == 4:
        size = np.abs(result.logits)
        active = activate(size, activation) * result.mask
        slope = activate_gradient(size, activation) * np.sign(result.logits) * result.mask
        d_active, d_weights_out = 0.0, np.empty_like(weights_out)
        for side, taken in enumerate(_sides(result.logits)):
            d_active = d_active + np.einsum("bo,tno->btn", dy, weights_out[:, :, side]) * taken
            d_weights_out[:, :, side] = np.einsum("btn,bo->tno", active * taken, dy)
    else:
        active = activate(result.logits, activation) * result.mask
        slope = activate_gradient(result.logits, activation) * result.mask
        d_active = np.einsum("bo,tno->btn", dy, weights_out)
        d_weights_out = np.einsum("btn,bo->tno", active, dy)
    d_logits = d_active * slope
    grads = {"weights_in": np.einsum("btn,bi->tni", d_logits, x), "weights_out": d_weights_out}
    if bias_in is not None:
        grads["bias_in"] = d_logits.sum(axis=0)
    return np.einsum("btn,tni->bi", d_logits, weights_in), grads


def choice_gradients(
    x: ArrayLike,
    weights_in: ArrayLike,
    bias_in: ArrayLike | None,
    weights_out: ArrayLike,
    dy: ArrayLike,
    activation: str = "gelu",
) -> tuple[Array, Array]:
    """Return gradients of the visited logits by their choices (B, T, L), and margins (B,).

    Such a gradient is the value of the right side less that of the left one, times the normal
    density at the logit. The value of a side is what the row adds to ``sum(y * dy)`` from the child
    on, and in two-sided trees also at the node itself. The values of all nodes of all trees are
    computed.
    """
    result = path(x, weights_in, bias_in, weights_out, activation)
    weights_out, dy = np.asarray(weights_out, np.float64), np.asarray(dy, np.float64)
    if weights_out.ndim == 4:
        active = activate(np.abs(result.logits), activation)
        lefts, rights = (
            active * np.einsum("bo,tno->btn", dy, weights_out[:, :, side]) for side in (0, 1)
        )
        deciding = result.logits.shape[2]
    else:
        active = activate(result.logits, activation)
        lefts = rights = active * np.einsum("bo,tno->btn", dy, weights_out)
        deciding = result.logits.shape[2] // 2
    value, worth = np.zeros_like(active), np.zeros_like(active)
    for node in reversed(range(active.shape[2])):
        left, right = lefts[..., node], rights[..., node]
        if 2 * node + 2 < active.shape[2]:
            left, right = left + value[..., 2 * node + 1], right + value[..., 2 * node + 2]
        worth[..., node] = right - left
        value[..., node] = np.where(result.logits[..., node] > 0, right, left)
    margin = np.abs(result.logits[..., :deciding]).min(axis=(1, 2), initial=np.inf)
    worth *= np.exp(-(result.logits**2) / 2) / math.sqrt(2 * math.pi)
    return np.take_along_axis(worth, result.nodes, axis=2), margin


def logit_gradients(
    x: ArrayLike, weights_in: ArrayLike, nodes: Array, d_logits: Array
) -> tuple[Array, Gradients]:
    """Return the gradients that follow from those of the visited logits (B, T, L) alone."""
    x, weights_in = np.asarray(x, np.float64), np.asarray(weights_in, np.float64)
    dense = np.zeros((len(x), *weights_in.shape[:2]))
    np.put_along_axis(dense, nodes.astype(np.intp), d_logits, axis=2)
    grads = {"weights_in": np.einsum("btn,bi->tni", dense, x), "bias_in": dense.sum(axis=0)}
    return np.einsum("btn,tni->bi", dense, weights_in), grads


class Leaf(NamedTuple):
    """Result of the dense computation of a LeafFeedForward layer."""

    y: Array  # (B, O)
    leaves: Array  # (B,)
    margin: Array  # (B,) the smallest |logit| of a gate on the way


def _leaf_outputs(x: Array, params: Mapping[str, Array], activation: str) -> Array:
    """Return the output of every leaf for every row, (B, K, O)."""
    hidden = np.einsum("bi,kih->bkh", x, params["leaf_weights_in"]) + params["leaf_bias_in"]
    active = activate(hidden, activation)
    outputs: Array = np.einsum("bkh,kho->bko", active, params["leaf_weights_out"])
    return outputs + params["leaf_bias_out"]


def leaf(x: ArrayLike, params: Mapping[str, Array], activation: str = "relu") -> Leaf:
    """Compute every gate and every leaf, then pick the leaf that each row reaches."""
    x = np.asarray(x, np.float64)
    params = {name: np.asarray(array, np.float64) for name, array in params.items()}
    with np.errstate(invalid="ignore"):
        logits = x @ params["gate_weights"].T + params["gate_bias"]
        outputs = _leaf_outputs(x, params, activation)
    gates = logits.shape[1]
    leaves, margin = np.zeros(len(x), int), np.full(len(x), np.inf)
    y = np.zeros((len(x), outputs.shape[2]))
    for row in range(len(x)):
        node, finite = 0, True
        while node < gates:
            logit = logits[row, node]
            finite = finite and math.isfinite(logit)
            margin[row] = min(margin[row], abs(logit))
            node = 2 * node + 2 if logit >= 0 else 2 * node + 1
        leaves[row] = node - gates
        y[row] = outputs[row, leaves[row]] if finite else np.nan
    return Leaf(y, leaves, margin)


class Mixture(NamedTuple):
    """Result of the soft computation of a LeafFeedForward layer."""

    y: Array  # (B, O)
    entropies: Array  # (G,)
    gate_usage: Array  # (G,)
    leaf_usage: Array  # (K,)


def mixture(
    x: ArrayLike,
    params: Mapping[str, Array],
    activation: str = "relu",
    flips: Array | None = None,
    hardened: bool = False,
) -> Mixture:
    """Weight every leaf by the product of the choices on the way to it.

    ``flips`` (B, G) is True where a choice is reversed.
    """
    x = np.asarray(x, np.float64)
    params = {name: np.asarray(array, np.float64) for name, array in params.items()}
    logits = x @ params["gate_weights"].T + params["gate_bias"]
    p = special.expit(logits)
    right = (logits >= 0).astype(float) if hardened else p
    if flips is not None:
        p = np.where(flips, 1 - p, p)
        right = np.where(flips, 1 - right, right)
    rows, gates = p.shape
    reach = np.ones((rows, 2 * gates + 1))
    for gate in range(gates):
        reach[:, 2 * gate + 1] = reach[:, gate] * (1 - right[:, gate])
        reach[:, 2 * gate + 2] = reach[:, gate] * right[:, gate]
    weights = reach[:, gates:]
    y = np.einsum("bk,bko->bo", weights, _leaf_outputs(x, params, activation))
    p = np.clip(p, 1e-6, 1 - 1e-6)
    entropies = -(p * np.log(p) + (1 - p) * np.log(1 - p)).sum(axis=0) / max(1, rows)
    return Mixture(y, entropies, reach[:, :gates].sum(axis=0), weights.sum(axis=0))
