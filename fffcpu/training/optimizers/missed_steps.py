"""The steps that rows of a parameter miss while row-sparse gradients do not hold them.

Without a gradient, the effect of a step on a row is known beforehand, so it can wait until the row
is touched again. A row whose last step was l, and which steps l + 1 ... n did not touch, has missed

=========  ========================================  ==========================================
age        ``n - l``                                 Adam's moments shrink by ``beta ** age``
decay      ``prod (1 - lr_s weight_decay)``          the parameter shrinks by it (SGD, AdamW)
drift      ``sum lr_s momentum ** (s - l)``          SGD moves by the row's velocity times this
=========  ========================================  ==========================================

over s = l + 1 ... n. A row stores only its l; terms that depend on s are stored once for all rows::

    step      start    start + 1   ...      l      ...      n
    decays      0       log(1 - lr wd), added up ............    decay = exp(decays[n] - decays[l])
    drifts      drift of a row whose last step was this one      0

docs/mathematics.md derives the sums.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_STEPS", "MissedSteps"]

MOST_STEPS = 1 << 14
"""Steps after which all rows are brought up to date, so that memory is bounded: 128 KiB per array.
For any number of rows, the cost per step is a 16,384th of that."""

NEGLIGIBLE = 2.0**-60
"""A velocity that has shrunk by this factor moves no parameter."""


class MissedSteps:
    """The steps since one at which every row was up to date.

    Parameters
    ----------
    start : int
        Number of that step.
    weight_decay, momentum : float
        Options of the optimizer; at most one of them is above 0.
    """

    def __init__(self, start: int, weight_decay: float = 0.0, momentum: float = 0.0) -> None:
        self.start = start
        self.count = 0
        self._weight_decay = weight_decay
        self._rates = np.zeros(MOST_STEPS)
        self._decays = np.zeros(MOST_STEPS + 1)
        self._drifts = np.zeros(MOST_STEPS + 1)
        reach = MOST_STEPS
        if momentum < 1.0:
            reach = math.ceil(math.log(NEGLIGIBLE) / math.log(momentum)) if momentum else 0
        self._powers = momentum ** np.arange(min(reach, MOST_STEPS), 0.0, -1.0)

    def add(self, lr: float) -> None:
        """Add a step with this learning rate."""
        now = self.count
        self._rates[now] = lr
        self._decays[now + 1] = self._decays[now] + math.log1p(-lr * self._weight_decay)
        recent = min(now + 1, len(self._powers))
        if recent:
            self._drifts[now + 1 - recent : now + 1] += lr * self._powers[-recent:]
        self.count = now + 1

    @property
    def rates(self) -> NDArray[Any]:
        """The learning rates, from which `add` rebuilds the other values."""
        return self._rates[: self.count]

    def age(self, last: NDArray[Any]) -> NDArray[Any]:
        """Return the number of steps that rows have missed, given their last steps' numbers."""
        missed: NDArray[Any] = self.start + self.count - last
        return missed

    def decay(self, last: NDArray[Any]) -> NDArray[Any]:
        """Return the factor of the missed decay of rows, given their last steps' numbers."""
        factor: NDArray[Any] = np.exp(self._decays[self.count] - self._decays[last - self.start])
        return factor

    def drift(self, last: NDArray[Any]) -> NDArray[Any]:
        """Return the missed move of rows over their velocity, given their last steps' numbers."""
        drift: NDArray[Any] = self._drifts[last - self.start]
        return drift
