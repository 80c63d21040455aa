"""Dropout: numbers set to 0 at random, the others scaled up, in fine-tuning only.

``y = x kept / (1 - rate)`` (arXiv 1207.0580, with the scale of inverted dropout), so that the mean
stays and inference does nothing. At rate 1 nothing is kept.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.checks import check_number

__all__ = ["Dropout", "DropoutCache"]

Array = NDArray[Any]


class DropoutCache(NamedTuple):
    """What `Dropout.forward` keeps for `Dropout.backward`: a byte for each number."""

    kept: NDArray[np.bool_] | None
    """Which numbers were kept, of the shape of x; None where all were."""


class Dropout:
    """Dropout. It has no parameters, and inference leaves it out.

    Parameters
    ----------
    rate : float
        The probability, from 0 to 1, with which a number is dropped.

    Raises
    ------
    ValueError, TypeError
        If the rate is no such number.
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
            Not changed.
        rng : numpy.random.Generator or None
            Decides what is dropped; None drops nothing.

        Returns
        -------
        y : array
            ``x`` itself where nothing is dropped.
        cache : DropoutCache
            For `backward`.
        """
        if rng is None or self.rate == 0.0:
            return x, DropoutCache(None)
        kept = rng.random(x.shape, np.float32) >= self.rate
        return self._scaled(x, kept), DropoutCache(kept)

    def backward(self, dy: Array, cache: DropoutCache) -> Array:
        """Return the gradient by x, given that by y."""
        return dy if cache.kept is None else self._scaled(dy, cache.kept)

    def _scaled(self, x: Array, kept: NDArray[np.bool_]) -> Array:
        scale = 1 / (1 - self.rate) if self.rate < 1.0 else 0.0
        y: Array = x * kept
        y *= x.dtype.type(scale)
        return y
