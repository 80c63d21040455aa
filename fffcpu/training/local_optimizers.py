"""Local optimizers: a node is updated once enough rows have used it.

Of a tree, a batch reaches the root with all its rows and a leaf with a few. Local optimizers add up
gradients and usage of each node over steps, and update a node when its usage has reached the local
batch size b. With the sums G of gradients and u of usage since its last update::

    u >= b:   g = G b / u,   then SGD's or Adam's rule with g;   G = 0,   u = 0
    else:     the node waits

Adam counts each node's own updates for its bias corrections. A parameter without usage is updated
at every step. These are the optimizers of the package ``fastfeedforward`` of "Fast Feedforward
Networks", arXiv 2308.14711; weight decay is added to the gradient, as there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fffcpu.config import check_integer, check_number
from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError, describe
from fffcpu.training.optimizers import Stateful, check_betas

__all__ = ["LocalAdam", "LocalOptimizer", "LocalSGD"]

Array = NDArray[Any]
Arrays = Mapping[str, Array]

USED = "used."
UPDATES = "updates."
"""Keys of a state: by parameter, each node's usage since its last update, and its updates."""


class LocalOptimizer(Stateful):
    """What local optimizers share: the sums, and when a node is due.

    Parameters
    ----------
    params : mapping of str to array
        Writable float32 or float64 arrays, changed in place.
    lr : float
        Learning rate, at least 0.
    local_batch_size : int
        Usage at which a node is updated, at least 1.
    moments : tuple of str
        Of the rule, beside the sums.
    """

    takes_usage: ClassVar[bool] = True
    """A `fffcpu.training.trainer.Trainer` passes the usage of its objective on."""

    def __init__(
        self, params: Arrays, lr: float, local_batch_size: int, moments: tuple[str, ...]
    ) -> None:
        self.local_batch_size = check_integer("local_batch_size", local_batch_size, 1)
        super().__init__(params, lr, ("gradient_sum", *moments))
        self._used: dict[str, NDArray[np.float64]] = {}
        self._updates: dict[str, NDArray[np.int64]] = {}

    def step(self, grads: Arrays, usage: Arrays | None = None, lr: float | None = None) -> None:
        """Add up gradients and usage, and update the nodes that are due.

        Parameters
        ----------
        grads : mapping of str to array
            A gradient for every parameter, of its name and shape.
        usage : mapping of str to array, optional
            For parameters of nodes, how many rows used each: an array of the parameter's leading
            shape, such as (T, N), (G,) or (K,). A layer's ``usage(cache)`` returns it.
        lr : float, optional
            Learning rate of this step alone.

        Raises
        ------
        ArgumentError, ShapeError, ArgumentTypeError
            If gradients or usage do not fit the parameters, or a number is out of range. Nothing is
            changed then.
        """
        rate = check_number("lr", self.lr if lr is None else lr, 0.0)
        self._check_gradients(grads)
        used = {name: np.asarray(counts) for name, counts in (usage or {}).items()}
        for name, counts in used.items():
            self._check_usage(name, counts)
        self.step_count += 1
        for name, grad in grads.items():
            counts = used.get(name, np.full((), self.local_batch_size))
            self._step(name, np.asarray(grad), counts, rate)

    def _check_usage(self, name: str, counts: Array) -> None:
        """Raise unless usage fits a parameter."""
        if name not in self._params:
            raise ArgumentError(
                f"argument 'usage' must have names of parameters, got unknown {describe(name)}"
            )
        if counts.dtype.kind not in "fiu":
            raise ArgumentTypeError(
                f"argument 'usage' must hold numbers, got {describe(counts)} for '{name}'"
            )
        shape = self._params[name].shape
        expected = self._used[name].shape if name in self._used else shape[: counts.ndim]
        if counts.shape != expected:
            raise ShapeError(
                f"argument 'usage' must have the leading shape of the parameter '{name}', "
                f"{expected}, got {describe(counts)}"
            )

    def _step(self, name: str, grad: Array, counts: Array, rate: float) -> None:
        """Make a step in one parameter."""
        used = self._used.setdefault(name, np.zeros(counts.shape))
        updates = self._updates.setdefault(name, np.zeros(counts.shape, np.int64))
        arrays = [self._params[name], *(arrays[name] for arrays in self._moments.values())]
        arrays[1] += grad
        used += counts
        due = used >= self.local_batch_size
        if not due.any():
            return
        updates[due] += 1
        width = math.prod(grad.shape[counts.ndim :])
        param, total, *moments = block = [array[due].reshape(-1, width) for array in arrays]
        share = self.local_batch_size / used[due].reshape(-1, 1)
        self._update(
            rate, updates[due].reshape(-1, 1), param, total * share.astype(total.dtype), *moments
        )
        total[...] = 0.0
        for array, changed in zip(arrays, block, strict=True):
            array[due] = changed.reshape(-1, *array.shape[counts.ndim :])
        used[due] = 0.0

    def _update(self, lr: float, updates: Array, *block: Array) -> None:
        """Update rows of nodes that are due, ``(param, grad, *moments)``, in place.

        ``updates`` (rows, 1) counts those of each node, this one included.
        """
        raise NotImplementedError

    def _remembered(self) -> Iterator[tuple[str, Array]]:
        yield from super()._remembered()
        for name, used in self._used.items():
            yield USED + name, used
            yield UPDATES + name, self._updates[name]

    def _expected(self, state: Arrays) -> dict[str, Array]:
        expected = super()._expected(state)
        for name, param in self._params.items():
            used = state.get(USED + name)
            # Over how many axes nodes are counted is known to the state alone.
            if isinstance(used, np.ndarray) and used.shape == param.shape[: used.ndim]:
                expected[USED + name] = np.empty(used.shape)
                expected[UPDATES + name] = np.empty(used.shape, np.int64)
        return expected

    def _take(self, state: Arrays) -> None:
        super()._take(state)
        names = [name for name in self._params if USED + name in state]
        self._used = {name: state[USED + name].copy() for name in names}
        self._updates = {name: state[UPDATES + name].copy() for name in names}


