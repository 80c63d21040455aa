"""Initial weights that fit the rows: each node halves the rows that reach it.

From the root down, the input weights of a node get a direction. They are scaled so that the logits
of the rows that reach the node have a deviation of 1, and the bias is such that half of them are
above 0. These halves reach the children.

    balanced    the direction is the random one that the layer has
    targets     the direction is that of a ridge regression: the inputs predict the leading
                principal component of the targets of these rows
    clusters    the direction leads from one cluster of these rows to another, of two; it is what
                fffcpu.recipes.starts does

With targets, trees would be equal. So all trees but the first see a few random combinations of the
targets instead.

If the targets are outputs of a feedforward, its neurons can tell where rows should go. Each node
halves a set of them by two clusters of the directions of their input weights, starting with all at
the root; other trees start from other clusters. Then the direction of a node leads

    neurons     from the mean of the input weights of one half to that of the other
    norms       to where the right half gives an output of a larger norm than the left one, by a
                ridge regression of the difference of the norms, as "Exploiting Activation Sparsity
                with Dense to Dynamic-k Mixture-of-Experts Conversion" (arXiv 2310.04361) trains
                its routers
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from benchmarks.accuracy.learning.recipes import BALANCED, CLUSTERS, NEURONS, TARGETS
from benchmarks.accuracy.learning.sets import Rows
from benchmarks.data.bert import Neurons, gelu
from fffcpu import FastFeedForward
from fffcpu.recipes.starts import halves, start_from_clusters

Array = np.ndarray

Direction = Callable[[int, Array], Array]
"""Maps a node, and the numbers of the rows that reach it, to its input weights (I,)."""

SAMPLED_ROWS = 30_000
"""Most rows that decide."""

FEWEST_ROWS = 64
"""Nodes that fewer rows reach keep their weights, and so do those below."""

COMBINATIONS = 8
"""Number of random combinations of the targets."""

RIDGE = 50.0
"""Penalty of the regression, in rows of inputs of variance 1."""


def fit_start(layer: FastFeedForward, rows: Rows, start: str, rng: np.random.Generator) -> None:
    """Change the initial input weights and biases.

    Parameters
    ----------
    layer : FastFeedForward
        The layer, with its initial weights.
    rows : Rows
        The rows to fit.
    start : str
        One of the starts above.
    rng : numpy.random.Generator
        Generator of the sample, of the combinations and of the first clusters.
    """
    sample = rng.choice(len(rows.x), min(SAMPLED_ROWS, len(rows.x)), replace=False)
    few = rows._replace(x=rows.x[sample], y=rows.y[sample])
    if start == CLUSTERS:
        start_from_clusters(layer, few.x, rng)
        return
    weights_in, bias_in = layer.params["weights_in"], layer.params["bias_in"]
    for tree, (weights, bias) in enumerate(zip(weights_in, bias_in, strict=True)):
        direction_of = directions(start, few, weights, tree, rng)
        place = np.zeros(len(few.x), np.int64)
        for node in range(len(weights)):
            own = np.flatnonzero(place == node)
            if len(own) < FEWEST_ROWS:
                continue
            direction = direction_of(node, own)
            logits = few.x[own] @ direction
            deviation, middle = logits.std(), np.median(logits)
            if deviation > 0:
                weights[node], bias[node] = direction / deviation, -middle / deviation
                place[own] = 2 * node + 1 + (logits > middle)


def directions(
    start: str, rows: Rows, weights: Array, tree: int, rng: np.random.Generator
) -> Direction:
    """Return the directions of the nodes of a tree with these initial weights."""
    x = rows.x
    if start == BALANCED:
        return lambda node, own: weights[node]
    if start == TARGETS:
        targets = vectors_of(rows.y, rows.outputs)
        if tree:
            mixture = rng.standard_normal((targets.shape[1], COMBINATIONS), np.float32)
            targets = targets @ mixture
        return lambda node, own: towards(x[own], leading_component(targets[own]))
    assert rows.teacher is not None
    groups = Groups.of(rows.teacher, len(weights), rng)
    if start == NEURONS:
        return lambda node, own: groups.direction(node)
    return lambda node, own: towards(x[own], groups.difference_of_norms(node, x[own]))


def vectors_of(y: Array, outputs: int) -> Array:
    """Return targets as vectors (R, O): a 1 for the class, if they are classes."""
    return np.eye(outputs, dtype=np.float32)[y] if y.ndim == 1 else y


def leading_component(targets: Array) -> Array:
    """Return the leading principal component (R,) of targets (R, O)."""
    targets = targets - targets.mean(axis=0)
    component: Array = targets @ np.linalg.eigh(targets.T @ targets).eigenvectors[:, -1]
    return component


def towards(x: Array, values: Array) -> Array:
    """Return the direction of x (R, I) in which values (R,) grow, by ridge regression."""
    x, values = x - x.mean(axis=0), values - values.mean()
    penalty = RIDGE * np.eye(x.shape[1], dtype=x.dtype)
    direction: Array = np.linalg.solve(x.T @ x + penalty, x.T @ values)
    return direction


class Groups(NamedTuple):
    """The neurons of a teacher, in two groups for each node of a tree."""

    teacher: Neurons
    members: list[tuple[Array, Array]]
    """The numbers of the neurons on the left and on the right of each node, in heap order."""

    @classmethod
    def of(cls, teacher: Neurons, count: int, rng: np.random.Generator) -> Groups:
        """Halve the neurons, and the halves again, for a tree of ``count`` nodes."""
        lengths = np.linalg.norm(teacher.weights_in, axis=1, keepdims=True)
        vectors = teacher.weights_in / lengths
        pending, members = [np.arange(len(vectors))], []
        for node in range(count):
            own = pending[node]
            if len(own) < 2:
                raise ValueError(f"{len(vectors)} neurons must be two for each of {count} nodes")
            right = halves(vectors[own], rng)
            members.append((own[~right], own[right]))
            pending += members[-1]
        return cls(teacher, members)

    def direction(self, node: int) -> Array:
        """Return the direction from the input weights on the left to those on the right."""
        left, right = (self.teacher.weights_in[own].mean(axis=0) for own in self.members[node])
        difference: Array = right - left
        return difference

    def difference_of_norms(self, node: int, x: Array) -> Array:
        """Return how much longer the output of the right group is for rows, (R,)."""
        left, right = (self._norms(own, x) for own in self.members[node])
        difference: Array = right - left
        return difference

    def _norms(self, own: Array, x: Array) -> Array:
        """Return the norms (R,) of the outputs of some neurons for rows."""
        weights_in, bias_in, weights_out = (array[own] for array in self.teacher)
        outputs = gelu(x @ weights_in.T + bias_in) @ weights_out
        norms: Array = np.linalg.norm(outputs, axis=1)
        return norms
