"""Dense layers of equal quality: their width, and their time.

Both are read off lines between the dense layers that were fitted::

    R2   |              *  512       the width of equal R2: linear in R2 and log2(width)
         |         *                 its time: linear in log2(width) and log2(time)
         |- - -*- - - - - FFF
         |  *
         +--------------- log2(width)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["Width", "equal_width", "time_of_width"]


class Width(NamedTuple):
    """A number of dense neurons."""

    neurons: float
    mark: str = ""
    """``<`` or ``>`` if it is extrapolated below or above the dense layers, else nothing."""


def equal_width(r2: float, dense: Mapping[int, float]) -> Width | None:
    """Return the width of the narrowest dense layer that is as good.

    Parameters
    ----------
    r2 : float
        R2 of a layer.
    dense : mapping of int to float
        R2 of the dense layers by width.

    Returns
    -------
    Width or None
        The width, infinite if the widest layers do not gain by their width; None with fewer than
        two dense layers.
    """
    points = sorted((math.log2(width), quality) for width, quality in dense.items())
    if len(points) < 2:
        return None
    if r2 < points[0][1]:
        return Width(_power(_crossing(r2, points[0], points[1], -math.inf)), "<")
    for left, right in itertools.pairwise(points):
        if left[1] <= r2 <= right[1]:
            return Width(_power(_crossing(r2, left, right, left[0])))
    return Width(_power(_crossing(r2, points[-2], points[-1], math.inf)), ">")


def time_of_width(width: float, times: Mapping[int, float]) -> float | None:
    """Return the time of a dense layer of a width, or None with fewer than two dense layers.

    Beyond the narrowest and the widest layer the line is continued.
    """
    points = sorted((math.log2(known), math.log2(time)) for known, time in times.items())
    if len(points) < 2 or not 0 < width < math.inf:
        return None
    place = math.log2(width)
    right = next((k for k in range(1, len(points)) if place <= points[k][0]), len(points) - 1)
    (x, y), (other_x, other_y) = points[right - 1], points[right]
    return _power(y + (place - x) * (other_y - y) / (other_x - x))


def _crossing(
    level: float, left: tuple[float, float], right: tuple[float, float], flat: float
) -> float:
    """Return where the line through two points has a level, or ``flat`` if it does not rise."""
    rise = right[1] - left[1]
    return left[0] + (level - left[1]) * (right[0] - left[0]) / rise if rise > 0 else flat


def _power(exponent: float) -> float:
    """Return 2 to a power, which may be infinite."""
    return math.inf if exponent >= 1024 else 2.0**exponent
