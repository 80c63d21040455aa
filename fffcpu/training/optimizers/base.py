"""SGD, Adam and AdamW on named arrays, and clipping of their gradients, all in place.

With parameters ``p``, gradients ``g``, learning rate ``lr`` and steps ``t`` counted from 1:

=====  =========================================================================================
SGD    ``u = momentum u + (g + weight_decay p)``; ``p -= lr u``
Adam   ``m += (1 - b1) (g - m)``; ``v = b2 v + (1 - b2) g^2``;
       ``p -= lr / (1 - b1^t)  m / (sqrt(v / (1 - b2^t)) + eps)``
AdamW  ``p *= 1 - lr weight_decay`` where the name is not excluded, then Adam
=====  =========================================================================================

Adam is algorithm 1 of arXiv 1412.6980, AdamW algorithm 2 of arXiv 1711.05101; the order of the
operations and the meaning of every option are PyTorch's, so that recipes carry over.

**Row-sparse gradients.** Where a gradient is a `fffcpu.parameters.RowGradient`, a step changes the
rows that it holds, and no others. What the others miss is made up for when a row is next touched,
or by ``bring_up_to_date``:

=====  =========================================================================================
SGD    exactly what a gradient of 0 does, decay and momentum included (not both together)
Adam   the moments shrink, ``m *= b1^k`` and ``v *= b2^k`` for k missed steps; the moves that
       dense Adam makes along a moment that fades away are left out
AdamW  the same, and the decay that was missed
=====  =========================================================================================

So where every step touches every row, results have the bits of dense gradients. `missed_steps` says
how it is kept, docs/mathematics.md why it is right.

Every array is updated a block at a time, so that a parameter, its gradient, its moments and the
scratch of one block stay in cache through all the operations, and memory is read and written once::

    param    |  block 0  |  block 1  |  block 2  | ...        each BLOCK numbers
    grad     |  block 0  |  block 1  |  block 2  | ...
    moments  |  block 0  |  block 1  |  block 2  | ...
    scratch  |  one block, used again and again  |

Of a row-sparse gradient, a block is some of its rows, fetched and put back. Adam's rows go through
a compiled kernel where there is one, `fffcpu.kernels.adam`, which gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from fffcpu import kernels
from fffcpu.config import check_number
from fffcpu.errors import (
    ArgumentError,
    ArgumentTypeError,
    CheckpointError,
    ShapeError,
    describe,
)
from fffcpu.parameters import RowGradient
from fffcpu.training.optimizers.missed_steps import MOST_STEPS, MissedSteps

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Optimizer",
    "Stateful",
    "adam_rule",
    "blocks",
    "check_betas",
    "check_eps",
    "clip_gradients",
    "row_blocks",
    "sgd_rule",
]

Arrays = Mapping[str, NDArray[Any]]
Gradients = Mapping[str, NDArray[Any] | RowGradient]

BLOCK = 32768
"""Numbers updated at a time: five float32 arrays of it are 640 KiB. More would leave a common L2
cache, and fewer would pay more for calling NumPy than for its work."""

STEP_KEY = "step"
"""Key of the step count in a state; the other keys are ``moment.parameter``."""

RATES_KEY = "rates"
LAST_STEP = "last_step."
"""Keys of what rows have missed: learning rates, and by parameter each row's last step."""

_WALK: Final[list[Literal["external_loop", "buffered", "zerosize_ok"]]] = [
    "external_loop",
    "buffered",
    "zerosize_ok",
]


