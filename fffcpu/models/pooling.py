"""Pooling: reduces a sequence to one vector, and propagates the gradient back.

The reduction of hidden states (B, S, D) over the positions: ``zero_index`` takes the first, ``avg``
the mean, ``max`` the largest number of each column, ``lse`` the logarithm of the sum of
exponentials. As published, all positions count, including padding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["pool", "pool_backward"]

Array = NDArray[Any]


def pool(hidden: Array, pooler: str) -> Array:
    """Return one vector per sequence (B, D) of hidden states (B, S, D).

    ``pooler`` is one of `fffcpu.config.encoder.POOLERS`.
    """
    if pooler == "zero_index":
        return hidden[:, 0].copy()
    if pooler == "avg":
        mean: Array = hidden.mean(axis=1)
        return mean
    largest: Array = hidden.max(axis=1)
    if pooler == "lse":
        largest += np.log(np.exp(hidden - largest[:, np.newaxis]).sum(axis=1))
    return largest


def pool_backward(d_pooled: Array, pooled: Array, hidden: Array, pooler: str) -> Array:
    """Return the gradient (B, S, D) of the hidden states, given that of `pool` (B, D).

    For ``max``, the first position with the largest number gets the gradient.
    """
    d_hidden = np.zeros_like(hidden)
    if pooler == "zero_index":
        d_hidden[:, 0] = d_pooled
    elif pooler == "avg":
        d_hidden += (d_pooled / hidden.dtype.type(hidden.shape[1]))[:, np.newaxis]
    elif pooler == "max":
        first = hidden.argmax(axis=1)[:, np.newaxis]
        np.put_along_axis(d_hidden, first, d_pooled[:, np.newaxis], axis=1)
    else:
        np.exp(hidden - pooled[:, np.newaxis], out=d_hidden)
        d_hidden *= d_pooled[:, np.newaxis]
    return d_hidden
