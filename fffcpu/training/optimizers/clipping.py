"""Clipping: all gradients scaled by one factor, so that their joint norm has a bound."""

from __future__ import annotations

import math

from fffcpu.checks import check_number
from fffcpu.training.optimizers.base import Gradients, check_named_arrays, values_of
from fffcpu.training.optimizers.blocks import sum_of_squares

__all__ = ["clip_gradients"]


def clip_gradients(grads: Gradients, max_norm: float) -> float:
    """Scale all gradients in place by one factor, so that their joint norm is at most max_norm.

    Parameters
    ----------
    grads : mapping of str to array or RowGradient
        Writable arrays of floats; their norm is that of all their numbers as one vector.
    max_norm : float
        The largest norm left, at least 0.

    Returns
    -------
    float
        The norm before clipping. If it is not finite, the gradients are not changed; the caller can
        check the norm and skip the step.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If max_norm is not a finite number of at least 0, or grads is not a mapping of writable
        arrays of floats.

    Notes
    -----
    The factor is ``min(1, max_norm / (norm + 1e-6))``, as in PyTorch. Squares are summed in
    float64, where no float32 overflows; float64 gradients beyond 1e154 have an infinite norm.

    References
    ----------
    "On the difficulty of training recurrent neural networks", arXiv 1211.5063, algorithm 1.
    """
    limit = check_number("max_norm", max_norm, 0.0)
    values = values_of(grads)
    check_named_arrays("grads", values)
    norm = math.sqrt(sum(sum_of_squares(grad) for grad in values.values()))
    factor = limit / (norm + 1e-6)
    if math.isfinite(norm) and factor < 1.0:
        for grad in values.values():
            grad *= factor
    return norm
