"""Adam on some rows of a parameter, in one pass over their memory.

Row-sparse gradients have rows that are far apart in the parameter. Each row is read and written
once, and threads share the rows::

    param, first, second   |  row 0  |  row 1  |  row 2  |  row 3  | ...      (N, width)
    rows                        0                   2                         (R,)
    grad                   |  row 0  |  row 2  |                              (R, width)

The operations, their order and their precision are those of `fffcpu.training.optimizers`, which
does the same in NumPy. So the bits are the same as well.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.kernels.jit import kernel, launch, writable

__all__ = ["adam_rows"]

Array = NDArray[Any]

WORK = 8
"""Cost of updating a number, in multiply-adds: the update waits for memory."""


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
    shrink, rest1, beta2, rest2 = numbers[0], numbers[1], numbers[2], numbers[3]
    root, eps, scale = numbers[4], numbers[5], numbers[6]
    for k in range(start, stop):
        row = rows[k]
        decay, keep1, keep2 = factors[0, k], factors[1, k], factors[2, k]
        for column in range(grad.shape[1]):
            g = grad[k, column]
            m = first[row, column] * keep1
            m += (g - m) * rest1
            v = second[row, column] * keep2 * beta2 + g * g * rest2
            first[row, column] = m
            second[row, column] = v
            step = m / (math.sqrt(v) / root + eps) * scale
            param[row, column] = param[row, column] * decay * shrink - step


def adam_rows(
    param: Array,
    first: Array,
    second: Array,
    grad: Array,
    rows: Array,
    factors: Array,
    numbers: tuple[float, float, float, float, float, float, float],
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
        np.array(numbers, param.dtype),
    )
