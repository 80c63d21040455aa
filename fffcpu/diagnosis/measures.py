"""Counts of rows on their way through a layer: the usage report, and the mean row of a leaf."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.checks import check_integer, check_number
from fffcpu.config import LeafFeedForwardConfig
from fffcpu.diagnosis.report import UsageReport
from fffcpu.diagnosis.routes import check_layer, data_blocks, decisions, gates_above, reached_leaves
from fffcpu.diagnosis.usage import TreeUsage
from fffcpu.errors import ArgumentError
from fffcpu.tree import gate_count, leaf_count

__all__ = ["diagnose", "leaf_means"]

Array = NDArray[Any]


def diagnose(layer: Any, data: Any, *, margin: float = 0.01) -> UsageReport:
    """Count the rows at each node of a layer's trees, and measure how well the trees are used.

    Parameters
    ----------
    layer : FastFeedForward, LeafFeedForward or one of the quantized layers
        The layer, as it routes at inference.
    data : array_like of shape (..., I), or iterable of such blocks
        The rows. Blocks are read one after the other, and large arrays in pieces, so that memory
        is bounded.
    margin : float
        Decisions with ``|logit| < margin`` are near ties: small changes of weights or input may
        flip them.

    Returns
    -------
    UsageReport
        The report. It depends neither on the division into blocks nor, up to rounding, on the
        order of the rows.

    Raises
    ------
    ArgumentError
        If there is no row, or a logit is not finite.
    ShapeError, ArgumentTypeError
        If an argument has the wrong type, or the rows do not have the layer's input width.

    Examples
    --------
    >>> import numpy as np
    >>> from fffcpu import FastFeedForward
    >>> from fffcpu.diagnosis import diagnose
    >>> layer = FastFeedForward.from_arrays(np.ones((1, 3, 1)), np.ones((1, 3, 1)))
    >>> report = diagnose(layer, np.array([[-1.0], [1.0], [2.0], [3.0]]))
    >>> report.visits.tolist()
    [[4, 1, 3]]
    >>> report.trees[0].largest_share
    0.75
    """
    margin = check_number("margin", margin, 0)
    trees, depth = check_layer(layer)
    soft = isinstance(layer.config, LeafFeedForwardConfig)
    leaf_visits = np.zeros((trees, leaf_count(depth)), np.int64)
    ties = np.zeros((trees, depth), np.int64)
    entropies = np.zeros(gate_count(depth)) if soft else None
    for rows in data_blocks(layer, data):
        logits, leaves = decisions(layer, rows, int(leaf_visits[0].sum()))
        for tree in range(trees):
            leaf_visits[tree] += np.bincount(leaves[:, tree], minlength=leaf_visits.shape[1])
        ties += np.count_nonzero(np.abs(logits) < margin, axis=0)
        if entropies is not None:
            gates = gates_above(leaves[:, 0], depth)
            entropy = _choice_entropy(logits[:, 0].astype(np.float64))
            entropies += np.bincount(gates.ravel(), entropy.ravel(), len(entropies))
    visits = _sum_upwards(leaf_visits)
    if not visits[0, 0]:
        raise ArgumentError("argument 'data' must have at least one row, got none")
    if entropies is not None:
        gate_visits = visits[0, : len(entropies)]
        entropies = np.where(gate_visits > 0, entropies / np.maximum(gate_visits, 1), np.nan)
    return UsageReport(
        kind=layer.config.kind,
        margin=margin,
        trees=tuple(
            TreeUsage(tree, visits[tree], ties[tree] / visits[tree, 0], entropies)
            for tree in range(trees)
        ),
    )


def leaf_means(layer: Any, data: Any, leaves: Sequence[int], tree: int = 0) -> Array:
    """Return the mean of the rows that reach each of some leaves.

    Parameters
    ----------
    layer : FastFeedForward, LeafFeedForward or one of the quantized layers
        The layer.
    data : array_like of shape (..., I), or iterable of such blocks
        The rows, as for `diagnose`.
    leaves : sequence of int
        Leaves, from 0 at the left to K - 1 at the right.
    tree : int
        Number of the tree; 0 in a LeafFeedForward.

    Returns
    -------
    float64 array of shape (len(leaves), I)
        The means; NaN for a leaf that no row reaches.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or has the wrong type.
    """
    _, depth = check_layer(layer)
    wanted = [check_integer("leaves", leaf, 0, leaf_count(depth) - 1) for leaf in leaves]
    sums = np.zeros((len(wanted), layer.config.input_dim))
    counts = np.zeros((len(wanted), 1))
    for rows in data_blocks(layer, data):
        reached = reached_leaves(layer, rows, tree)
        for i, leaf in enumerate(wanted):
            chosen = rows[reached == leaf]
            sums[i] += chosen.sum(axis=0, dtype=np.float64)
            counts[i] += len(chosen)
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def _sum_upwards(leaf_visits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the visits of all nodes (T, N): a gate has the sum of its children's."""
    levels = [leaf_visits]
    while levels[0].shape[1] > 1:
        levels.insert(0, levels[0][:, 0::2] + levels[0][:, 1::2])
    return np.concatenate(levels, axis=1)


def _choice_entropy(logits: Array) -> Array:
    """Return the entropy of a choice with probability sigmoid(logit), in nats.

    With a = |logit| it is ``log(1 + exp(-a)) + a / (1 + exp(a))``, which needs no clipping.
    """
    size = np.abs(logits)
    small = np.exp(-size)
    entropy: Array = np.log1p(small) + size * small / (1 + small)
    return entropy
