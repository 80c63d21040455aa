"""Initial routes from data: each node separates two clusters of the rows that reach it.

From the root down, the input weights of a node point from one cluster to the other, of two with
equally many rows. They are scaled so that the logits of these rows have a deviation of 1, and the
bias is such that half of the rows go to each side. Output weights keep their random values. So
training begins with routes that follow the shape of the data, and all nodes are used.
docs/benchmarks.md ("What helps trees learn") has the gain.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.layers import FastFeedForward
from fffcpu.layers.layer import product

__all__ = ["between", "halves", "sample_step", "start_from_clusters"]

Array = NDArray[Any]

MOST_ROWS = 30_000
MOST_NUMBERS = 1 << 24
"""Most rows that decide, and most of their numbers: 64 MiB of float32."""

FEWEST_ROWS = 64
"""Nodes that fewer rows reach keep their weights, and so do those below."""

COMBINATIONS = 8
"""Number of random combinations of the inputs."""

ROUNDS = 10
"""Rounds of the search for two clusters."""


def sample_step(rows: int, inputs: int) -> int:
    """Return the distance of the rows to take from a table, so that they are not too many."""
    most = max(FEWEST_ROWS, min(MOST_ROWS, MOST_NUMBERS // inputs))
    return max(1, -(-rows // most))


def start_from_clusters(layer: FastFeedForward, x: Array, rng: np.random.Generator) -> None:
    """Change the initial input weights and biases of a layer.

    Parameters
    ----------
    layer : FastFeedForward
        The layer, which must have biases.
    x : array of shape (R, I)
        Some of the rows to train on, scaled, of the layer's dtype.
    rng : numpy.random.Generator
        Generator of the first clusters, and of what trees see: all but the first find clusters in
        a few random combinations of the inputs, so that trees differ.
    """
    for tree, (weights, bias) in enumerate(
        zip(layer.params["weights_in"], layer.params["bias_in"], strict=True)
    ):
        seen = x
        if tree:
            mixture = rng.standard_normal((x.shape[1], COMBINATIONS), np.float32)
            seen = product(x, mixture.astype(x.dtype, copy=False))
        place = np.zeros(len(x), np.int64)
        for node in range(len(weights)):
            own = np.flatnonzero(place == node)
            if len(own) < FEWEST_ROWS:
                continue
            rows = x[own]
            direction = between(rows, halves(seen[own], rng))
            logits = product(rows, direction[:, np.newaxis])[:, 0]
            deviation, middle = logits.std(), np.median(logits)
            if deviation > 0:  # else all rows are equal
                weights[node], bias[node] = direction / deviation, -middle / deviation
                place[own] = 2 * node + 1 + (logits > middle)


def halves(vectors: Array, rng: np.random.Generator) -> Array:
    """Return which vectors (R, D) are in the second of two clusters, half of them (R,).

    The search starts from two random vectors. Each round cuts all of them in halves by a plane, and
    the next plane is that between the means of the halves.
    """
    first, second = vectors[rng.choice(len(vectors), 2, replace=False)]
    direction = second - first
    for _ in range(ROUNDS):
        places = product(vectors, direction[:, np.newaxis])[:, 0]
        order = np.argsort(places, kind="stable")
        right = np.zeros(len(vectors), bool)
        right[order[len(order) // 2 :]] = True
        direction = between(vectors, right)
    return right


def between(x: Array, right: Array) -> Array:
    """Return the direction from the mean of the other rows to that of those marked ``right``."""
    direction: Array = x[right].mean(axis=0) - x[~right].mean(axis=0)
    return direction
