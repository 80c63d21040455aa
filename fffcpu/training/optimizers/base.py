"""The base of all optimizers: the arrays they train, checks, the state, and missed steps.

**Row-sparse gradients.** If a gradient is a `fffcpu.parameters.RowGradient`, a step changes only
the rows that it holds. The other rows catch up when they are next touched, or by
``bring_up_to_date``:

=====  =========================================================================================
SGD    exactly what a gradient of 0 does, decay and momentum included (not both together)
Adam   the moments shrink, ``m *= b1^k`` and ``v *= b2^k`` for k missed steps; the moves that
       dense Adam makes along a moment that fades away are left out
AdamW  the same, and the missed decay
=====  =========================================================================================

So if every step touches every row, results have the bits of dense gradients. `missed_steps`
explains the storage, docs/mathematics.md the correctness.

**Numbers that fade away.** After every update, a number of a parameter or a moment that is smaller
than the smallest normal number becomes 0; see `fffcpu.parameters.flush`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.checks import check_number, first_wrong
from fffcpu.errors import (
    ArgumentError,
    ArgumentTypeError,
    CheckpointError,
    ShapeError,
    describe,
)
from fffcpu.parameters import RowGradient, flush
from fffcpu.system.memory import check_memory
from fffcpu.training.optimizers.blocks import blocks, row_blocks, scratch_for
from fffcpu.training.optimizers.missed_steps import MOST_STEPS, MissedSteps

__all__ = ["Arrays", "Gradients", "Optimizer", "Stateful", "check_named_arrays", "values_of"]

Arrays = Mapping[str, NDArray[Any]]
Gradients = Mapping[str, NDArray[Any] | RowGradient]

STEP_KEY = "step"
"""Key of the step count in a state; the other keys are ``moment.parameter``."""

RATES_KEY = "rates"
LAST_STEP = "last_step."
"""Keys of the missed steps: learning rates, and by parameter each row's last step."""


