"""The training loop: steps, evaluations, early stopping, checkpoints, resumption.

The loop does not depend on layers. It trains an `Objective`, which returns the gradients of a batch
and evaluates. A run is a pure function of its settings and seeds: the batch, the learning rate and
the random numbers of a step depend only on the number of the step. So a run that is killed at any
moment continues from its last checkpoint, and ends with the bits of an uninterrupted run::

    step      0 ......... 500 ......... 1000 ... killed at 1300
    history   {...}       {...}         {...}
    checkpoint            |             |
    resumed                             1000 ......... 1500 .........

With a budget in seconds, or another number of BLAS threads, the bits may differ. The files are
those of a `RunFolder`.

Callbacks are called after each evaluation. They see the `Evaluation`, and may stop the run; they
have no other influence on it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fffcpu.checks import check_flag, check_integer, check_number, first_wrong
from fffcpu.errors import ArgumentError, ArgumentTypeError, CheckpointError, describe
from fffcpu.system.memory import check_memory
from fffcpu.training.interruption import StopRequest
from fffcpu.training.optimizers import clip_gradients
from fffcpu.training.progress import StepBar
from fffcpu.training.run_folder import Checkpoint, RunFolder
from fffcpu.training.schedules import constant

__all__ = [
    "Callback",
    "Evaluation",
    "Interrupted",
    "Moment",
    "Objective",
    "Outcome",
    "StepResult",
    "StopTraining",
    "Trainer",
    "TrainerSettings",
    "identity_of",
]

Array = NDArray[Any]
Arrays = Mapping[str, Array]

_LOGGER = logging.getLogger(__name__)

LONGEST_VALUE = 200
"""Characters of a value in an error."""

_GROUPS = ("param", "optimizer", "best", "usage")
"""Prefixes of the names of a checkpoint's arrays."""


@dataclasses.dataclass
class _Mean:
    """A running mean of numbers."""

    total: float = 0.0
    count: int = 0

    def add(self, number: float) -> None:
        """Add a number."""
        self.total += number
        self.count += 1

    @property
    def value(self) -> float:
        """The mean of the numbers, at least one."""
        return self.total / self.count


class Moment(NamedTuple):
    """The position of a step in a run."""

    step: int
    """Number of the step, from 0."""
    fraction: float
    """Fraction of the budget that is spent before it, from 0 to below 1."""
    rng: np.random.Generator
    """Generator for the random numbers of this step."""
    rows: int = 0
    """Number of rows (or tokens) of the steps before it."""


class StepResult(NamedTuple):
    """The result of an objective for a batch."""

    loss: float
    grads: dict[str, Any]
    """The gradients of the objective's parameters; they may be changed."""
    rows: int
    """Number of rows (or tokens) of the batch."""
    usage: dict[str, Array]
    """Number of rows that used each node, by parameter; may be empty. Added up over the run."""


