"""Outputs checked before they are timed, on distinct rows: a wrong result has no speed.

A figure counts only if the output was checked against the plain NumPy backend, on distinct random
rows (`distinct_batches`). The weights of a repeated row are already in the nearest cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fffcpu.benchmarking.roofline import visited_nodes
from fffcpu.config import Activation
from fffcpu.errors import WrongOutputError
from fffcpu.kernels.backends import vectorized
from fffcpu.kernels.weights import LeafWeights, PathWeights
from fffcpu.layers import (
    DenseFeedForward,
    FastFeedForward,
    LeafFeedForward,
    QuantizedFastFeedForward,
)

__all__ = [
    "DISTINCT_ROWS",
    "MARGINS",
    "TOLERANCES",
    "check_close",
    "check_dense",
    "check_leaves",
    "check_paths",
    "distinct_batches",
    "path_arguments",
]

Array = NDArray[Any]

DISTINCT_ROWS = 4096
"""Rows through which small batches cycle. They and the nodes they visit do not fit into L2."""

TOLERANCES = {"float32": 2e-5, "float64": 1e-10}
"""Largest error of an output, relative to the largest value."""

MARGINS = {"float32": 1e-4, "float64": 1e-11}
"""Largest logit, relative to the largest of all, at which a row may take another route."""


def distinct_batches(
    rows: int, width: int, dtype: DTypeLike = np.float32, rng: Any = None
) -> list[Array]:
    """Return random batches to cycle through: `DISTINCT_ROWS` rows or more, in two batches or more.

    Parameters
    ----------
    rows : int
        Rows per batch.
    width : int
        Width of a row.
    dtype : {numpy.float32, numpy.float64}
        Type of the numbers, which are standard normal.
    rng : None, int or numpy.random.Generator
        Source of the numbers.

    Returns
    -------
    list of arrays of shape (rows, width)
        The batches. They have `DISTINCT_ROWS` rows in all, or are two batches of more rows.
    """
    count = max(2, -(-DISTINCT_ROWS // rows))
    kind: Any = np.dtype(dtype).type
    return list(np.random.default_rng(rng).standard_normal((count, rows, width), dtype=kind))


AnyFastFeedForward = FastFeedForward | QuantizedFastFeedForward
"""A FastFeedForward with float weights or narrow ones."""


def path_arguments(layer: AnyFastFeedForward) -> tuple[Any, ...]:
    """Return a layer's arguments of ``path_infer``: its weights, and the code of its activation."""
    return (*PathWeights.of(layer.params), int(Activation.parse(layer.config.activation)))


def check_paths(layer: AnyFastFeedForward, x: Array, y: Array, nodes: Array) -> int:
    """Check an output of FastFeedForward, and its routes, against the plain NumPy backend.

    Parameters
    ----------
    layer : FastFeedForward or QuantizedFastFeedForward
        The layer.
    x : array of shape (B, I)
        Rows, of the layer's dtype.
    y : array of shape (B, O)
        Output to check.
    nodes : int32 array of shape (B, T, L)
        Routes to check.

    Returns
    -------
    int
        Number of leaves, in all trees, that the rows reached.

    Raises
    ------
    WrongOutputError
        If a row took another route although no logit on it was near zero, or if outputs differ on
        equal routes by more than `TOLERANCES`.
    """
    dtype = layer.config.dtype
    expected, logits = np.empty_like(y), np.empty(nodes.shape, dtype)
    routes = np.empty_like(nodes)
    weights = PathWeights.of(layer.params)
    vectorized.path_logits(logits, routes, x, weights.weights_in, weights.bias_in, weights.scale_in)
    vectorized.path_infer(expected, x, *path_arguments(layer))
    same = (nodes == routes).all(axis=(1, 2))
    nearest = np.abs(logits).min(axis=(1, 2))
    wrong = np.flatnonzero(~same & (nearest > MARGINS[dtype] * np.abs(logits).max(initial=0)))
    if len(wrong):
        row = wrong[0]
        tree = (nodes[row] != routes[row]).any(axis=1).argmax()
        raise WrongOutputError(
            f"routes must be those of the plain backend, got {nodes[row, tree].tolist()} instead "
            f"of {routes[row, tree].tolist()} for row {row} in tree {tree}"
        )
    check_close(y[same], expected[same], TOLERANCES[dtype])
    return visited_nodes(nodes[:, :, -1:])


