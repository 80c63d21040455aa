"""The routes of rows in a layer: the leaf of each row, and the logits of the gates on its path.

Shapes: B rows, I input width, T trees, L levels, K leaves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu import kernels
from fffcpu.checks import as_real_array, as_rows, check_integer
from fffcpu.config import FastFeedForwardConfig, LeafFeedForwardConfig
from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError, describe
from fffcpu.kernels.weights import PathWeights
from fffcpu.tree import gate_count, leaf_count

__all__ = ["BLOCK_ROWS", "check_layer", "data_blocks", "decisions", "gates_above", "reached_leaves"]

Array = NDArray[Any]

BLOCK_ROWS = 4096
"""Number of rows that are read together, which bounds the memory."""


def reached_leaves(layer: Any, x: Any, tree: int = 0) -> Array:
    """Return the leaf that each row reaches in one tree.

    Parameters
    ----------
    layer : FastFeedForward, LeafFeedForward or one of the quantized layers
        The layer.
    x : array_like of shape (..., I)
        The rows.
    tree : int
        Number of the tree; 0 in a LeafFeedForward.

    Returns
    -------
    int32 array of shape (...,)
        Leaves, the nodes of the deepest level, from 0 at the left to K - 1 at the right.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or has the wrong type.
    """
    trees, depth = check_layer(layer)
    tree = check_integer("tree", tree, 0, trees - 1)
    route: Array = layer.route(x)
    if isinstance(layer.config, LeafFeedForwardConfig):
        return route
    return route[..., tree, depth] - np.int32(gate_count(depth))


def check_layer(layer: Any) -> tuple[int, int]:
    """Return the number and the depth of a layer's trees, or raise if it has no trees."""
    config = getattr(layer, "config", None)
    if isinstance(config, FastFeedForwardConfig):
        return config.trees, config.depth
    if isinstance(config, LeafFeedForwardConfig):
        return 1, config.depth
    raise ArgumentTypeError(
        f"argument 'layer' must be a FastFeedForward or a LeafFeedForward, got {describe(layer)}"
    )


def data_blocks(layer: Any, data: Any) -> Iterator[Array]:
    """Yield blocks of at most `BLOCK_ROWS` rows, in the form for the layer's kernels."""
    width, dtype = layer.config.input_dim, np.dtype(layer.config.dtype)
    blocks = [data] if hasattr(data, "__array__") else data
    if not isinstance(blocks, Iterable):
        raise ArgumentTypeError(
            f"argument 'data' must be an array of rows or an iterable of such, got {describe(data)}"
        )
    for block in blocks:
        array = as_real_array(block, "data")
        if array.ndim == 0 or array.shape[-1] != width:
            raise ShapeError(
                f"argument 'data' must hold rows of {width} numbers, got shape {array.shape}"
            )
        array = array.reshape(-1, width)
        for start in range(0, len(array), BLOCK_ROWS):
            rows, _ = as_rows(array[start : start + BLOCK_ROWS], "data", width, dtype)
            yield rows


def decisions(layer: Any, rows: Array, first: int = 0) -> tuple[Array, Array]:
    """Return the logits of the gates on the rows' paths (B, T, depth), and their leaves (B, T).

    Raises
    ------
    ArgumentError
        If a logit is not finite. The message counts the rows from ``first``.
    """
    if isinstance(layer.config, LeafFeedForwardConfig):
        leaves = layer.route(rows)[:, np.newaxis]
        logits = _gate_logits(layer, rows, leaves[:, 0])[:, np.newaxis]
    else:
        logits, nodes = path_logits(layer, rows)
        leaves = nodes[..., -1] - np.int32(gate_count(layer.config.depth))
    wrong = np.argwhere(~np.isfinite(logits))
    if len(wrong):
        row, tree, level = wrong[0].tolist()
        raise ArgumentError(
            "argument 'data' must give finite logits on every path, "
            f"got {logits[row, tree, level]} for row {first + row} in tree {tree} at level {level}"
        )
    return logits[..., : layer.config.depth], leaves


def path_logits(layer: Any, rows: Array) -> tuple[Array, Array]:
    """Return the logits and nodes (B, T, L) that the layer's kernels compute."""
    config, weights = layer.config, PathWeights.of(layer.params)
    shape = (len(rows), config.trees, config.depth + 1)
    logits, nodes = np.empty(shape, rows.dtype), np.empty(shape, np.int32)
    backend = kernels.choose(len(rows), weights.weights_in)
    backend.path_logits(logits, nodes, rows, weights.weights_in, weights.bias_in, weights.scale_in)
    return logits, nodes


def _gate_logits(layer: Any, rows: Array, leaves: Array) -> Array:
    """Return the logits (B, depth) of the gates above each row's leaf."""
    weights, bias = layer.params["gate_weights"], layer.params["gate_bias"]
    logits = np.empty((len(rows), layer.config.depth), rows.dtype)
    for level, gates in enumerate(gates_above(leaves, layer.config.depth).T):
        logits[:, level] = np.einsum("bi,bi->b", rows, weights[gates]) + bias[gates]
    return logits


def gates_above(leaves: Array, depth: int) -> Array:
    """Return the gates on the paths from the root to leaves (B,), of shape (B, depth)."""
    counted_from_1 = leaves[:, np.newaxis] + leaf_count(depth)
    return (counted_from_1 >> np.arange(depth, 0, -1)) - 1
