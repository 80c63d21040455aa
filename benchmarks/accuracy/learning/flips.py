"""Dropout of choices: in training, a row now and then takes the other side of a node.

A row that is flipped at a node goes on as if the logit s had the other sign: it gets
``act(|s|) * weights_out[n, other side]``, and enters the other subtree. So sides and subtrees also
learn from rows that would not reach them. The gradient of a choice needs no change: it is what the
right side gives less what the left side gives, whichever was taken, times the density at s, which
is the same at -s. In inference nothing is flipped.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.accuracy.learning.recipes import Recipe
from benchmarks.accuracy.learning.routes import Routed, activation_of, choices, gradients
from fffcpu import FastFeedForward, kernels
from fffcpu.kernels.weights import PathWeights
from fffcpu.layers.fast_feed_forward import PathCache

Array = np.ndarray


class Flipped(Routed):
    """A two-sided FastFeedForward that flips choices in training."""

    def __init__(self, layer: FastFeedForward, recipe: Recipe, rng: np.random.Generator) -> None:
        super().__init__(layer, recipe)
        self._rng = rng

    def forward(self, x: Array, fraction: float) -> tuple[Array, Any]:
        """Return the output, and what `backward` needs."""
        trees, levels = self._recipe.trees, self._recipe.depth + 1
        flips = self._rng.random((len(x), trees, levels)) < self._recipe.flips
        y, paths = flipped_forward(self.layer, x, flips)
        return y, (paths, flips)

    def backward(self, dy: Array, cache: Any, fraction: float) -> dict[str, Any]:
        """Return the gradients of the parameters."""
        return flipped_backward(self.layer, dy, *cache)


def flipped_forward(layer: FastFeedForward, x: Array, flips: Array) -> tuple[Array, PathCache]:
    """Return the output (B, O), and the paths of rows that are flipped at some nodes.

    The logits of the paths have the sign of the side that was taken, so all that is computed from
    them is that of the path, but for the sign of their own gradient.
    """
    weights_in, bias_in, weights_out = PathWeights.of(layer.params).trained
    logits, nodes = np.empty(flips.shape, x.dtype), np.empty(flips.shape, np.int32)
    trees = np.arange(flips.shape[1])
    node = np.zeros(flips.shape[:2], np.int32)
    y = np.zeros((len(x), weights_out.shape[3]), x.dtype)
    encoder, activation = kernels.selection().encoder, activation_of(layer)
    for level in range(flips.shape[2]):
        s = np.einsum("btk,bk->bt", weights_in[trees, node], x) + bias_in[trees, node]
        taken = np.where(flips[:, :, level], -s, s)
        right = taken > 0
        active = encoder.activate(np.abs(s), activation)
        y += np.einsum("bt,btk->bk", active, weights_out[trees, node, right.astype(np.intp)])
        logits[:, :, level], nodes[:, :, level] = taken, node
        node = 2 * node + 1 + right
    return y, PathCache(x, logits, nodes, (len(x),))


def flipped_backward(
    layer: FastFeedForward, dy: Array, paths: PathCache, flips: Array
) -> dict[str, Array]:
    """Return the gradients of the parameters."""
    d_logits = choices(layer, dy, paths)
    # Kernels add d_active act'(|s|) sign(s) with the sign of the side taken. Where a row was
    # flipped, that sign is wrong, and twice the right term makes up for it.
    rows, trees, levels = np.nonzero(flips)
    nodes, taken = paths.nodes[rows, trees, levels], paths.logits[rows, trees, levels]
    weights_out = layer.params["weights_out"][trees, nodes, (taken > 0).astype(np.intp)]
    slopes = np.einsum("rk,rk->r", weights_out, dy[rows])[np.newaxis]
    magnitudes = np.abs(taken)[np.newaxis]
    kernels.selection().encoder.backpropagate(slopes, magnitudes, activation_of(layer))
    d_logits[rows, trees, levels] -= 2.0 * np.sign(taken) * slopes[0]
    return gradients(layer, dy, paths, d_logits)