class Objective(Protocol):
    """The interface of the objectives that a `Trainer` trains."""

    @property
    def params(self) -> Arrays:
        """The arrays that training changes."""
        ...

    def step(self, moment: Moment) -> StepResult:
        """Return the loss and the gradients of a batch, which depends only on the moment."""
        ...

    def evaluate(self) -> dict[str, float]:
        """Return the figures of an evaluation, by name; may be empty."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """Settings of a training run.

    Parameters
    ----------
    steps : int, optional
        Budget in steps. Either this or ``seconds`` must be given.
    seconds : float, optional
        Budget in seconds of wall-clock time, including evaluations and the time before
        interruptions.
    lr : float
        Peak learning rate.
    schedule : callable
        Maps the spent fraction of the budget to a factor of ``lr`` (`fffcpu.training.cosine` and so
        on).
    max_norm : float, optional
        Largest joint norm of the gradients; larger ones are clipped.
    evaluate_every : int, optional
        Steps between evaluations; there is always one at the end. Default: only this one.
    note_every : int, optional
        Steps between lines of the history without an evaluation.
    patience : int, optional
        Number of consecutive evaluations without improvement after which the run stops.
    watch : str
        The figure by which evaluations are compared.
    higher_is_better : bool
        Whether a greater ``watch`` is better.
    keep_best : bool
        Whether the run ends with the parameters of the best evaluation.
    checkpoint_seconds : float
        Seconds between checkpoints.
    keep : int
        Number of checkpoints to keep.
    seed : int
        Seed of the random numbers of the steps.
    """

    steps: int | None = None
    seconds: float | None = None
    lr: float
    schedule: Callable[[float], float] = constant
    max_norm: float | None = None
    evaluate_every: int | None = None
    note_every: int | None = None
    patience: int | None = None
    watch: str = "loss"
    higher_is_better: bool = False
    keep_best: bool = False
    checkpoint_seconds: float = 30.0
    keep: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.seconds is None):
            raise ArgumentError(
                "argument 'steps' or 'seconds' must be given, and only one of them, "
                f"got {self.steps} and {self.seconds}"
            )
        for name in ("steps", "evaluate_every", "note_every", "patience"):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), 1)
        if self.seconds is not None:
            check_number("seconds", self.seconds, 0.0)
        check_number("lr", self.lr, 0.0)
        if self.max_norm is not None:
            check_number("max_norm", self.max_norm, 0.0)
        check_flag("higher_is_better", self.higher_is_better)
        check_flag("keep_best", self.keep_best)
        check_number("checkpoint_seconds", self.checkpoint_seconds, 0.0)
        check_integer("keep", self.keep, 1)
        check_integer("seed", self.seed, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The figures of an evaluation, and where in the run it was made: what callbacks get."""

    number: int
    """Number of the evaluation, from 1. `fffcpu.recipes.fitting.fit` evaluates once per epoch."""
    step: int
    """Number of steps made so far."""
    rows: int
    """Number of rows (or tokens) of these steps."""
    seconds: float
    """Time spent on them, including evaluations and the time before interruptions."""
    lr: float
    """Learning rate of the last step."""
    train_loss: float | None
    """Mean loss of the steps since the previous line of the history."""
    figures: Mapping[str, float]
    """The figures, by name; read-only."""
    improved: bool
    """Whether this is the best evaluation so far, by the watched figure."""


Callback = Callable[[Evaluation], object]
"""A function that is called after each evaluation; what it returns is ignored."""


class StopTraining(Exception):  # noqa: N818  # no error: a callback raises it to stop a run
    """Raised by a callback, stops the run as if its budget were spent."""


class Outcome(NamedTuple):
    """The outcome of a run."""

    steps: int
    """Number of steps made."""
    rows: int
    """Number of rows (or tokens) of these steps."""
    seconds: float
    """Time spent, including the time before interruptions."""
    figures: dict[str, float]
    """Figures of the evaluation whose parameters were kept; empty if there was no evaluation."""
    stopped_early: bool
    """Whether it stopped before its budget was spent, by patience or by a callback."""
    usage: dict[str, Array]
    """The sum of the usage of all steps."""


class Interrupted(KeyboardInterrupt):
    """A run was interrupted. It saved its state before, if it has a folder."""

    def __init__(self, step: int, folder: Path | None) -> None:
        self.step = step
        self.folder = folder
        saved = f"its state is saved in '{folder}'" if folder else "nothing was saved"
        super().__init__(f"training was interrupted after {step} steps; {saved}")


