"""Calls of a backend's functions on a problem, with outputs that hold other numbers before."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.kernels.backends import vectorized
from fffcpu.kernels.weights import LeafWeights
from fffcpu.testing.strategies import LeafProblem, PathProblem

__all__ = [
    "run_backward",
    "run_backward_rows",
    "run_choices",
    "run_forward",
    "run_infer",
    "run_leaf",
    "run_logits",
]

Array = NDArray[Any]


def _outer(p: PathProblem) -> Array:
    """Return the output weights as kernels take them, (T, N, S, O)."""
    return p.weights_out.reshape(*p.weights_in.shape[:2], p.sides, -1)


def run_logits(backend: ModuleType, p: PathProblem) -> tuple[Array, Array]:
    """Return logits and nodes of `path_logits`."""
    shape = (len(p.x), len(p.weights_in), p.weights_in.shape[1].bit_length())
    logits, nodes = np.full(shape, 7, p.x.dtype), np.full(shape, 7, np.int32)
    backend.path_logits(logits, nodes, p.x, p.weights_in, p.bias_in, p.scale_in)
    return logits, nodes


def run_infer(backend: ModuleType, p: PathProblem, x: Array | None = None) -> Array:
    """Return y of `path_infer`, on the rows ``x`` if they are given, else on the problem's."""
    x = p.x if x is None else x
    y = np.full((len(x), p.weights_out.shape[-1]), 7, x.dtype)
    scale_out = p.scale_out
    if scale_out is not None:
        scale_out = scale_out.reshape(*scale_out.shape[:2], p.sides)
    weights = (p.weights_in, p.bias_in, _outer(p))
    backend.path_infer(y, x, *weights, p.scale_in, scale_out, p.code)
    return y


def run_forward(backend: ModuleType, p: PathProblem) -> tuple[Array, Array, Array]:
    """Return y, logits and nodes of `path_forward`. They hold 7 before the call."""
    y, (logits, nodes) = np.full(p.dy.shape, 7, p.x.dtype), run_logits(vectorized, p)
    logits[...], nodes[...] = 7, 7
    backend.path_forward(y, logits, nodes, p.x, p.weights_in, p.bias_in, _outer(p), p.code)
    return y, logits, nodes


def run_choices(backend: ModuleType, p: PathProblem, logits: Array, nodes: Array) -> Array:
    """Return d_logits of `path_choices`."""
    d_logits = np.full_like(logits, 7)
    weights = (p.weights_in, p.bias_in, _outer(p))
    backend.path_choices(d_logits, p.dy, p.x, logits, nodes, *weights, p.code)
    return d_logits


def run_backward(
    backend: ModuleType,
    p: PathProblem,
    logits: Array,
    nodes: Array,
    d_logits: Array | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Return dx and the gradients of all nodes by `path_backward`."""
    d_logits = _no_choices(logits) if d_logits is None else d_logits
    dx = np.full_like(p.x, 7)
    grads = {
        "weights_in": np.zeros_like(p.weights_in),
        "bias_in": np.zeros(p.weights_in.shape[:2], p.x.dtype),
        "weights_out": np.zeros_like(p.weights_out),
    }
    trees, count, _ = p.weights_in.shape
    rows = [grad.reshape(trees * count, *grad.shape[2:]) for grad in grads.values()]
    rows[2] = rows[2].reshape(trees * count, p.sides, -1)
    places = np.arange(trees * count)
    paths = (p.dy, p.x, logits, nodes, d_logits)
    backend.path_backward(dx, *rows, *paths, places, p.weights_in, _outer(p), p.code)
    return dx, grads


def run_backward_rows(
    backend: ModuleType, p: PathProblem, logits: Array, nodes: Array, places: Array, rows: int
) -> tuple[Array, list[Array]]:
    """Return dx and the gradients of the visited nodes alone, in the rows given by ``places``."""
    dx = np.full_like(p.x, 7)
    grads = [
        np.zeros((rows, p.x.shape[1]), p.x.dtype),
        np.zeros(rows, p.x.dtype),
        np.zeros((rows, p.sides, p.dy.shape[1]), p.x.dtype),
    ]
    paths = (p.dy, p.x, logits, nodes, _no_choices(logits))
    backend.path_backward(dx, *grads, *paths, places, p.weights_in, _outer(p), p.code)
    grads[2] = grads[2].reshape(rows, *p.weights_out.shape[2:])
    return dx, grads


def _no_choices(logits: Array) -> Array:
    """Return the gradients of logits by choices for constant routes: an empty array."""
    return np.zeros((*logits.shape[:2], 0), logits.dtype)


def run_leaf(backend: ModuleType, p: LeafProblem, x: Array | None = None) -> tuple[Array, Array]:
    """Return leaves of `leaf_route` and y of `leaf_infer`."""
    x = p.x if x is None else x
    leaves, y = np.full(len(x), 7, np.int32), np.full((len(x), p.dy.shape[1]), 7, x.dtype)
    backend.leaf_route(leaves, x, p.params["gate_weights"], p.params["gate_bias"])
    backend.leaf_infer(y, x, *LeafWeights.of(p.params), p.code)
    return leaves, y
