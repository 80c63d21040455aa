"""Constants of sides: a further row of output weights for each side of a node, without activation.

A two-sided node adds ``act(|s|) * weights_out[n, side]``, which is nothing where s is 0. Here it
also adds ``constants[n, side]``, so that the output jumps where the side changes::

    y += V constants,    d constants = V^T dy        V (B, T N 2): 1 for each visited side, sparse

Routes have a gradient of the constants too. It has the value of a choice between them: the sum of
the constants on the right less that on the left, both down to the last level. It is computed for
all nodes at once, from the last level up.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from benchmarks.accuracy.learning.levels import levels
from benchmarks.accuracy.learning.recipes import NORMAL
from benchmarks.accuracy.learning.routes import choices, density_at, gradients
from fffcpu import FastFeedForward
from fffcpu.layers.fast_feed_forward import PathCache

Array = np.ndarray


class WithConstants:
    """A two-sided FastFeedForward with a constant for each side of each node, 0 at first.

    AdamW trains the constants like output weights, decay included.
    """

    def __init__(self, layer: FastFeedForward) -> None:
        self.layer = layer
        sides, width = layer.config.neurons * 2, layer.config.output_dim
        self.constants = np.zeros((sides, width), layer.config.dtype)
        self.params = {**layer.params, "constants": self.constants}

    def __call__(self, x: Array) -> Array:
        """Return the output (B, O)."""
        return self.forward(x)[0]

    def forward(self, x: Array, fraction: float = 1.0) -> tuple[Array, Any]:
        """Return the output, and what `backward` needs."""
        y, cache = self.layer.forward(x)
        visited = visited_sides(self.layer, cache)
        y += visited @ self.constants
        return y, (cache, visited)

    def backward(self, dy: Array, cache: Any, fraction: float = 1.0) -> dict[str, Array]:
        """Return the gradients of the parameters and of the constants."""
        paths, visited = cache
        d_logits = choices(self.layer, dy, paths)
        d_logits += constant_choices(self.layer, self.constants, dy, paths)
        return {**gradients(self.layer, dy, paths, d_logits), "constants": visited.T @ dy}


def visited_sides(layer: FastFeedForward, cache: PathCache) -> Any:
    """Return a sparse matrix (B, T N 2) of ones for the sides that each row took."""
    rows, trees, levels_of_path = cache.nodes.shape
    count = layer.config.neurons // trees
    first = np.arange(trees)[:, np.newaxis] * count
    sides = 2 * (cache.nodes + first) + (cache.logits > 0)
    starts = np.arange(rows + 1) * (trees * levels_of_path)
    ones = np.ones(sides.size, cache.logits.dtype)
    return csr_matrix((ones, sides.reshape(-1), starts), shape=(rows, trees * count * 2))


def constant_choices(
    layer: FastFeedForward, constants: Array, dy: Array, cache: PathCache
) -> Array:
    """Return the gradients of logits due to choices between constants (B, T, L)."""
    weights_in, bias_in = layer.params["weights_in"], layer.params["bias_in"]
    trees, count, width = weights_in.shape
    shape = (len(dy), trees, count)
    logits = cache.x @ weights_in.reshape(-1, width).T + bias_in.reshape(-1)
    goes_right = logits.reshape(shape) > 0
    # What a row gets from each node on, times dy, if it takes the left or the right side.
    left, right = np.moveaxis((dy @ constants.T).reshape(*shape, 2), -1, 0)
    subtree = np.where(goes_right, right, left)
    for nodes, lefts, rights in reversed(levels(count)):
        left[:, :, nodes] += subtree[:, :, lefts]
        right[:, :, nodes] += subtree[:, :, rights]
        here = (array[:, :, nodes] for array in (goes_right, right, left))
        subtree[:, :, nodes] = np.where(*here)
    values: Array = np.take_along_axis(right - left, cache.nodes.astype(np.intp), axis=2)
    values *= density_at(cache.logits, NORMAL, 1.0)
    return values