class Trainer:
    """Runs an optimizer on an objective, and saves its state to continue after interruptions.

    Parameters
    ----------
    objective : Objective
        The objective to train.
    optimizer : Optimizer
        Optimizer of the objective's parameters, with ``step(grads, lr)``, ``state_dict`` and
        ``load_state_dict``.
    settings : TrainerSettings
        Budget, schedule and so on.
    folder : path, optional
        Folder for checkpoints and the history, created if missing. Without it nothing is written.
    identity : mapping, optional
        JSON values that identify the run (data, layer, options). A checkpoint with another identity
        is rejected.
    former_values : mapping of str to mapping, optional
        For each name of an identity's entry, a mapping of former values to the present ones.
    callbacks : sequence of callable
        Functions that are called after each evaluation, in this order, with an `Evaluation`. One
        that raises `StopTraining` stops the run after the others were called. Any other exception
        ends `run`, which saves the state first. They must not change the objective. A resumed run
        calls them again for evaluations that followed its last checkpoint.
    unit : str
        Unit of ``StepResult.rows``, for the progress bar and the history.
    progress : bool, optional
        Whether to show a progress bar on standard error; by default if it is a terminal.

    Attributes
    ----------
    run_folder : RunFolder or None
        The folder, if there is one.
    step : int
        Number of steps made so far.
    rows : int
        Number of rows (or tokens) of these steps.
    history : list of dict
        A line for each evaluation, and for each ``settings.note_every`` steps, including those
        before the run was resumed. A line has step, rows, seconds, lr, the mean loss of the steps
        since the previous line, and the figures, with None for values that are not finite. The
        folder contains the same lines.
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: Any,
        settings: TrainerSettings,
        *,
        folder: str | os.PathLike[str] | None = None,
        identity: Mapping[str, Any] | None = None,
        former_values: Mapping[str, Mapping[str, str]] | None = None,
        callbacks: Sequence[Callback] = (),
        unit: str = "rows",
        progress: bool | None = None,
    ) -> None:
        self.objective = objective
        self.optimizer = optimizer
        self.settings = settings
        self.run_folder = RunFolder(folder) if folder is not None else None
        self.step = self.rows = 0
        self.history: list[dict[str, Any]] = []
        self._identity = json.loads(json.dumps(dict(identity or {})))
        self._former_values = dict(former_values or {})
        self._callbacks = _check_callbacks(callbacks)
        self._unit = unit
        self._progress = progress
        # Seconds of earlier runs, and of this one up to its last look at the clock.
        self._spent = 0.0
        self._best: dict[str, float] = {}
        self._best_params: dict[str, Array] = {}
        self._since_best = 0
        self._usage: dict[str, Array] = {}
        self._losses, self._norms = _Mean(), _Mean()  # since the last line of the history
        self._evaluated_at = 0  # the step of the last evaluation
        self._noted_at = 0  # the step of the history's last line
        self._figures: dict[str, float] = {}
        self._stopped = False  # by a callback

    # --- Running ---------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Train until the budget is spent, patience runs out, or a callback or signal ends the run.

        Returns
        -------
        Outcome
            The outcome. After the run, the parameters are those of the best evaluation if
            ``settings.keep_best``, else the last ones.

        Raises
        ------
        Interrupted
            After Ctrl-C or SIGTERM, when the current step is done and the state is saved.
        FloatingPointError
            If a loss is not finite; the parameters are then those before the step. Also if a
            parameter is not finite when it is to be saved, or at the end.
        OSError
            If the folder cannot be written to.
        Exception
            Of a callback, after the state is saved.
        """
        if self.run_folder is not None:
            self.run_folder.check_notes(self._notes())
            self.run_folder.prepare()
            self.history = self.run_folder.cut_history(self._noted_at)
        if self.settings.keep_best and not self._best_params:
            check_memory(
                sum(array.nbytes for array in self.objective.params.values()),
                "a copy of the best parameters",
            )
        self._make_steps()
        self._check_finite()
        self.save()  # nothing is lost if the rest fails
        if self.settings.keep_best and self._best_params:
            for name, array in self.objective.params.items():
                array[...] = self._best_params[name]
        figures = self._best if self.settings.keep_best else self._figures
        stopped_early = self._has_stopped_early()
        ended = "stopped early" if stopped_early else "ended"
        _LOGGER.info("run %s after %d steps and %.3g s", ended, self.step, self._spent)
        return Outcome(self.step, self.rows, self._spent, dict(figures), stopped_early, self._usage)

    def _make_steps(self) -> None:
        """Make all remaining steps, and the evaluations and checkpoints between them."""
        started = time.monotonic() - self._spent
        saved_at = time.monotonic()
        with StopRequest() as stop, self._bar() as bar:
            while not self._is_done():
                result, rate = self._make_step()
                self._spent = time.monotonic() - started
                bar.advance(result.loss, result.rows, self._best_so_far(), self._time_left())
                del result  # its gradients take memory, which the next step needs
                lines = len(self.history)
                self._look(rate)
                if len(self.history) > lines and self._evaluated_at == self.step:
                    bar.keep(self.history[-1])
                self._spent = time.monotonic() - started
                now = time.monotonic()
                if stop.made:
                    self.save()
                    folder = self.run_folder.path if self.run_folder is not None else None
                    raise Interrupted(self.step, folder)
                if now - saved_at >= self.settings.checkpoint_seconds:
                    self.save()
                    saved_at = now
            if self._evaluated_at < self.step:
                self._evaluate(self._rate())
                bar.keep(self.history[-1])
            self._spent = time.monotonic() - started

    def _make_step(self) -> tuple[StepResult, float]:
        """Make one step; return the result of its batch, and the learning rate."""
        fraction, rate = self._fraction(), self._rate()
        rng = np.random.default_rng((self.settings.seed, self.step))
        with np.errstate(over="ignore", invalid="ignore"):  # checked below
            result = self.objective.step(Moment(self.step, fraction, rng, self.rows))
        if not math.isfinite(result.loss):
            raise FloatingPointError(
                f"the loss is {result.loss} at step {self.step}; "
                "a smaller learning rate or clipped gradients may help"
            )
        if self.settings.max_norm is not None:
            self._norms.add(clip_gradients(result.grads, self.settings.max_norm))
        usage = {"usage": result.usage} if getattr(self.optimizer, "takes_usage", False) else {}
        # Compiled steps warn of nothing; parameters are checked when they are saved.
        with np.errstate(over="ignore", invalid="ignore"):
            self.optimizer.step(result.grads, lr=rate, **usage)
        self.step += 1
        self.rows += result.rows
        self._losses.add(result.loss)
        self._count(result.usage)
        return result, rate

    def _look(self, rate: float) -> None:
        """Evaluate or add a line to the history, if it is due; `run` evaluates at the end."""
        every, often = self.settings.evaluate_every, self.settings.note_every
        if not self._budget_left():
            return
        if every and self.step % every == 0:
            self._evaluate(rate)
        elif often and self.step % often == 0:
            self._note(rate, {})

    def _count(self, usage: Mapping[str, Array]) -> None:
        """Add up usage; names that share an array are counted under the first name."""
        seen: set[int] = set()
        for name, counts in usage.items():
            if id(counts) not in seen:
                seen.add(id(counts))
                if name not in self._usage:
                    self._usage[name] = np.zeros(counts.shape)
                total = self._usage[name]
                if total.shape != counts.shape:
                    raise CheckpointError(
                        f"the checkpoint must have usage of shape {counts.shape} for '{name}', "
                        f"got {total.shape}"
                    )
                total += counts

    def _fraction(self) -> float:
        """Return the spent fraction of the budget."""
        if self.settings.steps is not None:
            return self.step / self.settings.steps
        return self._spent / self.settings.seconds if self.settings.seconds else 1.0

    def _rate(self) -> float:
        return self.settings.lr * self.settings.schedule(min(1.0, self._fraction()))

    def _budget_left(self) -> bool:
        return self._fraction() < 1.0

    def _has_stopped_early(self) -> bool:
        patience = self.settings.patience
        return self._stopped or (patience is not None and self._since_best >= patience)

    def _is_done(self) -> bool:
        return not self._budget_left() or self._has_stopped_early()

    def _evaluate(self, rate: float) -> None:
        """Evaluate, record the figures, keep the best parameters, and call the callbacks."""
        if hasattr(self.optimizer, "bring_up_to_date"):
            self.optimizer.bring_up_to_date()
        figures = self.objective.evaluate()
        self._evaluated_at, self._figures = self.step, dict(figures)
        watched = figures.get(self.settings.watch)
        best = self._best.get(self.settings.watch)
        sign = 1.0 if self.settings.higher_is_better else -1.0
        improved = (
            watched is None or best is None or math.isnan(best) or sign * (watched - best) > 0
        )
        if improved:
            self._best, self._since_best = dict(figures), 0
            if self.settings.keep_best:
                self._best_params = {
                    name: array.copy() for name, array in self.objective.params.items()
                }
        else:
            self._since_best += 1
        self._call_back(rate, figures, self._note(rate, figures), improved)

    def _call_back(
        self, rate: float, figures: Mapping[str, float], train_loss: float | None, improved: bool
    ) -> None:
        """Call the callbacks. If one raises, the state is saved before the exception propagates."""
        every = self.settings.evaluate_every
        evaluation = Evaluation(
            number=-(-self.step // every) if every else 1,
            step=self.step,
            rows=self.rows,
            seconds=self._spent,
            lr=rate,
            train_loss=train_loss,
            figures=MappingProxyType(dict(figures)),
            improved=improved,
        )
        _LOGGER.info("evaluation %d at step %d: %s", evaluation.number, self.step, dict(figures))
        for callback in self._callbacks:
            try:
                callback(evaluation)
            except StopTraining:
                self._stopped = True
            except BaseException:
                self.save()
                raise

    # --- Reporting -------------------------------------------------------------------------------

    def _note(self, rate: float, figures: Mapping[str, float]) -> float | None:
        """Add a line to the history; return the mean loss of the steps since the previous one."""
        train_loss = self._losses.value if self._losses.count else None
        line: dict[str, Any] = {"step": self.step, self._unit: self.rows}
        line |= {"seconds": round(self._spent, 3), "lr": rate}
        if train_loss is not None:
            line["train_loss"] = train_loss
        if self._norms.count:
            line["gradient_norm"] = self._norms.value
        line.update(figures)
        line = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in line.items()
        }
        self._losses, self._norms = _Mean(), _Mean()
        self._noted_at = self.step
        self.history.append(line)
        if self.run_folder is not None:
            self.run_folder.append(line)
        return train_loss

    def _bar(self) -> StepBar:
        return StepBar(self.settings.steps, self.step, self._unit, self._progress)

    def _best_so_far(self) -> tuple[str, float] | None:
        """Return the name and the best value of the watched figure."""
        name = self.settings.watch
        return (name, self._best[name]) if name in self._best else None

    def _time_left(self) -> float | None:
        """Return the seconds left of a budget in seconds."""
        return self.settings.seconds - self._spent if self.settings.seconds else None

    # --- Checkpoints -----------------------------------------------------------------------------

    def save(self) -> None:
        """Write a checkpoint, if there is a folder, and remove old ones.

        Raises
        ------
        FloatingPointError
            If a parameter is not finite. Older checkpoints stay.
        OSError
            If the folder cannot be written to.
        """
        if self.run_folder is None:
            return
        self._check_finite()
        # Views, if the optimizer has them, because copies take as much memory as its moments.
        state = getattr(self.optimizer, "state_views", self.optimizer.state_dict)()
        groups = (self.objective.params, state, self._best_params)
        arrays = {
            f"{prefix}.{name}": np.asarray(array, order="C")
            for prefix, group in zip(_GROUPS, (*groups, self._usage), strict=True)
            for name, array in group.items()
        }
        self.run_folder.save(self.step, arrays, self._notes(), keep=self.settings.keep)

    def _notes(self) -> dict[str, Any]:
        """Return the state that is not in arrays, in JSON values."""
        return {
            "identity": self._identity,
            "step": self.step,
            "rows": self.rows,
            "seconds": self._spent,
            "best": self._best,
            "since_best": self._since_best,
            "evaluated_at": self._evaluated_at,
            "noted_at": self._noted_at,
            "figures": self._figures,
            "losses": dataclasses.astuple(self._losses),
            "norms": dataclasses.astuple(self._norms),
            "stopped": self._stopped,
        }

    def _check_finite(self) -> None:
        """Raise if a parameter is not finite; the last checkpoint is then one that still was."""
        for name, array in self.objective.params.items():
            # A sum is finite if all numbers are, unless it overflows, and takes no memory.
            if not np.isfinite(np.sum(array, dtype=np.float64)) and not np.isfinite(array).all():
                raise FloatingPointError(
                    f"parameter '{name}' has {first_wrong(array, np.isfinite(array))} after step "
                    f"{self.step}; a smaller learning rate or clipped gradients may help"
                )

    def begin(self, resume: bool) -> None:
        """Continue the run in the folder, or raise if a new run would replace it.

        Parameters
        ----------
        resume : bool
            Whether to continue from the newest checkpoint, if the folder contains one.

        Raises
        ------
        CheckpointError
            If the checkpoint is from another run, or ``resume`` is false and there is one.
        """
        if self.run_folder is None:
            return
        if resume:
            self.resume()
        else:
            self.run_folder.check_finished()

    def resume(self) -> bool:
        """Load the state of the newest whole checkpoint in the folder.

        Returns
        -------
        bool
            False if the folder contains no checkpoint, so that the run starts from the beginning.

        Raises
        ------
        CheckpointError
            If the checkpoint is from another run: other data, layer or options.
        """
        checkpoint = self.run_folder.latest() if self.run_folder is not None else None
        if checkpoint is None:
            return False
        self._take(checkpoint)
        return True

    def _take(self, checkpoint: Checkpoint) -> None:
        """Load a checkpoint's state."""
        path, notes, arrays = checkpoint
        _check_notes(path, notes)
        identity = _with_todays_values(notes["identity"], self._former_values)
        differences = _differences(identity, self._identity)
        if differences:
            raise CheckpointError(f"checkpoint '{path}' is from another run: {differences}")
        groups: dict[str, dict[str, Array]] = {prefix: {} for prefix in _GROUPS}
        for key, array in arrays.items():
            prefix, _, name = key.partition(".")
            groups.setdefault(prefix, {})[name] = array
        params = self.objective.params
        best = groups["best"] or params  # empty unless the best parameters are kept
        if any(_kinds(group) != _kinds(params) for group in (groups["param"], best)):
            raise CheckpointError(f"checkpoint '{path}' holds other parameters than this run")
        if len(groups) > len(_GROUPS) or any(
            u.dtype != np.float64 for u in groups["usage"].values()
        ):
            raise CheckpointError(f"checkpoint '{path}' holds other arrays than a run's")
        try:
            self.optimizer.load_state_dict(groups["optimizer"])
        except CheckpointError as error:
            raise CheckpointError(f"checkpoint '{path}': {error}") from error
        for name, array in params.items():
            array[...] = groups["param"][name]
        self._best_params, self._usage = groups["best"], groups["usage"]
        self.step, self.rows = notes["step"], notes["rows"]
        self._spent = float(notes["seconds"])
        self._best, self._since_best = notes["best"], notes["since_best"]
        self._evaluated_at, self._figures = notes["evaluated_at"], notes["figures"]
        self._noted_at, self._stopped = notes["noted_at"], notes.get("stopped", False)
        self._losses, self._norms = _Mean(*notes["losses"]), _Mean(*notes["norms"])
        _LOGGER.info("resumed from '%s' at step %d", path, self.step)


