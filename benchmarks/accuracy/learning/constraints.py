"""What keeps routes in order without a loss of its own: balance, and weights of a fixed length.

balancing      after a batch, the bias of each node moves by a constant small step, so that the
               side to which most rows went gets fewer; the loss has no part in it
fixed norms    before each step the input weights of a node get back their initial norm, so a
               logit grows only if its direction fits the rows better
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.accuracy.learning.recipes import Recipe
from benchmarks.accuracy.learning.routes import Routed
from benchmarks.accuracy.learning.sides import visited_sides
from fffcpu import FastFeedForward
from fffcpu.layers.fast_feed_forward import PathCache

Array = np.ndarray


class Constrained(Routed):
    """A FastFeedForward whose routes are kept in order."""

    def __init__(self, layer: FastFeedForward, recipe: Recipe) -> None:
        super().__init__(layer, recipe)
        self._norms = norms_of(layer)

    def forward(self, x: Array, fraction: float) -> tuple[Array, Any]:
        """Return the output, and what `backward` needs."""
        if self._recipe.fixed_norms:
            self.params["weights_in"][...] *= self._norms / norms_of(self.layer)
        return super().forward(x, fraction)

    def backward(self, dy: Array, cache: Any, fraction: float) -> dict[str, Any]:
        """Return the gradients of the parameters, and move the biases."""
        grads = super().backward(dy, cache, fraction)
        if self._recipe.balancing:
            surplus = surplus_on_the_right(self.layer, cache)
            step = self.params["bias_in"].dtype.type(self._recipe.balancing)
            self.params["bias_in"][...] -= step * np.sign(surplus)
        return grads


def norms_of(layer: FastFeedForward) -> Array:
    """Return the norms of the input weights of nodes (T, N, 1)."""
    norms: Array = np.linalg.norm(layer.params["weights_in"], axis=2, keepdims=True)
    return norms


def surplus_on_the_right(layer: FastFeedForward, cache: PathCache) -> Array:
    """Return how many more rows went right than left at each node (T, N)."""
    counts = np.asarray(visited_sides(layer, cache).sum(axis=0))
    left, right = np.moveaxis(counts.reshape(*layer.params["bias_in"].shape, 2), -1, 0)
    surplus: Array = right - left
    return surplus