def check_leaves(layer: LeafFeedForward, x: Array, y: Array, leaves: Array) -> int:
    """Check a hard output of LeafFeedForward, and the leaves, against the plain NumPy backend.

    Parameters
    ----------
    layer : LeafFeedForward
        The layer.
    x : array of shape (B, I)
        Rows, of the layer's dtype.
    y : array of shape (B, O)
        Output to check.
    leaves : int32 array of shape (B,)
        Leaves to check.

    Returns
    -------
    int
        Number of leaves that the rows reached.

    Raises
    ------
    WrongOutputError
        If a row reached another leaf although no gate's logit on the way was near zero, or if
        outputs differ at equal leaves by more than `TOLERANCES`.
    """
    dtype, params = layer.config.dtype, layer.params
    code = int(Activation.parse(layer.config.activation))
    expected, reached = np.empty_like(y), np.empty_like(leaves)
    vectorized.leaf_route(reached, x, params["gate_weights"], params["gate_bias"])
    vectorized.leaf_infer(expected, x, *LeafWeights.of(params), code)
    other = np.flatnonzero(leaves != reached)
    logits = x[other] @ params["gate_weights"].T + params["gate_bias"]
    # Gates on the way to a leaf, from it to the root: the parent of node n is (n - 1) // 2.
    way, nearest = reached[other] + logits.shape[1], np.full(len(other), np.inf)
    for _ in range(layer.config.depth):
        way = (way - 1) // 2
        nearest = np.minimum(nearest, np.abs(logits[np.arange(len(other)), way]))
    wrong = other[nearest > MARGINS[dtype] * np.abs(logits).max(initial=0)]
    if len(wrong):
        row = wrong[0]
        raise WrongOutputError(
            f"leaves must be those of the plain backend, got {leaves[row]} instead of "
            f"{reached[row]} for row {row}"
        )
    same = leaves == reached
    check_close(y[same], expected[same], TOLERANCES[dtype])
    return len(np.unique(leaves))


def check_dense(layer: DenseFeedForward, x: Array, y: Array) -> None:
    """Check an output of DenseFeedForward against the plain NumPy backend of FastFeedForward.

    A dense layer equals a FastFeedForward in which every neuron is a tree of depth 0. The check is
    slow, so pass few rows.

    Parameters
    ----------
    layer : DenseFeedForward
        The layer.
    x : array of shape (B, I)
        Rows, of the layer's dtype.
    y : array of shape (B, O)
        Output to check.

    Raises
    ------
    WrongOutputError
        If outputs differ by more than `TOLERANCES`.
    """
    trees = {name: array[:, np.newaxis] for name, array in layer.params.items()}
    equal = FastFeedForward.from_arrays(**trees, activation=layer.config.activation)
    expected = np.empty_like(y)
    vectorized.path_infer(expected, x, *path_arguments(equal))
    check_close(y, expected, TOLERANCES[layer.config.dtype])


def check_close(y: Array, expected: Array, tolerance: float) -> None:
    """Raise unless an output is close to the expected one.

    Parameters
    ----------
    y, expected : arrays of one shape
        Output to check, and that of the plain backend or of another contender.
    tolerance : float
        Largest error allowed, relative to the largest expected value.

    Raises
    ------
    WrongOutputError
        If an error is larger, or NaN, or the shapes differ.
    """
    if y.shape != expected.shape:
        raise WrongOutputError(f"outputs must have shape {expected.shape}, got shape {y.shape}")
    error = float(np.abs(y - expected).max(initial=0))
    largest = float(np.abs(expected).max(initial=0))
    # Written so that NaN fails.
    if not error <= tolerance * largest:
        raise WrongOutputError(
            f"outputs differ from the expected ones, whose largest is {largest:.3g}, by up to "
            f"{error:.3g}; {tolerance * largest:.3g} is allowed"
        )