def _check_callbacks(callbacks: Any) -> tuple[Callback, ...]:
    """Return callbacks as a tuple, or raise."""
    if not isinstance(callbacks, Sequence) or not all(map(callable, callbacks)):
        raise ArgumentTypeError(
            f"argument 'callbacks' must be a sequence of functions, got {describe(callbacks)}"
        )
    return tuple(callbacks)


def _kinds(arrays: Arrays) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return the shape and dtype of each array."""
    return {name: (array.shape, array.dtype.name) for name, array in arrays.items()}


_LARGEST = 2**62
"""Largest integer in the notes of a checkpoint."""


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) <= _LARGEST)


def _are_figures(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


def _is_mean(value: Any) -> bool:
    return (
        isinstance(value, list) and len(value) == 2 and _is_number(value[0]) and _is_count(value[1])
    )


_NOTES: Mapping[str, tuple[str, Callable[[Any], bool]]] = MappingProxyType(
    {
        "identity": ("an object", lambda value: isinstance(value, dict)),
        "seconds": (
            "a number of at least 0",
            lambda value: _is_number(value) and 0 <= value < math.inf,
        ),
        **dict.fromkeys(
            ("step", "rows", "since_best", "evaluated_at", "noted_at"),
            ("an integer of at least 0", _is_count),
        ),
        **dict.fromkeys(("best", "figures"), ("an object of numbers", _are_figures)),
        **dict.fromkeys(("losses", "norms"), ("a sum and a count", _is_mean)),
    }
)
"""The notes of a checkpoint: what each must be, in words, and a check."""


def _check_notes(path: Path, notes: Mapping[str, Any]) -> None:
    """Raise unless a checkpoint has all notes, and each is what it must be."""
    for name, (wanted, is_right) in _NOTES.items():
        if not is_right(notes.get(name)):
            raise CheckpointError(
                f"checkpoint '{path}' is damaged: its note '{name}' must be {wanted}, "
                f"got {describe(notes.get(name))}"
            )
    if type(notes.get("stopped", False)) is not bool:
        raise CheckpointError(f"checkpoint '{path}' is damaged: 'stopped' must be true or false")


def identity_of(settings: Any, added: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the settings, from a dataclass, that affect the result of a run.

    The frequency and the number of checkpoints do not affect it. Settings ``added`` by later
    versions are left out where they have the value given here, which earlier versions stood for. So
    their unfinished runs can be continued.
    """
    values = dataclasses.asdict(settings)
    for name in ("checkpoint_seconds", "keep"):
        del values[name]
    for name, value in (added or {}).items():
        if values[name] == value:
            del values[name]
    return values


def _with_todays_values(
    identity: Mapping[str, Any], former_values: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """Return an identity with former values of its entries replaced by the present ones."""
    today = dict(identity)
    for name, values in former_values.items():
        if isinstance(value := today.get(name), str):
            today[name] = values.get(value, value)
    return today


def _short(value: Any) -> str:
    """Return a value as Python writes it, cut if it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """Return a description of the entries in which two identities differ."""
    names = sorted({*theirs, *ours})
    return ", ".join(
        f"'{name}' was {_short(theirs.get(name))} and is {_short(ours.get(name))}"
        for name in names
        if theirs.get(name) != ours.get(name)
    )
