"""Stochastic gradient descent, with momentum and weight decay.

With a parameter ``p``, its gradient ``g`` and the learning rate ``lr``::

    u = momentum u + (g + weight_decay p)
    p = p - lr u

The order of the operations and the meaning of every option are PyTorch's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.checks import check_number
from fffcpu.training.optimizers.base import Arrays, Optimizer
from fffcpu.training.optimizers.blocks import column
from fffcpu.training.optimizers.missed_steps import MissedSteps

__all__ = ["SGD", "sgd_rule"]


class SGD(Optimizer):
    """Stochastic gradient descent, optionally with momentum.

    Parameters
    ----------
    params : mapping of str to array
        Writable float32 or float64 arrays, changed in place by every step.
    lr : float
        Learning rate, at least 0.
    momentum : float
        From 0 to 1: factor of the last step's direction, which is added to the gradient.
    weight_decay : float
        At least 0. This times the parameter is added to the gradient of every parameter, biases
        included.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If an argument is out of range or has the wrong type.

    Notes
    -----
    The velocity is a sum of gradients, ``u = momentum u + g``, and not their mean: at a constant
    gradient, steps grow to ``lr / (1 - momentum)`` times it.
    """

    def __init__(
        self, params: Arrays, lr: float, momentum: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        self.momentum = check_number("momentum", momentum, 0.0, 1.0)
        self.weight_decay = check_number("weight_decay", weight_decay, 0.0)
        super().__init__(params, lr, ("velocity",) if self.momentum else ())

    def _update(self, name: str, lr: float, scratch: NDArray[Any], *block: NDArray[Any]) -> None:
        sgd_rule(scratch, lr, self.momentum, self.weight_decay, *block)

    def _catch_up(
        self, name: str, missed: MissedSteps, last: NDArray[np.int64], *block: NDArray[Any]
    ) -> None:
        param, *velocities = block
        if self.weight_decay:
            param *= column(missed.decay(last), param)
        for velocity in velocities:
            param -= column(missed.drift(last), param) * velocity
            velocity *= column(self.momentum ** missed.age(last), param)

    def _options(self) -> dict[str, Any]:
        return {"lr": self.lr, "momentum": self.momentum, "weight_decay": self.weight_decay}


def sgd_rule(
    scratch: NDArray[Any],
    lr: float,
    momentum: float,
    weight_decay: float,
    param: NDArray[Any],
    direction: NDArray[Any],
    *velocities: NDArray[Any],
) -> None:
    """Update a block by SGD's rule; ``direction`` is the gradient, velocities are one or none."""
    if weight_decay:
        np.multiply(param, weight_decay, out=scratch)
        scratch += direction
        direction = scratch
    for velocity in velocities:
        velocity *= momentum
        velocity += direction
        direction = velocity
    np.multiply(direction, lr, out=scratch)
    param -= scratch
