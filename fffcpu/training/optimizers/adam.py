"""Adam and AdamW: steps of the mean gradient over the root of the mean squared gradient.

With a parameter ``p``, its gradient ``g``, the learning rate ``lr`` and steps ``t`` from 1::

    m = m + (1 - b1) (g - m)
    v = b2 v + (1 - b2) g^2
    p = p - lr / (1 - b1^t)  m / (sqrt(v / (1 - b2^t)) + eps)

AdamW first multiplies ``p`` by ``1 - lr weight_decay`` where its name is not excluded. Adam is
algorithm 1 of arXiv 1412.6980, AdamW algorithm 2 of arXiv 1711.05101; the order of the operations
and the meaning of every option are PyTorch's.

Contiguous arrays use the compiled kernels of `fffcpu.kernels.adam` if they are available; they give
the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu import kernels
from fffcpu.checks import check_number
from fffcpu.errors import ArgumentError, ArgumentTypeError, describe
from fffcpu.training.optimizers.base import Arrays, Optimizer
from fffcpu.training.optimizers.blocks import column
from fffcpu.training.optimizers.missed_steps import MissedSteps

__all__ = ["Adam", "AdamW", "adam_rule", "check_betas", "check_eps"]


class Adam(Optimizer):
    """Adam: steps of the mean gradient over the root of the mean squared gradient.

    Parameters
    ----------
    params : mapping of str to array
        Writable float32 or float64 arrays, changed in place by every step.
    lr : float
        Learning rate, at least 0: about the size of a step.
    betas : tuple of two floats
        At least 0 and below 1: how much of the two running means is kept at each step.
    eps : float
        Added to the root, so that a parameter whose gradients were all 0 stays. At least the root
        of the smallest normal number: 1.1e-19 in float32.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If an argument is out of range or has the wrong type.

    References
    ----------
    "Adam: A Method for Stochastic Optimization", arXiv 1412.6980, algorithm 1.
    """

    def __init__(
        self,
        params: Arrays,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self.betas = check_betas(betas)
        super().__init__(params, lr, ("first_moment", "second_moment"))
        self.eps = check_eps(eps, self._params)

    def _update(self, name: str, lr: float, scratch: NDArray[Any], *block: NDArray[Any]) -> None:
        if self._decay_of(name):
            param = block[0]
            param *= 1.0 - lr * self._decay_of(name)
        adam_rule(scratch, self.betas, self.eps, *self._corrections(lr), *block)

    def _catch_up(
        self, name: str, missed: MissedSteps, last: NDArray[np.int64], *block: NDArray[Any]
    ) -> None:
        for array, factors in zip(block, self._factors(name, missed, last), strict=True):
            array *= column(factors, array)

    def _step_all(self, name: str, grad: NDArray[Any], rate: float) -> None:
        adam, param = kernels.selection().adam, self._params[name]
        arrays = (param, *(moments[name] for moments in self._moments.values()), grad)
        if adam is None or not all(_is_plain(array, param.dtype) for array in arrays):
            super()._step_all(name, grad, rate)
            return
        adam.adam_all(*arrays, self._numbers(name, rate))

    def _update_rows(
        self,
        name: str,
        lr: float,
        missed: MissedSteps,
        last: NDArray[np.int64],
        rows: NDArray[np.int64],
        values: NDArray[Any],
        arrays: list[NDArray[Any]],
    ) -> None:
        adam = kernels.selection().adam
        if adam is None:
            super()._update_rows(name, lr, missed, last, rows, values, arrays)
            return
        factors = np.array(self._factors(name, missed, last), values.dtype)
        adam.adam_rows(*arrays, values, rows, factors, self._numbers(name, lr))

    def _numbers(self, name: str, lr: float) -> tuple[float, ...]:
        """Return the numbers of a step that kernels take."""
        beta1, beta2 = self.betas
        root, scale = self._corrections(lr)
        shrink = 1.0 - lr * self._decay_of(name)
        return shrink, 1.0 - beta1, beta2, 1.0 - beta2, root, self.eps, scale

    def _factors(
        self, name: str, missed: MissedSteps, last: NDArray[np.int64]
    ) -> tuple[NDArray[Any], ...]:
        """Return the factors of the parameter and both moments for missed steps, for each row."""
        ages = missed.age(last)
        decay = missed.decay(last) if self._decay_of(name) else np.ones(len(last))
        return decay, self.betas[0] ** ages, self.betas[1] ** ages

    def _corrections(self, lr: float) -> tuple[float, float]:
        """Return root and scale of `adam_rule`, with the bias corrections of the moments."""
        beta1, beta2 = self.betas
        return math.sqrt(1.0 - beta2**self.step_count), lr / (1.0 - beta1**self.step_count)

    def _decay_of(self, name: str) -> float:
        """Return the weight decay of one parameter."""
        return 0.0

    def _options(self) -> dict[str, Any]:
        return {"lr": self.lr, "betas": self.betas, "eps": self.eps}


class AdamW(Adam):
    """Adam with decoupled weight decay, except for parameters with certain names.

    Parameters
    ----------
    params : mapping of str to array
        Writable float32 or float64 arrays, changed in place by every step.
    lr : float
        Learning rate, at least 0: about the size of a step.
    betas : tuple of two floats
        At least 0 and below 1: how much of the two running means is kept at each step.
    eps : float
        Added to the root, so that a parameter whose gradients were all 0 stays. At least the root
        of the smallest normal number: 1.1e-19 in float32.
    weight_decay : float
        At least 0. Each step first multiplies the parameters by ``1 - lr * weight_decay``.
    no_decay : iterable of str
        Parameters whose names contain one of these strings do not decay.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If an argument is out of range or has the wrong type.

    References
    ----------
    "Decoupled Weight Decay Regularization", arXiv 1711.05101, algorithm 2. As in PyTorch, the
    decay is scaled by the whole learning rate and not only by the factor of its schedule.
    """

    def __init__(
        self,
        params: Arrays,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        no_decay: Iterable[str] = ("bias", "norm"),
    ) -> None:
        self.weight_decay = check_number("weight_decay", weight_decay, 0.0)
        self.no_decay = _check_strings("no_decay", no_decay)
        super().__init__(params, lr, betas, eps)

    def decays(self, name: str) -> bool:
        """Whether weight decay applies to the parameter of this name."""
        return not any(part in name for part in self.no_decay)

    def _decay_of(self, name: str) -> float:
        return self.weight_decay if self.decays(name) else 0.0

    def _options(self) -> dict[str, Any]:
        own = {"weight_decay": self.weight_decay, "no_decay": self.no_decay}
        return super()._options() | own


def adam_rule(
    scratch: NDArray[Any],
    betas: tuple[float, float],
    eps: float,
    root: float | NDArray[Any],
    scale: float | NDArray[Any],
    param: NDArray[Any],
    grad: NDArray[Any],
    first: NDArray[Any],
    second: NDArray[Any],
) -> None:
    """Update a block by Adam's rule.

    ``root`` is the root of the second moment's bias correction, ``scale`` the learning rate over
    that of the first: numbers, or columns of the block's dtype with one for each row.
    """
    np.subtract(grad, first, out=scratch)
    scratch *= 1.0 - betas[0]
    first += scratch
    np.square(grad, out=scratch)
    scratch *= 1.0 - betas[1]
    second *= betas[1]
    second += scratch
    np.sqrt(second, out=scratch)
    scratch /= root
    scratch += eps
    np.divide(first, scratch, out=scratch)
    scratch *= scale
    param -= scratch


def check_betas(betas: tuple[float, float]) -> tuple[float, float]:
    """Return the two decay rates as floats, or raise."""
    expected = "argument 'betas' must be two numbers of at least 0 and below 1"
    try:
        first, second = betas
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"{expected}, got {describe(betas)}") from None
    rates = check_number("betas", first, 0.0, 1.0), check_number("betas", second, 0.0, 1.0)
    if max(rates) == 1.0:  # With 1, the mean would never change.
        raise ArgumentError(f"{expected}, got {describe(betas)}")
    return rates


def check_eps(eps: float, params: Arrays) -> float:
    """Return eps as a float, or raise if it is too small for the dtype of a parameter."""
    number = check_number("eps", eps, 0.0)
    for name, param in params.items():
        # A node that no row visited has gradients of 0, and 0 / (0 + 0) would make it NaN. A second
        # moment below the smallest normal number becomes 0; without this bound, steps would jump.
        least = math.sqrt(np.finfo(param.dtype).tiny)
        if number < least:
            raise ArgumentError(
                f"argument 'eps' must be at least {least:.2g}, the root of the smallest normal "
                f"number in the {param.dtype} of '{name}', got {eps!r}"
            )
    return number


def _is_plain(array: NDArray[Any], dtype: np.dtype[Any]) -> bool:
    """Whether compiled kernels can take an array as it is."""
    return array.dtype == dtype and array.flags.c_contiguous and array.flags.aligned


def _check_strings(argument: str, values: Any) -> tuple[str, ...]:
    """Return several strings as a tuple, or raise: a single one would be split into letters."""
    expected = f"argument '{argument}' must be a tuple of strings that are not empty"
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ArgumentTypeError(f"{expected}, got {describe(values)}")
    strings = tuple(values)
    for string in strings:
        if not isinstance(string, str):
            raise ArgumentTypeError(f"{expected}, got {describe(string)} in it")
        if not string:  # Every name contains it.
            raise ArgumentError(f"{expected}, got {describe(strings)}")
    return strings
