"""Dropout: sets random numbers to 0 and scales the others up, in fine-tuning only.

``y = x kept / (1 - rate)`` (arXiv 1207.0580, with the scale of inverted dropout). The mean stays
the same, so inference needs no correction. At rate 1 nothing is kept.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.checks import check_number

__all__ = ["Dropout", "DropoutCache"]

Array = NDArray[Any]


class DropoutCache(NamedTuple):
    """What `Dropout.forward` keeps for `Dropout.backward`: one byte per number."""

    kept: NDArray[np.bool_] | None
    """Mask of the kept numbers, of the shape of x; None if all were kept."""


class Dropout:
    """Dropout. It has no parameters, and inference skips it.

    Parameters
    ----------
    rate : float
        Probability, from 0 to 1, of dropping each number.

    Raises
    ------
    ValueError, TypeError
        If the rate is not such a number.
    """

    def __init__(self, rate: float) -> None:
        self.rate = check_number("rate", rate, 0.0, 1.0)

    def __repr__(self) -> str:
        return f"<Dropout(rate={self.rate:g})>"

    def forward(self, x: Array, rng: np.random.Generator | None) -> tuple[Array, DropoutCache]:
        """Drop numbers of an array of floats.

        Parameters
        ----------
        x : array
            The input. It is not changed.
        rng : numpy.random.Generator or None
            Generator that decides which numbers are dropped; None drops none.

        Returns
        -------
        y : array
            The output; ``x`` itself if nothing is dropped.
        cache : DropoutCache
            The cache that `backward` takes.
        """
        if rng is None or self.rate == 0.0:
            return x, DropoutCache(None)
        kept = rng.random(x.shape, np.float32) >= self.rate
        return self._scaled(x, kept), DropoutCache(kept)

    def backward(self, dy: Array, cache: DropoutCache) -> Array:
        """Return the gradient with respect to x, given the gradient with respect to y."""
        return dy if cache.kept is None else self._scaled(dy, cache.kept)

    def _scaled(self, x: Array, kept: NDArray[np.bool_]) -> Array:
        scale = 1 / (1 - self.rate) if self.rate < 1.0 else 0.0
        y: Array = x * kept
        y *= x.dtype.type(scale)
        return y