class Stateful:
    """What all optimizers share, local ones included: the arrays they train, checks, the state.

    A subclass names its moments, arrays of the parameters' shapes that start at 0.

    Parameters
    ----------
    params : mapping of str to array
        The writable float32 or float64 arrays to train. The arrays themselves are kept, and their
        numbers changed in place. Parameters of several layers are trained together as one merged
        mapping with a prefix for each.
    lr : float
        Learning rate, at least 0, of steps that name no other.
    moments : tuple of str
        Names of the moments.

    Attributes
    ----------
    lr : float
        The learning rate; may be set.
    step_count : int
        Steps made so far.
    """

    def __init__(self, params: Arrays, lr: float, moments: tuple[str, ...]) -> None:
        _check_arrays("params", params)
        for name, param in params.items():
            if param.dtype not in (np.float32, np.float64):
                raise ArgumentTypeError(
                    f"argument 'params' must hold float32 or float64 arrays, "
                    f"got {describe(param)} for '{name}'"
                )
        self.lr = check_number("lr", lr, 0.0)
        self.step_count = 0
        self._params = dict(params)
        self._moments = {
            moment: {name: np.zeros_like(param, subok=False) for name, param in params.items()}
            for moment in moments
        }

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Copy what the optimizer remembers: the step count, the moments, and what rows missed.

        Returns
        -------
        dict of str to array
            ``step``, an int64 of shape (), and ``moment.parameter`` for each moment and parameter.
            Together with the parameters and the same options it continues the training bit for bit.
        """
        state: dict[str, NDArray[Any]] = {STEP_KEY: np.array(self.step_count, np.int64)}
        state.update((key, array.copy()) for key, array in self._remembered())
        return state

    def load_state_dict(self, state: Arrays) -> None:
        """Take over what ``state_dict`` of an optimizer of the same kind and parameters returned.

        Parameters
        ----------
        state : mapping of str to array
            Copied.

        Raises
        ------
        ArgumentTypeError
            If it is no mapping.
        CheckpointError
            If a key is missing or unknown, or an array has another shape or dtype than here.
            Nothing is changed then.
        """
        if not isinstance(state, Mapping):
            raise ArgumentTypeError(f"argument 'state' must be a mapping, got {describe(state)}")
        expected: dict[str, NDArray[Any]] = {STEP_KEY: np.array(0, np.int64)}
        expected.update(self._expected(state))
        wrong = [*_name_differences(expected, state), *_array_differences(expected, state)]
        if not wrong:
            wrong = self._faults(state)
        if wrong:
            raise CheckpointError(
                f"state of the optimizer {type(self).__name__} does not fit: {'; '.join(wrong)}"
            )
        self._take(state)

    def _faults(self, state: Arrays) -> list[str]:
        """Say which numbers are impossible in a state whose arrays have the right shapes."""
        if int(state[STEP_KEY]) < 0:
            return [f"'{STEP_KEY}' must be at least 0, got {int(state[STEP_KEY])}"]
        return []

    def _remembered(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Give all that is remembered beside the step count."""
        yield from self._flat_moments()

    def _expected(self, state: Arrays) -> dict[str, NDArray[Any]]:
        """Return arrays of the shapes and dtypes that a state must have beside the step count."""
        return dict(self._flat_moments())

    def _take(self, state: Arrays) -> None:
        """Take over a state that fits."""
        self.step_count = int(state[STEP_KEY])
        for key, array in self._flat_moments():
            array[...] = state[key]

    def _rows_of(self, name: str, count: int) -> list[NDArray[Any]]:
        """Return a parameter and its moments as rows (count, width); views."""
        arrays = [self._params[name], *(arrays[name] for arrays in self._moments.values())]
        return [array.reshape(count, array.size // max(1, count)) for array in arrays]

    def _flat_moments(self) -> Iterator[tuple[str, NDArray[Any]]]:
        for moment, arrays in self._moments.items():
            for name, array in arrays.items():
                yield f"{moment}.{name}", array

    def _check_gradients(self, grads: Gradients) -> None:
        _check_arrays("grads", _values_of(grads), writable=False)
        wrong = _name_differences(self._params, grads)
        if wrong:
            raise ArgumentError(
                f"argument 'grads' must have the names of the parameters, got {', '.join(wrong)}"
            )
        for name, param in self._params.items():
            if grads[name].shape != param.shape:
                raise ShapeError(
                    f"argument 'grads' must hold an array of shape {param.shape} for '{name}', "
                    f"got {describe(grads[name])}"
                )

    def _options(self) -> dict[str, Any]:
        """Options of the constructor by name, as ``repr`` shows them."""
        return {"lr": self.lr}

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self._options().items())
        numbers = sum(param.size for param in self._params.values())
        return (
            f"<{type(self).__name__}({options}): {len(self._params)} arrays, {numbers} numbers, "
            f"{self.step_count} steps made>"
        )


class Optimizer(Stateful):
    """What the optimizers share that take every step everywhere, at once or when it is asked for.

    A subclass says in ``_update`` what happens to one block, and in ``_catch_up`` what rows have
    missed.
    """

    weight_decay: float = 0.0
    """Shrinks parameters, those without a gradient too."""
    momentum: float = 0.0
    """Moves parameters on, those without a gradient too."""

    def __init__(self, params: Arrays, lr: float, moments: tuple[str, ...]) -> None:
        super().__init__(params, lr, moments)
        self._missed: MissedSteps | None = None
        # Of parameters with row-sparse gradients, the number of each row's last step.
        self._last_steps: dict[str, NDArray[np.int64]] = {}

    def step(self, grads: Gradients, lr: float | None = None) -> None:
        """Make one step: change parameters in place. The gradients are left as they are.

        Parameters
        ----------
        grads : mapping of str to array or RowGradient
            A gradient for every parameter, of its name and shape. Of a RowGradient only the rows it
            holds are changed; what the others miss is made up for later.
        lr : float, optional
            Learning rate of this step alone.

        Raises
        ------
        ArgumentError
            If a name is missing or unknown, the learning rate is out of range, or a gradient is
            row-sparse where it cannot be: with both momentum and weight decay, for a parameter that
            is not C-contiguous, or where the rate times weight decay is not below 1.
        ShapeError
            If a gradient has not the shape of its parameter.
        ArgumentTypeError
            If a gradient is not an array of floats.

        Notes
        -----
        All is checked before the first number changes. A gradient that is not finite is not an
        error: it goes where arithmetic takes it.
        """
        rate = check_number("lr", self.lr if lr is None else lr, 0.0)
        self._check_gradients(grads)
        sparse = {name: grad for name, grad in grads.items() if isinstance(grad, RowGradient)}
        self._check_sparse(sparse, rate)
        self._expect_gaps(sparse)
        self.step_count += 1
        for name, grad in grads.items():
            if isinstance(grad, RowGradient):
                self._step_rows(name, grad, rate)
            else:
                self._step_all(name, grad, rate)
        if self._missed is not None:
            self._missed.add(rate)
            if self._missed.count == MOST_STEPS:
                self.bring_up_to_date()

    def bring_up_to_date(self) -> None:
        """Make up for the steps that rows have missed; without row-sparse gradients there are none.

        Parameters are then what gradients of 0 would have made of them, up to rounding; of Adam,
        without the moves along moments that fade away. Call it before parameters are evaluated or
        saved. A state needs it not: it remembers what rows have missed.
        """
        for name in list(self._last_steps):
            self._finish(name)
        self._missed = None

    def _check_sparse(self, sparse: Mapping[str, RowGradient], rate: float) -> None:
        """Raise unless row-sparse gradients can be taken."""
        if not sparse:
            return
        if self.weight_decay and self.momentum:
            raise ArgumentError(
                "argument 'grads' must hold no row-sparse gradients where there are both momentum "
                f"and weight decay, got {self.momentum} and {self.weight_decay}"
            )
        if rate * self.weight_decay >= 1.0:
            raise ArgumentError(
                f"argument 'lr' must be below {1.0 / self.weight_decay} for row-sparse gradients "
                f"with weight decay, got {rate}"
            )
        for name in sparse:
            if not self._params[name].flags.c_contiguous:
                raise ArgumentError(
                    "argument 'grads' must hold no row-sparse gradient for a parameter that is not "
                    f"C-contiguous, got one for '{name}'"
                )

    def _expect_gaps(self, sparse: Mapping[str, RowGradient]) -> None:
        """Remember the last steps of rows of these parameters, and of no others."""
        counts = {name: math.prod(grad.leading) for name, grad in sparse.items()}
        for name in [
            name for name, last in self._last_steps.items() if counts.get(name) != len(last)
        ]:
            self._finish(name)
        if not self._last_steps:
            self._missed = None
        if self._missed is None and sparse:
            self._missed = MissedSteps(self.step_count, self.weight_decay, self.momentum)
        for name, count in counts.items():
            if name not in self._last_steps:
                self._last_steps[name] = np.full(count, self.step_count, np.int64)

    def _finish(self, name: str) -> None:
        """Bring a parameter up to date, and forget that it was behind."""
        assert self._missed is not None
        last = self._last_steps[name]
        behind = np.flatnonzero(last < self.step_count)
        for part, block in row_blocks(behind, self._rows_of(name, len(last))):
            self._catch_up(name, self._missed, last[behind[part]], *block)
        del self._last_steps[name]

    def _step_all(self, name: str, grad: NDArray[Any], rate: float) -> None:
        """Make a step in every number of a parameter."""
        param = self._params[name]
        moments = [arrays[name] for arrays in self._moments.values()]
        scratch = np.empty(min(BLOCK, param.size), param.dtype)
        for block in blocks(param, grad, moments):
            self._update(name, rate, scratch[: block[0].size], *block)

    def _step_rows(self, name: str, grad: RowGradient, rate: float) -> None:
        """Make a step in the rows of a parameter that have a gradient."""
        assert self._missed is not None
        last_steps = self._last_steps[name]
        arrays = self._rows_of(name, len(last_steps))
        values = grad.values.reshape(len(grad.rows), arrays[0].shape[1])
        values = np.ascontiguousarray(values, arrays[0].dtype)
        last = last_steps[grad.rows]
        self._update_rows(name, rate, self._missed, last, grad.rows, values, arrays)
        last_steps[grad.rows] = self.step_count

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
        """Bring rows up to date, then update them; ``arrays`` are ``(param, *moments)``."""
        for part, block in row_blocks(rows, arrays):
            if missed.age(last[part]).any():
                self._catch_up(name, missed, last[part], *block)
            self._update(name, lr, np.empty_like(block[0]), block[0], values[part], *block[1:])

    def _update(self, name: str, lr: float, scratch: NDArray[Any], *block: NDArray[Any]) -> None:
        """Update one block, ``(param, grad, *moments)``; all pieces have the shape of scratch."""
        raise NotImplementedError

    def _catch_up(
        self, name: str, missed: MissedSteps, last: NDArray[np.int64], *block: NDArray[Any]
    ) -> None:
        """Make up for missed steps in some rows of ``(param, *moments)``, by their last steps."""
        raise NotImplementedError

    def _remembered(self) -> Iterator[tuple[str, NDArray[Any]]]:
        yield from super()._remembered()
        if self._missed is not None:
            yield RATES_KEY, self._missed.rates
        for name, last in self._last_steps.items():
            yield LAST_STEP + name, last

    def _expected(self, state: Arrays) -> dict[str, NDArray[Any]]:
        expected = super()._expected(state)
        rates = state.get(RATES_KEY)
        if not isinstance(rates, np.ndarray) or rates.ndim != 1 or len(rates) > MOST_STEPS:
            return expected
        expected[RATES_KEY] = np.empty(len(rates))
        for name, param in self._params.items():
            last = state.get(LAST_STEP + name)
            # How many axes the rows of a parameter were counted over is known to the state alone.
            counts = [math.prod(param.shape[:axes]) for axes in range(1, param.ndim + 1)]
            if isinstance(last, np.ndarray) and last.size in counts:
                expected[LAST_STEP + name] = np.empty(last.size, np.int64)
        return expected

    def _faults(self, state: Arrays) -> list[str]:
        faults = super()._faults(state)
        rates, step = state.get(RATES_KEY, np.empty(0)), int(state[STEP_KEY])
        possible = (rates >= 0.0) & (rates < np.inf) & (rates * self.weight_decay < 1.0)
        if len(rates) > max(0, step) or not possible.all():
            faults.append(f"'{RATES_KEY}' must hold learning rates of the last steps, got others")
        for name in self._params:
            last = state.get(LAST_STEP + name, np.empty(0))
            if not ((last >= step - len(rates)) & (last <= step)).all():
                faults.append(f"'{LAST_STEP}{name}' must hold numbers of these steps, got others")
        return faults

    def _take(self, state: Arrays) -> None:
        super()._take(state)
        self._missed, self._last_steps = None, {}
        if RATES_KEY in state:
            start = self.step_count - len(state[RATES_KEY])
            self._missed = MissedSteps(start, self.weight_decay, self.momentum)
            for rate in state[RATES_KEY].tolist():
                self._missed.add(rate)
        for name in self._params:
            if LAST_STEP + name in state:
                self._last_steps[name] = state[LAST_STEP + name].copy()


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum if asked for.

    Parameters
    ----------
    params : mapping of str to array
        Writable float32 or float64 arrays, changed in place by every step.
    lr : float
        Learning rate, at least 0.
    momentum : float
        From 0 to 1: how much of the last step's direction is added to the gradient.
    weight_decay : float
        At least 0. This times the parameter is added to the gradient of every parameter, biases
        included.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If an argument is out of its range or of the wrong kind.

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
            param *= _column(missed.decay(last), param)
        for velocity in velocities:
            param -= _column(missed.drift(last), param) * velocity
            velocity *= _column(self.momentum ** missed.age(last), param)

    def _options(self) -> dict[str, Any]:
        return {"lr": self.lr, "momentum": self.momentum, "weight_decay": self.weight_decay}


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
        Above 0; added to the root, so that a parameter whose gradients were all 0 stays.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If an argument is out of its range or of the wrong kind.

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
            array *= _column(factors, array)

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
        kernel = kernels.selection().adam_rows
        if kernel is None:
            super()._update_rows(name, lr, missed, last, rows, values, arrays)
            return
        beta1, beta2 = self.betas
        root, scale = self._corrections(lr)
        factors = np.array(self._factors(name, missed, last), values.dtype)
        shrink = 1.0 - lr * self._decay_of(name)
        numbers = (shrink, 1.0 - beta1, beta2, 1.0 - beta2, root, self.eps, scale)
        kernel(*arrays, values, rows, factors, numbers)

    def _factors(
        self, name: str, missed: MissedSteps, last: NDArray[np.int64]
    ) -> tuple[NDArray[Any], ...]:
        """By what the parameter and both moments shrink in missed steps, for each row."""
        ages = missed.age(last)
        decay = missed.decay(last) if self._decay_of(name) else np.ones(len(last))
        return decay, self.betas[0] ** ages, self.betas[1] ** ages

    def _corrections(self, lr: float) -> tuple[float, float]:
        """Root and scale of `adam_rule`: moments start at 0, and their expectations fall short."""
        beta1, beta2 = self.betas
        return math.sqrt(1.0 - beta2**self.step_count), lr / (1.0 - beta1**self.step_count)

    def _decay_of(self, name: str) -> float:
        """Weight decay of one parameter."""
        return 0.0

    def _options(self) -> dict[str, Any]:
        return {"lr": self.lr, "betas": self.betas, "eps": self.eps}


class AdamW(Adam):
    """Adam with decoupled weight decay, which spares the parameters with certain names.

    Parameters
    ----------
    params : mapping of str to array
        Writable float32 or float64 arrays, changed in place by every step.
    lr : float
        Learning rate, at least 0: about the size of a step.
    betas : tuple of two floats
        At least 0 and below 1: how much of the two running means is kept at each step.
    eps : float
        Above 0; added to the root, so that a parameter whose gradients were all 0 stays.
    weight_decay : float
        At least 0. Each step first multiplies the parameters by ``1 - lr * weight_decay``.
    no_decay : iterable of str
        Parameters whose names contain one of these strings do not decay.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If an argument is out of its range or of the wrong kind.

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
        The norm before clipping. If it is not finite the gradients are left as they are, so that
        the caller can tell, and may skip the step.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If max_norm is not a finite number of at least 0, or grads not a mapping of writable arrays
        of floats.

    Notes
    -----
    The factor is ``min(1, max_norm / (norm + 1e-6))``, as PyTorch has it. Squares are summed in
    float64, where no float32 overflows; float64 gradients beyond 1e154 have an infinite norm.

    References
    ----------
    "On the difficulty of training recurrent neural networks", arXiv 1211.5063, algorithm 1.
    """
    limit = check_number("max_norm", max_norm, 0.0)
    values = _values_of(grads)
    _check_arrays("grads", values)
    norm = math.sqrt(sum(_sum_of_squares(grad) for grad in values.values()))
    factor = limit / (norm + 1e-6)
    if math.isfinite(norm) and factor < 1.0:
        for grad in values.values():
            grad *= factor
    return norm


def _values_of(grads: Any) -> Any:
    """Return the numbers of gradients, those of the rows they hold where they are row-sparse."""
    if not isinstance(grads, Mapping):
        return grads
    return {
        name: grad.values if isinstance(grad, RowGradient) else grad for name, grad in grads.items()
    }


def _sum_of_squares(array: NDArray[Any]) -> float:
    """Sum the squares in float64, in an order that depends on nothing but the array's layout."""
    # BLAS would be a little faster, but its order of summation depends on the number of threads.
    total = 0.0
    walk = np.nditer(array, _WALK, op_dtypes=np.float64, buffersize=BLOCK)
    with np.errstate(over="ignore"), walk:
        for block in walk:
            total += float(np.square(block).sum())
    return total


def blocks(
    param: NDArray[Any], grad: NDArray[Any], moments: list[NDArray[Any]]
) -> Iterator[tuple[NDArray[Any], ...]]:
    """Walk arrays of one shape together, in flat pieces of at most BLOCK numbers.

    Pieces of contiguous arrays of the parameter's dtype are views. What has another layout or
    dtype passes through a buffer of one block, written back where it is to change.
    """
    arrays = [param, grad, *moments]
    access: list[list[Literal["readonly", "readwrite"]]] = [["readwrite"] for _ in arrays]
    access[1] = ["readonly"]
    dtypes = [param.dtype for _ in arrays]
    walk = np.nditer(arrays, _WALK, access, dtypes, casting="same_kind", buffersize=BLOCK)
    with walk:
        yield from walk


def row_blocks(
    rows: NDArray[Any], arrays: list[NDArray[Any]]
) -> Iterator[tuple[slice, list[NDArray[Any]]]]:
    """Walk the same rows of arrays (N, width), in blocks of about BLOCK numbers.

    Yields which of the rows come in a block, and copies of them, which go back into the arrays.
    """
    size = max(1, BLOCK // max(1, arrays[0].shape[1]))
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        block = [array[rows[part]] for array in arrays]
        yield part, block
        for array, changed in zip(arrays, block, strict=True):
            array[rows[part]] = changed


def _column(factors: NDArray[Any], rows: NDArray[Any]) -> NDArray[Any]:
    """Return a factor for each of some rows, in their dtype."""
    column: NDArray[Any] = factors.astype(rows.dtype)[:, np.newaxis]
    return column


def _check_arrays(argument: str, arrays: Any, writable: bool = True) -> None:
    """Raise unless the argument is a mapping from names to arrays of floats."""
    if not isinstance(arrays, Mapping):
        raise ArgumentTypeError(
            f"argument '{argument}' must be a mapping of names to arrays, got {describe(arrays)}"
        )
    for name, array in arrays.items():
        if not isinstance(name, str):
            raise ArgumentTypeError(
                f"argument '{argument}' must have strings as names, got {describe(name)}"
            )
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
            raise ArgumentTypeError(
                f"argument '{argument}' must hold NumPy arrays of floats, "
                f"got {describe(array)} for '{name}'"
            )
        if writable and not array.flags.writeable:
            raise ArgumentError(
                f"argument '{argument}' must hold writable arrays, got a read-only one for '{name}'"
            )


def check_betas(betas: tuple[float, float]) -> tuple[float, float]:
    """Return the two decay rates as floats, or raise."""
    expected = "argument 'betas' must be two numbers of at least 0 and below 1"
    try:
        first, second = betas
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"{expected}, got {describe(betas)}") from None
    rates = check_number("betas", first, 0.0, 1.0), check_number("betas", second, 0.0, 1.0)
    if max(rates) == 1.0:  # A mean that forgets nothing takes nothing in either.
        raise ArgumentError(f"{expected}, got {describe(betas)}")
    return rates


def check_eps(eps: float, params: Arrays) -> float:
    """Return what is added to the root as a float, or raise unless it is above 0 in every dtype."""
    number = check_number("eps", eps, 0.0)
    for name, param in params.items():
        # A node that no row visited has gradients of 0, and 0 / (0 + 0) would make it NaN.
        if param.dtype.type(number) == 0.0:
            raise ArgumentError(
                f"argument 'eps' must be above 0 in the {param.dtype} of '{name}', got {eps!r}"
            )
    return number


def _check_strings(argument: str, values: Any) -> tuple[str, ...]:
    """Return several strings as a tuple, or raise: a single one would be taken letter by letter."""
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


def _name_differences(expected: Arrays, given: Mapping[str, Any]) -> list[str]:
    """Say which names are missing and which unknown."""
    missing = [f"missing '{name}'" for name in expected if name not in given]
    return missing + [f"unknown '{name}'" for name in given if name not in expected]


def _array_differences(expected: Arrays, given: Mapping[str, Any]) -> list[str]:
    """Say which arrays of the same name have another shape or dtype."""
    differences = []
    for name, array in expected.items():
        other = given.get(name, array)
        same = isinstance(other, np.ndarray) and other.shape == array.shape
        if not same or other.dtype != array.dtype:
            differences.append(f"'{name}' must be {describe(array)}, got {describe(other)}")
    return differences
