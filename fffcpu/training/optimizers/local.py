"""Local optimizers: a node is updated once enough rows have used it.

All rows of a batch reach the root of a tree, but only a few reach each leaf. Local optimizers add
up gradients and usage of each node over steps, and update a node when its usage has reached the
local batch size b. With the sums G of gradients and u of usage since its last update::

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

from fffcpu.checks import check_integer, check_number, first_wrong
from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError, describe
from fffcpu.parameters import RowGradient, flush
from fffcpu.training.optimizers.adam import adam_rule, check_betas, check_eps
from fffcpu.training.optimizers.base import Gradients, Stateful
from fffcpu.training.optimizers.blocks import blocks, row_blocks
from fffcpu.training.optimizers.sgd import sgd_rule

__all__ = ["LocalAdam", "LocalOptimizer", "LocalSGD"]

Array = NDArray[Any]
Arrays = Mapping[str, Array]

USED = "used."
UPDATES = "updates."
"""Keys of a state: by parameter, each node's usage since its last update, and its updates."""


class LocalOptimizer(Stateful):
    """The base of local optimizers: the sums, and the choice of the nodes to update.

    Parameters
    ----------
    params : mapping of str to array
        Writable float32 or float64 arrays, changed in place.
    lr : float
        Learning rate, at least 0.
    local_batch_size : int
        Usage at which a node is updated, at least 1.
    moments : tuple of str
        Names of the moments of the rule, without the sums.
    """

    takes_usage: ClassVar[bool] = True
    """A `fffcpu.training.trainer.Trainer` passes the usage of its objective to ``step``."""

    def __init__(
        self, params: Arrays, lr: float, local_batch_size: int, moments: tuple[str, ...]
    ) -> None:
        self.local_batch_size = check_integer("local_batch_size", local_batch_size, 1)
        super().__init__(params, lr, ("gradient_sum", *moments))
        # For each parameter with usage, in the shape of its leading axes.
        self._used: dict[str, NDArray[np.float64]] = {}
        self._updates: dict[str, NDArray[np.int64]] = {}

    def step(self, grads: Gradients, usage: Arrays | None = None, lr: float | None = None) -> None:
        """Add up gradients and usage, and update the nodes that are due.

        Parameters
        ----------
        grads : mapping of str to array or RowGradient
            A gradient for every parameter, of its name and shape.
        usage : mapping of str to array, optional
            For parameters of nodes, the number of rows that used each node: an array of the
            parameter's leading shape, such as (T, N), (G,) or (K,). A layer's ``usage(cache)``
            returns it. The first step determines which parameters have usage, and its shape.
        lr : float, optional
            Learning rate of this step only.

        Raises
        ------
        ArgumentError, ShapeError, ArgumentTypeError
            If gradients or usage do not fit the parameters, or a number is out of range. The
            parameters are then unchanged.
        """
        rate = check_number("lr", self.lr if lr is None else lr, 0.0)
        self._check_gradients(grads)
        used = {name: np.asarray(counts) for name, counts in (usage or {}).items()}
        self._check_usage(used)
        for name, counts in used.items():
            if self.step_count == 0:
                self._used[name] = np.zeros(counts.shape)
                self._updates[name] = np.zeros(counts.shape, np.int64)
            self._used[name] += counts
        self.step_count += 1
        for name, grad in grads.items():
            if name in used:
                self._add(name, grad)
                self._update_due(name, rate)
            else:
                self._update_all(name, grad, rate)

    def _check_usage(self, usage: Arrays) -> None:
        """Raise unless usage fits the parameters and the previous steps."""
        for name, counts in usage.items():
            if name not in self._params:
                raise ArgumentError(
                    f"argument 'usage' must have names of parameters, got unknown {describe(name)}"
                )
            if counts.dtype.kind not in "fiu":
                raise ArgumentTypeError(
                    f"argument 'usage' must hold numbers, got {describe(counts)} for '{name}'"
                )
            right = (counts >= 0) & (counts < np.inf)
            if not right.all():
                raise ArgumentError(
                    "argument 'usage' must hold finite numbers of at least 0, "
                    f"got {first_wrong(counts, right)} for '{name}'"
                )
            shape = self._params[name].shape[: max(1, counts.ndim)]
            expected = self._used[name].shape if name in self._used else shape
            if counts.shape != expected:
                raise ShapeError(
                    f"argument 'usage' must have the leading shape of the parameter '{name}', "
                    f"{expected}, got {describe(counts)}"
                )
            if not self._params[name].flags.c_contiguous:
                raise ArgumentError(
                    f"argument 'usage' must be for C-contiguous parameters, got some for '{name}'"
                )
        if self.step_count and set(usage) != set(self._used):
            raise ArgumentError(
                f"argument 'usage' must have the names of the first step, {list(self._used)}, "
                f"got {list(usage)}"
            )

    def _add(self, name: str, grad: Array | RowGradient) -> None:
        """Add a gradient to the sum."""
        total = self._moments["gradient_sum"][name]
        if isinstance(grad, RowGradient):
            rows = total.reshape(math.prod(grad.leading), *grad.values.shape[1:])
            rows[grad.rows] += grad.values.astype(total.dtype, copy=False)
        else:
            total += grad

    def _update_due(self, name: str, rate: float) -> None:
        """Update the nodes that enough rows have used, and reset their sums."""
        used, updates = self._used[name].reshape(-1), self._updates[name].reshape(-1)
        due = np.flatnonzero(used >= self.local_batch_size)
        updates[due] += 1
        for part, (param, total, *moments) in row_blocks(due, self._rows_of(name, len(used))):
            share = self.local_batch_size / used[due[part]]
            grad = total * share.astype(total.dtype)[:, np.newaxis]
            self._update(rate, updates[due[part], np.newaxis], param, grad, *moments)
            flush(param, *moments)
            total[...] = 0.0
        used[due] = 0.0

    def _update_all(self, name: str, grad: Array | RowGradient, rate: float) -> None:
        """Update a parameter without usage."""
        grad = grad.dense() if isinstance(grad, RowGradient) else grad
        arrays = [arrays[name] for arrays in self._moments.values()]
        for param, gradient, _, *moments in blocks(self._params[name], grad, arrays):
            self._update(rate, np.array(self.step_count), param, gradient.copy(), *moments)
            flush(param, *moments)

    def _update(self, lr: float, updates: Array, *block: Array) -> None:
        """Update a block, ``(param, grad, *moments)``, in place; ``grad`` may be written over.

        ``updates`` counts the updates of the block (), or of each row (rows, 1), with this one.
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
            # Only the state has the number of axes over which nodes are counted.
            if isinstance(used, np.ndarray) and used.shape == param.shape[: max(1, used.ndim)]:
                expected[USED + name] = np.empty(used.shape)
                expected[UPDATES + name] = np.empty(used.shape, np.int64)
        return expected

    def _faults(self, state: Arrays) -> list[str]:
        faults = super()._faults(state)
        for name in self._params:
            for key in (USED + name, UPDATES + name):
                numbers = state.get(key, np.empty(0))
                right = (numbers >= 0) & (numbers < np.inf)
                if not right.all():
                    wrong = first_wrong(numbers, right)
                    faults.append(f"'{key}' must hold finite numbers of at least 0, got {wrong}")
        return faults

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
        From 0 to 1: factor of a node's last direction, which is added to its gradient.
    weight_decay : float
        At least 0. This times the parameter is added to the gradient.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If an argument is out of range or has the wrong type.
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
        sgd_rule(np.empty_like(block[0]), lr, self.momentum, self.weight_decay, *block)

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
        Added to the root, so that a parameter whose gradients were all 0 stays. At least the root
        of the smallest normal number: 1.1e-19 in float32.
    weight_decay : float
        At least 0. This times the parameter is added to the gradient.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If an argument is out of range or has the wrong type.
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
        self.weight_decay = check_number("weight_decay", weight_decay, 0.0)
        super().__init__(params, lr, local_batch_size, ("first_moment", "second_moment"))
        self.eps = check_eps(eps, self._params)

    def _update(self, lr: float, updates: Array, *block: Array) -> None:
        param, grad, *_ = block
        if self.weight_decay:
            grad += self.weight_decay * param
        beta1, beta2 = self.betas
        dtype = param.dtype
        root = np.sqrt(1.0 - beta2**updates).astype(dtype)
        scale = (lr / (1.0 - beta1**updates)).astype(dtype)
        adam_rule(np.empty_like(param), self.betas, self.eps, root, scale, *block)

    def _options(self) -> dict[str, Any]:
        own: dict[str, Any] = {"local_batch_size": self.local_batch_size, "betas": self.betas}
        return super()._options() | own | {"eps": self.eps, "weight_decay": self.weight_decay}
