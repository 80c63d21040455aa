"""Gradients of routes with other densities.

A row goes right at a node if its logit s is above 0. `FastFeedForward.backward` takes the
derivative of this choice to be the normal density at s. Here, another density g is put in its
place::

    d_logit = value of the choice  *  density(s)  *  factor g(s) / density(s)
              `---- path_choices of a backend ---'

Of a width w, these are::

    normal         exp(-s^2 / 2 w^2) / (w sqrt(2 pi))
    smooth-step    3/2 / w - 6 s^2 / w^3 for |s| < w/2, else 0     (arXiv 2002.07772)
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from benchmarks.accuracy.learning.recipes import NORMAL, SMOOTH_STEP, Recipe
from fffcpu import FastFeedForward, kernels
from fffcpu.config import Activation
from fffcpu.kernels.weights import PathWeights
from fffcpu.layers.fast_feed_forward import PathCache

Array = np.ndarray


def density_at(s: Array, density: str, width: float) -> Array:
    """Return a density at logits."""
    if density == SMOOTH_STEP:
        inside = np.abs(s) < width / 2
        values: Array = np.where(inside, 1.5 / width - 6.0 * np.square(s) / width**3, 0.0)
    else:
        values = np.exp(-0.5 * np.square(s / width)) / (width * math.sqrt(2.0 * math.pi))
    return values.astype(s.dtype, copy=False)


def width_at(recipe: Recipe, fraction: float) -> float:
    """Return the width of the density after a fraction of the training."""
    if recipe.final_density_width is None:
        return recipe.density_width
    return falling(recipe.density_width, recipe.final_density_width, fraction)


def falling(first: float, last: float, fraction: float) -> float:
    """Return a number that falls, by equal factors, from the first to the last."""
    return float(first * (last / first) ** fraction)


def activation_of(layer: FastFeedForward) -> int:
    """Return the code of a layer's activation, which kernels take."""
    return int(Activation.parse(layer.config.activation))


def choices(layer: FastFeedForward, dy: Array, cache: PathCache) -> Array:
    """Return the gradients of logits due to choices (B, T, L), with the layer's own density."""
    weights = PathWeights.of(layer.params).trained
    d_logits = np.empty_like(cache.logits)
    backend = kernels.choose(len(dy), weights[0])
    paths = (dy, cache.x, cache.logits, cache.nodes)
    backend.path_choices(d_logits, *paths, *weights, activation_of(layer))
    return d_logits


def gradients(
    layer: FastFeedForward, dy: Array, cache: PathCache, d_logits: Array
) -> dict[str, Array]:
    """Return the gradients of the parameters, with given gradients of logits due to choices.

    With those of `choices`, they are those of ``layer.backward(..., straight_through=True)``.
    """
    weights_in, _, weights_out = PathWeights.of(layer.params).trained
    trees, count, width = weights_in.shape
    nodes = trees * count
    grads = {
        "weights_in": np.zeros((nodes, width), dy.dtype),
        "bias_in": np.zeros(nodes, dy.dtype),
        "weights_out": np.zeros((nodes, *weights_out.shape[2:]), dy.dtype),
    }
    kernels.choose(len(dy), weights_in).path_backward(
        np.empty_like(cache.x),
        *grads.values(),
        dy,
        cache.x,
        cache.logits,
        cache.nodes,
        d_logits,
        np.arange(nodes),
        weights_in,
        weights_out,
        activation_of(layer),
    )
    return {name: grads[name].reshape(param.shape) for name, param in layer.params.items()}


class Routed:
    """A FastFeedForward with the gradient of routes of a recipe."""

    def __init__(self, layer: FastFeedForward, recipe: Recipe) -> None:
        self.layer, self.params = layer, layer.params
        self._recipe = recipe
        # As in `fit`: if a batch can visit only a few nodes, gradients hold only those it visited.
        visits = recipe.batch_size * (recipe.depth + 1)
        self._row_sparse = 2 * visits < layer.config.neurons // recipe.trees

    def __call__(self, x: Array) -> Array:
        """Return the output (B, O)."""
        return self.layer(x)

    def forward(self, x: Array, fraction: float) -> tuple[Array, Any]:
        """Return the output, and what `backward` needs."""
        return self.layer.forward(x)

    def backward(self, dy: Array, cache: Any, fraction: float) -> dict[str, Any]:
        """Return the gradients of the parameters."""
        recipe = self._recipe
        if not recipe.reweighs_routes:
            options = {"row_sparse": self._row_sparse, "straight_through": recipe.straight_through}
            return self.layer.backward(dy, cache, **options)[1]
        d_logits = choices(self.layer, dy, cache)
        own = density_at(cache.logits, recipe.density, width_at(recipe, fraction))
        normal = density_at(cache.logits, NORMAL, 1.0)
        # Where the normal density is 0, so is the gradient that it is part of.
        d_logits *= recipe.route_factor * own / np.maximum(normal, np.finfo(normal.dtype).tiny)
        return gradients(self.layer, dy, cache, d_logits)
