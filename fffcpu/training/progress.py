"""What a run shows on standard error: a bar, and a line for each evaluation, which stays."""

from __future__ import annotations

import collections
import contextlib
import contextvars
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from fffcpu.system.terminal import format_number, print_status, progress_bar

__all__ = ["StepBar", "lines_in_logs"]

RECENT_STEPS = 100
"""Number of steps over which the shown loss is a mean."""


FORM = "{n_fmt}/{total_fmt} |{bar:8}| {elapsed}<{remaining}{postfix}"
OPEN_FORM = "{n_fmt} steps, {elapsed}{postfix}"
"""The bar with a budget in steps, and without: short, so that 80 columns hold its figures."""

_LOGGED = contextvars.ContextVar("fffcpu lines in logs", default=False)


@contextlib.contextmanager
def lines_in_logs() -> Iterator[None]:
    """Context in which runs print their lines also where standard error is no terminal.

    Commands use it, whose standard error may be a log. In programs only terminals get lines, unless
    they ask for progress.
    """
    token = _LOGGED.set(True)
    try:
        yield
    finally:
        _LOGGED.reset(token)


class StepBar:
    """A bar on standard error that shows steps, the loss and the speed, and lines that stay.

    Parameters
    ----------
    steps : int or None
        The budget in steps, if there is one.
    done : int
        Number of these steps that an earlier run made.
    unit : str
        Name of the rows of a step.
    shown : bool or None
        Whether to show the bar and the lines; None: if standard error is a terminal, and the lines
        also within `lines_in_logs`.
    """

    def __init__(self, steps: int | None, done: int, unit: str, shown: bool | None) -> None:
        self._unit, self._steps = unit, steps
        self._losses: collections.deque[float] = collections.deque(maxlen=RECENT_STEPS)
        self._rows, self._started = 0, time.monotonic()
        self._bar = progress_bar(
            total=steps,
            initial=done if steps else 0,
            unit="step",
            shown=shown,
            form=FORM if steps else OPEN_FORM,
        )
        self._prints = not self._bar.disable or (shown is None and _LOGGED.get())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()

    def advance(
        self,
        loss: float,
        rows: int,
        best: tuple[str, float] | None = None,
        seconds_left: float | None = None,
    ) -> None:
        """Show a step.

        Parameters
        ----------
        loss : float
            Loss of its batch.
        rows : int
            Number of rows of the batch.
        best : (str, float), optional
            Name and value of the best figure so far.
        seconds_left : float, optional
            Seconds left of a budget in seconds.
        """
        if self._bar.disable:
            return
        self._losses.append(loss)
        self._rows += rows
        speed = self._rows / max(1e-9, time.monotonic() - self._started)
        words = {} if best is None else {f"best {_short(best[0])}": f"{best[1]:.4f}"}
        words["loss"] = f"{sum(self._losses) / len(self._losses):.4f}"
        if seconds_left is not None:
            words["left"] = f"{max(0.0, seconds_left):,.0f} s"
        words[f"{self._unit}/s"] = f"{speed:,.0f}"
        self._bar.set_postfix(words, refresh=False)
        self._bar.update(1)

    def keep(self, line: Mapping[str, Any]) -> None:
        """Print a line of the history, of an evaluation, which stays above the bar.

        Parameters
        ----------
        line : mapping
            Has ``step`` and ``seconds``, and may have losses and other figures.
        """
        if not self._prints:
            return
        total = f" of {self._steps:,}" if self._steps else ""
        words = [f"step {line['step']:,}{total}"]
        left_out = {"step", "seconds", "lr", "gradient_norm", self._unit}
        for name, value in line.items():
            if name not in left_out:
                words.append(f"{name.replace('_', ' ')} {_figure(value)}")
        print_status(", ".join([*words, f"{format_number(line['seconds'])} s"]))


def _short(name: str) -> str:
    """Return the name of a figure as the bar has it."""
    return name.removeprefix("validation_")


def _figure(value: Any) -> str:
    """Return a figure of the history; None stands for one that is not finite."""
    return "not finite" if value is None else f"{value:.4f}"
