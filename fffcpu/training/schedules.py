"""Factors of the peak learning rate, as pure functions of the spent fraction of the budget.

The budget may be steps or seconds. A schedule takes the fraction ``f`` that is spent, 0 at the
start and 1 at the end; for steps ``f = step / steps``, counted from 0. Beyond 1, every schedule
keeps its value at 1, so a loop may exceed its budget::

    factor  1 |      .              .___            .________
              |    .' |            /    `.         /
              |  .'    |          /       `.      /
         0.25 |.'       |        /          `.   /
            0 +----------|      +-------------  +-----------
              0     3/4  1      0 w          1  0 u        1
            one_cycle_triangle       cosine      linear_warmup
"""

from __future__ import annotations

import math

from fffcpu.checks import check_number

__all__ = ["constant", "cosine", "linear_warmup", "one_cycle_triangle"]


def one_cycle_triangle(fraction: float) -> float:
    """Rise from a quarter to the peak at 3/4 of the budget, then fall to 0 at its end.

    The factor is ``max(0, min(0.25 + f, 4 - 4 f))``.

    Parameters
    ----------
    fraction : float
        Fraction f of the budget that is spent, at least 0; from 1 on the factor is 0.

    Returns
    -------
    float
        Factor of the peak learning rate, from 0 to 1.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If the fraction is not a finite number of at least 0.

    References
    ----------
    The one-cycle schedule of "Cramming: Training a Language Model on a Single GPU in One Day",
    arXiv 2212.14034, section 4.3, with the slopes of its published code.
    """
    spent = _spent(fraction)
    return min(0.25 + spent, 4.0 - 4.0 * spent)


def cosine(fraction: float, warmup: float = 0.1) -> float:
    """Rise linearly from 0 to the peak, then fall along half a cosine to 0.

    Up to ``f = w`` the factor is ``f / w``, after it ``(1 + cos(pi (f - w) / (1 - w))) / 2``.

    Parameters
    ----------
    fraction : float
        Fraction f of the budget that is spent, at least 0; from 1 on the factor stays. A loop that
        does not want a first step of factor 0 passes ``(step + 1) / steps``.
    warmup : float
        Fraction w of the budget, from 0 to 1, at which the peak is reached; 0 starts at the peak.

    Returns
    -------
    float
        Factor of the peak learning rate, from 0 to 1.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If an argument is not a finite number or is out of its range.

    References
    ----------
    The decay is one period of equation 5 of "SGDR: Stochastic Gradient Descent with Warm
    Restarts", arXiv 1608.03983, with a smallest rate of 0.
    """
    spent, peak = _spent(fraction), check_number("warmup", warmup, 0.0, 1.0)
    # The rise includes its end, so that a warm-up over the whole budget never reaches 0 / 0 below.
    if spent <= peak and peak > 0.0:
        return spent / peak
    return 0.5 * (1.0 + math.cos(math.pi * (spent - peak) / (1.0 - peak)))


def linear_warmup(fraction: float, until: float) -> float:
    """Rise linearly from 0 to the peak and stay there: ``min(1, f / until)``.

    Parameters
    ----------
    fraction : float
        Fraction f of the budget that is spent, at least 0. A loop that does not want a first step
        of factor 0 passes ``(step + 1) / steps``.
    until : float
        Fraction of the budget, from 0 to 1, at which the peak is reached; 0 starts at the peak.

    Returns
    -------
    float
        Factor of the peak learning rate, from 0 to 1.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If an argument is not a finite number or is out of its range.
    """
    spent, peak = _spent(fraction), check_number("until", until, 0.0, 1.0)
    return spent / peak if spent < peak else 1.0


def constant(fraction: float) -> float:
    """Stay at the peak: 1 for every fraction of the budget.

    Parameters
    ----------
    fraction : float
        Fraction f of the budget that is spent, at least 0.

    Returns
    -------
    float
        1.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If the fraction is not a finite number of at least 0.
    """
    _spent(fraction)
    return 1.0


def _spent(fraction: float) -> float:
    """Return the checked fraction of the budget, at most 1."""
    return min(check_number("fraction", fraction, 0.0), 1.0)
