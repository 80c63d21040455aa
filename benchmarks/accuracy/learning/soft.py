"""Soft training: all nodes are computed, and a row goes both ways at each, in shares.

Node n of a row has the logit s, and the share p that goes right is logistic in s. With the
temperature t it is about the normal distribution function of s / t::

    p_n = logistic(1.702 s_n / t)        r_0 = 1,  r_left = r_n (1 - p_n),  r_right = r_n p_n

    y = sum over n of  r_n act(|s_n|) ((1 - p_n) left output weights + p_n right output weights)

As t falls, shares become 0 or 1, and y becomes the output of a two-sided FastFeedForward. The
backward pass needs what a row gets from the subtree of n, per share: V_n, from the last level up.

    V_n = act(|s_n|) (mixed weights_n . dy) + (1 - p_n) V_left + p_n V_right
    dp_n = r_n (act(|s_n|) (right weights - left weights) . dy + V_right - V_left)

Shares of nodes far from a row's path are tiny. Below `SMALLEST` they are set to 0: arithmetic with
numbers below the smallest normal one takes many times as long.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit

from benchmarks.accuracy.learning.levels import levels
from benchmarks.accuracy.learning.routes import Routed, activation_of, falling
from fffcpu import FastFeedForward, kernels
from fffcpu.kernels.weights import PathWeights

Array = np.ndarray

STEEPNESS = 1.702
"""With this factor, the logistic function differs from the normal one by less than 0.01."""

SMALLEST = 1e-20


class SoftCache(NamedTuple):
    """What the forward pass keeps for the backward pass."""

    x: Array
    logits: Array
    """Logits of all nodes (B, T N)."""
    active: Array
    """Activations of the magnitudes of the logits (B, T, N)."""
    right: Array
    """Shares that go right (B, T, N)."""
    reach: Array
    """Share of a row that reaches each node (B, T, N)."""
    used: Array
    """Factors of the output weights of each side (B, T N 2)."""
    slope: float
    """Slope of the argument of the logistic function in the logit."""


def flushed(shares: Array) -> Array:
    """Return shares of which the tiny ones are 0."""
    shares[np.abs(shares) < SMALLEST] = 0.0
    return shares


def soft_forward(layer: FastFeedForward, x: Array, temperature: float) -> tuple[Array, SoftCache]:
    """Return the output (B, O) of a two-sided layer that sends rows both ways."""
    weights_in, bias_in, weights_out = PathWeights.of(layer.params).trained
    trees, count, width = weights_in.shape
    shape = (len(x), trees, count)
    logits = x @ weights_in.reshape(-1, width).T + bias_in.reshape(-1)
    encoder, slope = kernels.selection().encoder, STEEPNESS / temperature
    active = encoder.activate(np.abs(logits), activation_of(layer)).reshape(shape)
    right = flushed(expit(slope * logits)).reshape(shape)
    reach = np.ones_like(right)
    for nodes, lefts, rights in levels(count):
        here, onwards = reach[:, :, nodes], right[:, :, nodes]
        reach[:, :, lefts] = flushed(here * (1.0 - onwards))
        reach[:, :, rights] = flushed(here * onwards)
    whole = reach * active
    used = flushed(np.stack((whole * (1.0 - right), whole * right), axis=-1)).reshape(len(x), -1)
    y = used @ weights_out.reshape(used.shape[1], -1)
    return y, SoftCache(x, logits, active, right, reach, used, slope)


def soft_backward(layer: FastFeedForward, dy: Array, cache: SoftCache) -> dict[str, Array]:
    """Return the gradients of the parameters."""
    params = layer.params
    weights_out = params["weights_out"].reshape(cache.used.shape[1], -1)
    # Products of dy with the output weights of both sides, (B, T, N) each.
    left, right = np.moveaxis((dy @ weights_out.T).reshape(*cache.reach.shape, 2), -1, 0)
    mixed = left + cache.right * (right - left)
    subtree = cache.active * mixed
    better = cache.active * (right - left)
    for nodes, lefts, rights in reversed(levels(subtree.shape[2])):
        difference = subtree[:, :, rights] - subtree[:, :, lefts]
        better[:, :, nodes] += difference
        subtree[:, :, nodes] += subtree[:, :, lefts] + cache.right[:, :, nodes] * difference
    d_active = (cache.reach * mixed).reshape(cache.logits.shape)
    magnitudes = np.abs(cache.logits)
    kernels.selection().encoder.backpropagate(d_active, magnitudes, activation_of(layer))
    d_right = cache.reach * better
    d_logits = flushed(d_right * cache.right * (1.0 - cache.right) * cache.slope)
    d_logits = flushed(d_logits.reshape(d_active.shape) + np.sign(cache.logits) * d_active)
    grads = {
        "weights_in": d_logits.T @ cache.x,
        "bias_in": d_logits.sum(axis=0),
        "weights_out": cache.used.T @ dy,
    }
    return {name: grads[name].reshape(param.shape) for name, param in params.items()}


class Annealed(Routed):
    """A two-sided layer whose first steps are soft, at a falling temperature."""

    def forward(self, x: Array, fraction: float) -> tuple[Array, Any]:
        """Return the output, and what `backward` needs."""
        recipe = self._recipe
        if fraction >= recipe.soft_share:
            return super().forward(x, fraction)
        spent = fraction / recipe.soft_share
        temperature = falling(recipe.temperature, recipe.final_temperature, spent)
        return soft_forward(self.layer, x, temperature)

    def backward(self, dy: Array, cache: Any, fraction: float) -> dict[str, Any]:
        """Return the gradients of the parameters."""
        if isinstance(cache, SoftCache):
            return soft_backward(self.layer, dy, cache)
        return super().backward(dy, cache, fraction)
