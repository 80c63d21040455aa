"""Gradients against differences of a loss along a random direction, in float64."""

from __future__ import annotations

import math

import numpy as np

STEP = 1e-6


def check_gradients(loss, pairs, seed=0, tolerance=1e-5):
    """Assert that each gradient is the slope of a loss.

    ``loss()`` returns a number that depends on the arrays of ``pairs``, (array, gradient) each.
    """
    rng = np.random.default_rng(seed)
    size = abs(loss()) * 1e-3 + 1e-6
    for array, gradient in pairs:
        assert gradient.shape == array.shape
        direction = rng.choice([-1.0, 1.0], array.shape) / math.sqrt(max(array.size, 1))
        array += STEP * direction
        above = loss()
        array -= 2 * STEP * direction
        below = loss()
        array += STEP * direction
        slope = (above - below) / (2 * STEP)
        assert abs((gradient * direction).sum() - slope) <= tolerance * (
            np.linalg.norm(gradient) + size
        )
