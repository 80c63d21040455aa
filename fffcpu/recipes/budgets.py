"""Budgets of trainings on texts, and how often these evaluate, note and validate.

A budget is a number of passes or steps, or wall-clock time. At most one of them is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.checks import check_integer, check_number
from fffcpu.errors import ArgumentError

__all__ = ["evaluate_every", "note_every", "settle_budget", "spread"]

NOTES = 200
"""Approximate number of lines in the history of a run whose budget is in steps."""

EVALUATIONS = 10
"""Default number of evaluations of such a run."""

EVALUATED_STEPS = 250
"""Number of steps between evaluations if the budget is in seconds."""

NOTED_STEPS = 10
"""Number of steps between lines of the history if the budget is in seconds."""


def settle_budget(settings: Any, names: Sequence[str], epochs: float) -> None:
    """Set the default budget of frozen settings unless one is given.

    Parameters
    ----------
    settings : dataclass
        Settings with these fields, None where no budget is given.
    names : sequence of str
        Names of the budgets: ``"epochs"``, ``"steps"``, ``"seconds"``.
    epochs : float
        The default number of passes.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If several budgets are given, or one is out of range.
    """
    given = {name: getattr(settings, name) for name in names if getattr(settings, name) is not None}
    if len(given) > 1:
        *first, last = (f"'{name}'" for name in names)
        raise ArgumentError(
            f"argument {', '.join(first)} or {last} must be given alone, got {given}"
        )
    if not given:
        object.__setattr__(settings, "epochs", epochs)
    for name, value in given.items():
        if name == "steps":
            check_integer(name, value, 1)
        elif check_number(name, value, 0.0) == 0:
            raise ArgumentError(f"argument '{name}' must be above 0, got {value}")


def evaluate_every(steps: int | None, evaluations: int = EVALUATIONS) -> int:
    """Return the steps between evaluations; ``steps`` is None if the budget is in seconds."""
    return EVALUATED_STEPS if steps is None else max(1, steps // evaluations)


def note_every(steps: int | None) -> int:
    """Return the steps between lines of the history, for the same argument."""
    return NOTED_STEPS if steps is None else max(1, steps // NOTES)


def spread(count: int, most: int) -> NDArray[np.int64]:
    """Return at most ``most`` of the numbers from 0 to below ``count``, evenly spread."""
    return np.linspace(0, count - 1, min(count, most)).astype(np.int64)
