"""The largest allowed distance of a result from the oracle's, by the rounding of its sums.

A dot product of n terms in any order is off by at most ``n * eps * sum |w x|``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.testing.strategies import LeafProblem, PathProblem

__all__ = ["chain", "close", "largest", "logit_error", "logit_terms"]

Array = NDArray[Any]


def logit_error(problem: PathProblem | LeafProblem, weights: Array, bias: Array) -> float:
    """Return the largest possible error of any logit of these rows."""
    if problem.kind == "integer":
        return 0.0
    eps = float(np.finfo(problem.x.dtype).eps)
    return float((weights.shape[-1] + 2) * eps * logit_terms(problem, weights, bias))


def logit_terms(problem: PathProblem | LeafProblem, weights: Array, bias: Array) -> float:
    """Return the largest sum of the absolute terms of any logit; 0 without rows or weights.

    A logit whose terms cancel is much smaller, and its error is not.
    """
    if not problem.x.size or not weights.size:
        return 0.0
    products = np.abs(problem.x) @ np.abs(weights).reshape(-1, weights.shape[-1]).T
    return float(products.max() + np.abs(bias).max(initial=0))


def close(actual: Array, expected: Array, magnitude: float, terms: int) -> None:
    """Assert agreement within the rounding of ``terms`` additions that sum to ``magnitude``.

    The error is relative to the terms, not to the result, which is small if they cancel.
    """
    bound = 2 * (terms + 8) * np.finfo(actual.dtype).eps * magnitude
    np.testing.assert_allclose(actual, expected, rtol=0, atol=bound)


def largest(*arrays: Array) -> float:
    """Return the product of the largest absolute values."""
    return math.prod(float(np.abs(array).max(initial=0)) for array in arrays)


def chain(problem: PathProblem) -> int:
    """Return the most roundings from input to output: a logit's terms, then the visited nodes."""
    trees, count, width = problem.weights_in.shape
    return int(width + trees * count.bit_length())
