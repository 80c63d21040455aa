"""The progress bar of a run."""

from __future__ import annotations

import collections
import time
from types import TracebackType
from typing import Self

from fffcpu.system.terminal import progress_bar

__all__ = ["StepBar"]

RECENT_STEPS = 100
"""Number of steps over which the shown loss is a mean."""


class StepBar:
    """A bar on standard error that shows steps, the loss, the learning rate and the speed.

    Parameters
    ----------
    steps : int or None
        The budget in steps, if there is one.
    done : int
        Number of these steps that an earlier run made.
    unit : str
        Name of the rows of a step.
    shown : bool or None
        Whether to show the bar; None: if standard error is a terminal.
    """

    def __init__(self, steps: int | None, done: int, unit: str, shown: bool | None) -> None:
        self._unit = unit
        self._losses: collections.deque[float] = collections.deque(maxlen=RECENT_STEPS)
        self._rows, self._started = 0, time.monotonic()
        self._bar = progress_bar(
            total=steps, initial=done if steps else 0, unit="step", shown=shown
        )

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
        lr: float,
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
        lr : float
            Learning rate of the step.
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
        words = {"loss": f"{sum(self._losses) / len(self._losses):.4f}", "lr": f"{lr:.2e}"}
        if best is not None:
            words[f"best {best[0]}"] = f"{best[1]:.4f}"
        words[f"{self._unit}/s"] = f"{speed:,.0f}"
        if seconds_left is not None:
            words["left"] = f"{max(0.0, seconds_left):,.0f} s"
        self._bar.set_postfix(words, refresh=False)
        self._bar.update(1)
