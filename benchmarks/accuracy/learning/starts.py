"""Initial weights that fit the rows: each node halves the rows that reach it.

From the root down, the input weights of a node get a direction. They are scaled so that the logits
of the rows that reach the node have a deviation of 1, and the bias is such that half of them are
above 0. These halves reach the children.

    balanced    the direction is the random one that the layer has
    targets     the direction is that of a ridge regression: the inputs predict the leading
                principal component of the targets of these rows. All trees but the first see a
                few random combinations of the targets instead, so that trees differ.
"""

from __future__ import annotations

import numpy as np

from benchmarks.accuracy.learning.recipes import TARGETS
from fffcpu import FastFeedForward

Array = np.ndarray

SAMPLED_ROWS = 30_000
"""Most rows that decide."""

FEWEST_ROWS = 64
"""Nodes that fewer rows reach keep their weights, and so do those below."""

COMBINATIONS = 8
"""Number of random combinations of the targets."""

RIDGE = 50.0
"""Penalty of the regression, in rows of inputs of variance 1."""


def fit_start(
    layer: FastFeedForward, x: Array, y: Array, start: str, rng: np.random.Generator
) -> None:
    """Change the initial input weights and biases.

    Parameters
    ----------
    layer : FastFeedForward
        The layer, with its initial weights.
    x : array of shape (R, I)
        Scaled inputs.
    y : array of shape (R, O) or (R,)
        Targets, or class numbers.
    start : str
        ``balanced`` or ``targets``.
    rng : numpy.random.Generator
        Generator of the sample and of the combinations.
    """
    sample = rng.choice(len(x), min(SAMPLED_ROWS, len(x)), replace=False)
    x = x[sample]
    weights_in, bias_in = layer.params["weights_in"], layer.params["bias_in"]
    targets = vectors_of(y[sample], layer.config.output_dim)
    for tree, (weights, bias) in enumerate(zip(weights_in, bias_in, strict=True)):
        seen = targets
        if tree:
            seen = targets @ rng.standard_normal((targets.shape[1], COMBINATIONS), np.float32)
        place = np.zeros(len(x), np.int64)
        for node in range(len(weights)):
            rows = np.flatnonzero(place == node)
            if len(rows) < FEWEST_ROWS:
                continue
            direction = towards(x[rows], seen[rows]) if start == TARGETS else weights[node]
            logits = x[rows] @ direction
            deviation, middle = logits.std(), np.median(logits)
            if deviation > 0:
                weights[node], bias[node] = direction / deviation, -middle / deviation
                place[rows] = 2 * node + 1 + (logits > middle)


def vectors_of(y: Array, outputs: int) -> Array:
    """Return targets as vectors (R, O): a 1 for the class, if they are classes."""
    return np.eye(outputs, dtype=np.float32)[y] if y.ndim == 1 else y


def towards(x: Array, targets: Array) -> Array:
    """Return the direction of x in which the targets of some rows differ most."""
    x, targets = x - x.mean(axis=0), targets - targets.mean(axis=0)
    leading = np.linalg.eigh(targets.T @ targets).eigenvectors[:, -1]
    penalty = RIDGE * np.eye(x.shape[1], dtype=x.dtype)
    direction: Array = np.linalg.solve(x.T @ x + penalty, x.T @ (targets @ leading))
    return direction
