"""Adam on a whole parameter or on some of its rows, in one pass over their memory.

Row-sparse gradients have rows that are far apart in the parameter. Each row is read and written
once, and threads share the rows::

    param, first, second   |  row 0  |  row 1  |  row 2  |  row 3  | ...      (N, width)
    rows                        0                   2                         (R,)
    grad                   |  row 0  |  row 2  |                              (R, width)

The operations, their order and their precision are those of `fffcpu.training.optimizers`, which
does the same in NumPy. So the bits are the same as well. Numbers that have become smaller than the
smallest normal one end as 0 (docs/mathematics.md, "Numbers that fade away").
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.kernels.jit import inner, kernel, launch, writable

__all__ = ["adam_all", "adam_rows"]

Array = NDArray[Any]

WORK = 8
"""Cost of updating a number, in multiply-adds: the update waits for memory."""

Numbers = tuple[float, float, float, float, float, float, float]


@inner
def _flushed(number: Any, tiny: Any) -> Any:
    """Return a number, or a zero of its sign where it is smaller than ``tiny``."""
    zero = tiny - tiny  # of the numbers' own type
    return number * zero if abs(number) < tiny else number


@inner
def _adam_run(
    param: Array,
    first: Array,
    second: Array,
    grad: Array,
    factors: tuple[Any, Any, Any],
    numbers: Array,
) -> None:
    """Update a run of numbers, after multiplying param, first and second by the factors."""
    shrink, rest1, beta2, rest2 = numbers[0], numbers[1], numbers[2], numbers[3]
    root, eps, scale, tiny = numbers[4], numbers[5], numbers[6], numbers[7]
    decay, keep1, keep2 = factors
    for i in range(len(grad)):
        g = grad[i]
        m = first[i] * keep1
        m += (g - m) * rest1
        v = second[i] * keep2 * beta2 + g * g * rest2
        step = m / (math.sqrt(v) / root + eps) * scale
        first[i] = _flushed(m, tiny)
        second[i] = _flushed(v, tiny)
        param[i] = _flushed(param[i] * decay * shrink - step, tiny)


@kernel
def _adam_all(
    param: Array,
    first: Array,
    second: Array,
    grad: Array,
    numbers: Array,
    start: int,
    stop: int,
) -> None:
    one = numbers[8]
    own = slice(start, stop)
    _adam_run(param[own], first[own], second[own], grad[own], (one, one, one), numbers)


@kernel
def _adam_rows(
    param: Array,
    first: Array,
    second: Array,
    grad: Array,
    rows: Array,
    factors: Array,
    numbers: Array,
    start: int,
    stop: int,
) -> None:
    for k in range(start, stop):
        row = rows[k]
        own = (factors[0, k], factors[1, k], factors[2, k])
        _adam_run(param[row], first[row], second[row], grad[k], own, numbers)


def adam_all(param: Array, first: Array, second: Array, grad: Array, numbers: Numbers) -> None:
    """Make a step of Adam in a whole parameter.

    Parameters
    ----------
    param, first, second : arrays of one shape, written
        The parameter and its two moments, C-contiguous and of one dtype.
    grad : array
        Gradient, of the same shape, layout and dtype.
    numbers : tuple of float
        Those of `adam_rows`.
    """
    flat = [array.reshape(-1) for array in (param, first, second, writable(grad))]
    launch(_adam_all, param.size, WORK, *flat, _constants(numbers, param.dtype))


def adam_rows(
    param: Array,
    first: Array,
    second: Array,
    grad: Array,
    rows: Array,
    factors: Array,
    numbers: Numbers,
) -> None:
    """Apply the missed steps to rows, then make a step of Adam in them.

    Parameters
    ----------
    param, first, second : arrays of shape (N, width), written
        The parameter and its two moments, C-contiguous and of one dtype.
    grad : array of shape (R, width)
        Gradient, of the same dtype.
    rows : int64 array of shape (R,)
        Row of the parameter for each row of the gradient; distinct.
    factors : array of shape (3, R)
        Factors that multiply each row's numbers first: param, first and second.
    numbers : tuple of float
        Factor that multiplies param next; ``1 - beta1``, ``beta2``, ``1 - beta2``, the root of the
        second moment's bias correction, eps, and the learning rate over that of the first.
    """
    launch(
        _adam_rows,
        len(rows),
        WORK * grad.shape[1],
        param,
        first,
        second,
        writable(grad),
        writable(rows),
        factors,
        _constants(numbers, param.dtype),
    )


def _constants(numbers: Numbers, dtype: np.dtype[Any]) -> Array:
    """Return the numbers of a step, the smallest normal number, and 1, in a parameter's dtype."""
    return np.array((*numbers, np.finfo(dtype).tiny, 1.0), dtype)
