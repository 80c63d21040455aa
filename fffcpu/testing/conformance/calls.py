"""Calls of a backend's functions on a problem, with outputs that hold other numbers before.

An output lies between guards, and a call fails if its function writes to them::

    7 7 ... 7 | output, full of 7 or of zeros | 7 7 ... 7

Without guards, a compiled kernel that writes past the end would spoil the memory of others, and the
process would crash later and elsewhere.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

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

GUARD = 128
"""Number of elements of each guard: more than a vector, and more than any row of a problem."""


def _output(shape: tuple[int, ...], dtype: DTypeLike, number: int = 7) -> Array:
    """Return an output that is full of a number, between guards."""
    memory = np.full(math.prod(shape) + 2 * GUARD, 7, dtype)
    memory[GUARD:-GUARD] = number
    return memory[GUARD:-GUARD].reshape(shape)


def _check_guards(*outputs: Array) -> None:
    """Assert that the guards of outputs are what they were."""
    for number, output in enumerate(outputs, 1):
        memory: Any = output.base
        for place, guard in (("before", memory[:GUARD]), ("after", memory[-GUARD:])):
            message = f"The kernel also wrote {place} the memory of its output number {number}."
            np.testing.assert_array_equal(guard, 7, err_msg=message)


def _paths(p: PathProblem) -> tuple[Array, Array]:
    """Return outputs for logits and nodes."""
    shape = (len(p.x), len(p.weights_in), p.weights_in.shape[1].bit_length())
    return _output(shape, p.x.dtype), _output(shape, np.int32)


def _outer(p: PathProblem) -> Array:
    """Return the output weights as kernels take them, (T, N, S, O)."""
    return p.weights_out.reshape(*p.weights_in.shape[:2], p.sides, -1)


def run_logits(backend: ModuleType, p: PathProblem) -> tuple[Array, Array]:
    """Return logits and nodes of `path_logits`."""
    logits, nodes = _paths(p)
    backend.path_logits(logits, nodes, p.x, p.weights_in, p.bias_in, p.scale_in)
    _check_guards(logits, nodes)
    return logits, nodes


def run_infer(backend: ModuleType, p: PathProblem, x: Array | None = None) -> Array:
    """Return y of `path_infer`, on the rows ``x`` if they are given, else on the problem's."""
    x = p.x if x is None else x
    y = _output((len(x), p.weights_out.shape[-1]), x.dtype)
    scale_out = p.scale_out
    if scale_out is not None:
        scale_out = scale_out.reshape(*scale_out.shape[:2], p.sides)
    weights = (p.weights_in, p.bias_in, _outer(p))
    backend.path_infer(y, x, *weights, p.scale_in, scale_out, p.code)
    _check_guards(y)
    return y


def run_forward(backend: ModuleType, p: PathProblem) -> tuple[Array, Array, Array]:
    """Return y, logits and nodes of `path_forward`."""
    y, (logits, nodes) = _output(p.dy.shape, p.x.dtype), _paths(p)
    backend.path_forward(y, logits, nodes, p.x, p.weights_in, p.bias_in, _outer(p), p.code)
    _check_guards(y, logits, nodes)
    return y, logits, nodes


def run_choices(backend: ModuleType, p: PathProblem, logits: Array, nodes: Array) -> Array:
    """Return d_logits of `path_choices`."""
    d_logits = _output(logits.shape, logits.dtype)
    weights = (p.weights_in, p.bias_in, _outer(p))
    backend.path_choices(d_logits, p.dy, p.x, logits, nodes, *weights, p.code)
    _check_guards(d_logits)
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
    dx = _output(p.x.shape, p.x.dtype)
    grads = {
        "weights_in": _output(p.weights_in.shape, p.x.dtype, 0),
        "bias_in": _output(p.weights_in.shape[:2], p.x.dtype, 0),
        "weights_out": _output(p.weights_out.shape, p.x.dtype, 0),
    }
    trees, count, _ = p.weights_in.shape
    rows = [grad.reshape(trees * count, *grad.shape[2:]) for grad in grads.values()]
    rows[2] = rows[2].reshape(trees * count, p.sides, -1)
    places = np.arange(trees * count)
    paths = (p.dy, p.x, logits, nodes, d_logits)
    backend.path_backward(dx, *rows, *paths, places, p.weights_in, _outer(p), p.code)
    _check_guards(dx, *rows)
    return dx, grads


def run_backward_rows(
    backend: ModuleType, p: PathProblem, logits: Array, nodes: Array, places: Array, rows: int
) -> tuple[Array, list[Array]]:
    """Return dx and the gradients of the visited nodes alone, in the rows given by ``places``."""
    dx = _output(p.x.shape, p.x.dtype)
    shapes = ((rows, p.x.shape[1]), (rows,), (rows, p.sides, p.dy.shape[1]))
    grads = [_output(shape, p.x.dtype, 0) for shape in shapes]
    paths = (p.dy, p.x, logits, nodes, _no_choices(logits))
    backend.path_backward(dx, *grads, *paths, places, p.weights_in, _outer(p), p.code)
    _check_guards(dx, *grads)
    grads[2] = grads[2].reshape(rows, *p.weights_out.shape[2:])
    return dx, grads


def _no_choices(logits: Array) -> Array:
    """Return the gradients of logits by choices for constant routes: an empty array."""
    return np.zeros((*logits.shape[:2], 0), logits.dtype)


def run_leaf(backend: ModuleType, p: LeafProblem, x: Array | None = None) -> tuple[Array, Array]:
    """Return leaves of `leaf_route` and y of `leaf_infer`."""
    x = p.x if x is None else x
    leaves, y = _output((len(x),), np.int32), _output((len(x), p.dy.shape[1]), x.dtype)
    backend.leaf_route(leaves, x, p.params["gate_weights"], p.params["gate_bias"])
    _check_guards(leaves)
    backend.leaf_infer(y, x, *LeafWeights.of(p.params), p.code)
    _check_guards(y)
    return leaves, y