class LocalSGD(LocalOptimizer):
    """SGD that updates a node once enough rows have used it.

    Parameters
    ----------
    params : mapping of str to array
        Writable float32 or float64 arrays, changed in place.
    lr : float
        Learning rate, at least 0.
    local_batch_size : int
        Usage at which a node is updated, at least 1.
    momentum : float
        From 0 to 1: how much of a node's last direction is added to its gradient.
    weight_decay : float
        At least 0. This times the parameter is added to the gradient.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If an argument is out of its range or of the wrong kind.
    """

    def __init__(
        self,
        params: Arrays,
        lr: float,
        local_batch_size: int,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        self.momentum = check_number("momentum", momentum, 0.0, 1.0)
        self.weight_decay = check_number("weight_decay", weight_decay, 0.0)
        moments = ("velocity",) if self.momentum else ()
        super().__init__(params, lr, local_batch_size, moments)

    def _update(self, lr: float, updates: Array, *block: Array) -> None:
        param, direction, *velocities = block
        direction = direction + self.weight_decay * param
        for velocity in velocities:  # One, or none without momentum.
            velocity *= self.momentum
            velocity += direction
            direction = velocity
        param -= lr * direction

    def _options(self) -> dict[str, Any]:
        own = {"local_batch_size": self.local_batch_size, "momentum": self.momentum}
        return super()._options() | own | {"weight_decay": self.weight_decay}


class LocalAdam(LocalOptimizer):
    """Adam that updates a node once enough rows have used it.

    Parameters
    ----------
    params : mapping of str to array
        Writable float32 or float64 arrays, changed in place.
    lr : float
        Learning rate, at least 0: about the size of a step.
    local_batch_size : int
        Usage at which a node is updated, at least 1.
    betas : tuple of two floats
        At least 0 and below 1: how much of the two running means is kept at each update.
    eps : float
        At least 0; added to the root.
    weight_decay : float
        At least 0. This times the parameter is added to the gradient.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If an argument is out of its range or of the wrong kind.
    """

    def __init__(
        self,
        params: Arrays,
        lr: float,
        local_batch_size: int,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self.betas = check_betas(betas)
        self.eps = check_number("eps", eps, 0.0)
        self.weight_decay = check_number("weight_decay", weight_decay, 0.0)
        super().__init__(params, lr, local_batch_size, ("first_moment", "second_moment"))

    def _update(self, lr: float, updates: Array, *block: Array) -> None:
        param, grad, first, second = block
        beta1, beta2 = self.betas
        grad = grad + self.weight_decay * param
        first += (1.0 - beta1) * (grad - first)
        second *= beta2
        second += (1.0 - beta2) * np.square(grad)
        correction1 = (1.0 - beta1**updates).astype(param.dtype)
        correction2 = (1.0 - beta2**updates).astype(param.dtype)
        root = np.sqrt(second / correction2) + self.eps
        # Without eps, what never had a gradient stays.
        step = np.divide(first, root, out=np.zeros_like(first), where=root > 0.0)
        param -= lr * step / correction1

    def _options(self) -> dict[str, Any]:
        own: dict[str, Any] = {"local_batch_size": self.local_batch_size, "betas": self.betas}
        return super()._options() | own | {"eps": self.eps, "weight_decay": self.weight_decay}