class Stateful:
    """The base of all optimizers, local ones included: the arrays they train, checks, the state.

    A subclass names its moments, arrays of the parameters' shapes that start at 0.

    Parameters
    ----------
    params : mapping of str to array
        The writable float32 or float64 arrays to train. They are not copied, but changed in place.
        Parameters of several layers are trained together as one merged mapping with a prefix for
        each.
    lr : float
        Learning rate, at least 0, of steps without one of their own.
    moments : tuple of str
        Names of the moments.

    Attributes
    ----------
    lr : float
        The learning rate; may be set.
    step_count : int
        Number of steps made so far.
    """

    def __init__(self, params: Arrays, lr: float, moments: tuple[str, ...]) -> None:
        check_named_arrays("params", params)
        for name, param in params.items():
            if param.dtype not in (np.float32, np.float64):
                raise ArgumentTypeError(
                    f"argument 'params' must hold float32 or float64 arrays, "
                    f"got {describe(param)} for '{name}'"
                )
        self.lr = check_number("lr", lr, 0.0)
        self.step_count = 0
        check_memory(
            len(moments) * sum(param.nbytes for param in params.values()),
            f"{type(self).__name__}, which keeps {len(moments)} numbers for each parameter,",
        )
        self._params = dict(params)
        self._moments = {
            moment: {name: np.zeros_like(param, subok=False) for name, param in params.items()}
            for moment in moments
        }

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return a copy of the state: the step count, the moments, and the missed steps of rows.

        Returns
        -------
        dict of str to array
            ``step``, an int64 of shape (), and ``moment.parameter`` for each moment and parameter.
            With the parameters and the same options, it continues the training bit for bit.
        """
        return {key: array.copy() for key, array in self.state_views().items()}

    def state_views(self) -> dict[str, NDArray[Any]]:
        """Return the state like `state_dict`, without copies: the next step changes the arrays."""
        return {STEP_KEY: np.array(self.step_count, np.int64), **dict(self._remembered())}

    def load_state_dict(self, state: Arrays) -> None:
        """Load a state from ``state_dict`` of an optimizer of the same class and parameters.

        Parameters
        ----------
        state : mapping of str to array
            The state, which is copied.

        Raises
        ------
        ArgumentTypeError
            If it is not a mapping.
        CheckpointError
            If a key is missing or unknown, or an array has another shape or dtype than here. The
            optimizer is then unchanged.
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
        """Return the errors in the numbers of a state whose arrays have the right shapes."""
        if int(state[STEP_KEY]) < 0:
            return [f"'{STEP_KEY}' must be at least 0, got {int(state[STEP_KEY])}"]
        return []

    def _remembered(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Return the state without the step count."""
        yield from self._flat_moments()

    def _expected(self, state: Arrays) -> dict[str, NDArray[Any]]:
        """Return arrays of the required shapes and dtypes of a state, without the step count."""
        return dict(self._flat_moments())

    def _take(self, state: Arrays) -> None:
        """Load a state that fits."""
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
        check_named_arrays("grads", values_of(grads), writable=False)
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
    """The base of optimizers whose steps apply to all rows, at once or when a row needs them.

    A subclass implements ``_update``, the step of one block, and ``_catch_up``, the missed steps of
    rows.
    """

    weight_decay: float = 0.0
    """Weight decay, which also shrinks parameters without a gradient."""
    momentum: float = 0.0
    """Momentum, which also moves parameters without a gradient."""

    def __init__(self, params: Arrays, lr: float, moments: tuple[str, ...]) -> None:
        super().__init__(params, lr, moments)
        self._missed: MissedSteps | None = None
        # For parameters with row-sparse gradients: the number of each row's last step.
        self._last_steps: dict[str, NDArray[np.int64]] = {}

    def step(self, grads: Gradients, lr: float | None = None) -> None:
        """Make one step: change the parameters in place. The gradients are not changed.

        Parameters
        ----------
        grads : mapping of str to array or RowGradient
            A gradient for every parameter, of its name and shape. A RowGradient changes only the
            rows that it holds; the others catch up later.
        lr : float, optional
            Learning rate of this step only.

        Raises
        ------
        ArgumentError
            If a name is missing or unknown, or the learning rate is out of range. Row-sparse
            gradients are an error with both momentum and weight decay, for a parameter that is not
            C-contiguous, and if the rate times weight decay is not below 1.
        ShapeError
            If a gradient does not have the shape of its parameter.
        ArgumentTypeError
            If a gradient is not an array of floats.

        Notes
        -----
        All arguments are checked before the first number changes. A gradient that is not finite is
        not an error; its effect is that of the arithmetic.
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
        """Apply the steps that rows have missed; without row-sparse gradients there are none.

        The parameters then equal those after gradients of 0, up to rounding; for Adam, without the
        moves along moments that fade away. Call it before parameters are evaluated or saved. A
        state does not need it: it contains the missed steps.
        """
        for name in list(self._last_steps):
            self._finish(name)
        self._missed = None

    def _check_sparse(self, sparse: Mapping[str, RowGradient], rate: float) -> None:
        """Raise unless row-sparse gradients are possible."""
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
        """Keep the last steps of rows for these parameters only."""
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
        """Bring a parameter up to date, and drop the last steps of its rows."""
        assert self._missed is not None
        last = self._last_steps[name]
        behind = np.flatnonzero(last < self.step_count)
        for part, block in row_blocks(behind, self._rows_of(name, len(last))):
            self._catch_up(name, self._missed, last[behind[part]], *block)
            flush(*block)
        del self._last_steps[name]

    def _step_all(self, name: str, grad: NDArray[Any], rate: float) -> None:
        """Make a step for every number of a parameter."""
        param = self._params[name]
        moments = [arrays[name] for arrays in self._moments.values()]
        scratch = scratch_for(param)
        for block in blocks(param, grad, moments):
            self._update(name, rate, scratch[: block[0].size], *block)
            flush(block[0], *block[2:])

    def _step_rows(self, name: str, grad: RowGradient, rate: float) -> None:
        """Make a step for the rows of a parameter that have a gradient."""
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
            flush(*block)

    def _update(self, name: str, lr: float, scratch: NDArray[Any], *block: NDArray[Any]) -> None:
        """Update one block, ``(param, grad, *moments)``; all pieces have the shape of scratch."""
        raise NotImplementedError

    def _catch_up(
        self, name: str, missed: MissedSteps, last: NDArray[np.int64], *block: NDArray[Any]
    ) -> None:
        """Apply the missed steps of some rows of ``(param, *moments)``, given their last steps."""
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
            # Only the state has the number of axes over which the rows of a parameter are counted.
            counts = [math.prod(param.shape[:axes]) for axes in range(1, param.ndim + 1)]
            if isinstance(last, np.ndarray) and last.size in counts:
                expected[LAST_STEP + name] = np.empty(last.size, np.int64)
        return expected

    def _faults(self, state: Arrays) -> list[str]:
        faults = super()._faults(state)
        rates, step = state.get(RATES_KEY, np.empty(0)), int(state[STEP_KEY])
        possible = (rates >= 0.0) & (rates < np.inf) & (rates * self.weight_decay < 1.0)
        if len(rates) > max(0, step):
            faults.append(
                f"'{RATES_KEY}' must hold learning rates of the last steps, at most {step}, "
                f"got {len(rates)}"
            )
        if not possible.all():
            most = 1.0 / self.weight_decay if self.weight_decay else math.inf
            faults.append(
                f"'{RATES_KEY}' must hold learning rates of at least 0 and below {most:g}, "
                f"got {first_wrong(rates, possible)}"
            )
        for name in self._params:
            last = state.get(LAST_STEP + name, np.empty(0))
            known = (last >= step - len(rates)) & (last <= step)
            if not known.all():
                faults.append(
                    f"'{LAST_STEP}{name}' must hold numbers of these steps, from "
                    f"{step - len(rates)} to {step}, got {first_wrong(last, known)}"
                )
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


def values_of(grads: Any) -> Any:
    """Return the arrays of gradients; for row-sparse ones, those of the rows that they hold."""
    if not isinstance(grads, Mapping):
        return grads
    return {
        name: grad.values if isinstance(grad, RowGradient) else grad for name, grad in grads.items()
    }


def check_named_arrays(argument: str, arrays: Any, writable: bool = True) -> None:
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


def _name_differences(expected: Arrays, given: Mapping[str, Any]) -> list[str]:
    """Return the names that are missing and those that are unknown."""
    missing = [f"missing '{name}'" for name in expected if name not in given]
    return missing + [f"unknown '{name}'" for name in given if name not in expected]


def _array_differences(expected: Arrays, given: Mapping[str, Any]) -> list[str]:
    """Return the arrays of the same name whose shape or dtype differs."""
    differences = []
    for name, array in expected.items():
        other = given.get(name, array)
        same = isinstance(other, np.ndarray) and other.shape == array.shape
        if not same or other.dtype != array.dtype:
            differences.append(f"'{name}' must be {describe(array)}, got {describe(other)}")
    return differences
