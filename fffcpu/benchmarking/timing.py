"""Reliable timing: compile, then time the contenders in alternation.

On a shared machine the same code takes twice as long from one minute to the next. So only what was
measured side by side is compared::

    round     1             2             3
              A   B   C     A   B   C     A   B   C     time  -->
              |---|         |---|         |---|
    ratio     A1/B1         A2/B2         A3/B3         median: the figure quoted

Each contender runs once untimed, which compiles its kernels. A measurement takes as many calls as
fill a given time, and its figure is the time of one call. Before each measurement there is a short
rest. During it the idle threads of the last contender's pool stop spinning, and leave their cores
to the next contender.

Outputs are checked first, on distinct rows (`fffcpu.benchmarking.verification`). A figure is
compared with the limits of this machine by `fffcpu.benchmarking.roofline`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from timeit import Timer
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.checks import check_integer, check_number
from fffcpu.errors import ArgumentError

__all__ = [
    "REST",
    "Contender",
    "Timing",
    "Work",
    "alternate",
    "cycling",
    "doubts",
    "inference",
    "ratio",
    "ratios",
]

Array = NDArray[Any]

REST = 0.15
"""Seconds of rest before each measurement. OpenBLAS's idle threads spin for 2**26 ticks of the
processor's clock unless ``OPENBLAS_THREAD_TIMEOUT`` is set. That is a tenth of a second, as
measured, in which another contender has one core fewer."""

OUTPUT_GIVEN = 256
"""Least number of rows for which `inference` reuses two arrays, since large new arrays are slow."""


MOST_SPREAD = 0.1
"""Largest spread of the rounds of a figure that can be trusted."""


class Work(NamedTuple):
    """The work that a call must do, however it is implemented."""

    flops: float
    """Additions and multiplications."""
    bytes: float
    """Bytes that it must read or write, each counted once."""


class Contender(NamedTuple):
    """A call to be timed, and its name."""

    name: str
    """Name in tables."""
    run: Callable[[], object]
    """Makes one call."""
    rows: int
    """Rows per call, at least 1."""
    work: Work | None = None
    """Work of a call, where it is known."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """The measurements of one contender by `alternate`."""

    name: str
    """Name of the contender."""
    rows: int
    """Rows per call."""
    calls: int
    """Calls per measurement."""
    seconds: tuple[float, ...]
    """Seconds of one call, in each round."""
    work: Work | None = None
    """Work of a call, where it is known."""

    @property
    def microseconds(self) -> float:
        """Median over the rounds of the microseconds per row."""
        return statistics.median(self.seconds) / self.rows * 1e6

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, over the median."""
        low, middle, high = np.quantile(self.seconds, (0.25, 0.5, 0.75))
        return float((high - low) / (2 * middle))

    @property
    def rows_per_second(self) -> float:
        """Rows per second, at the median."""
        return 1e6 / self.microseconds

    @property
    def gigaflops(self) -> float | None:
        """Billions of additions and multiplications per second, at the median."""
        return self._rate(self.work.flops) if self.work else None

    @property
    def gigabytes(self) -> float | None:
        """Billions of bytes per second, at the median, if each byte is moved once."""
        return self._rate(self.work.bytes) if self.work else None

    def _rate(self, amount: float) -> float:
        return amount / statistics.median(self.seconds) / 1e9


def alternate(
    contenders: Sequence[Contender],
    repeats: int = 7,
    min_time: float = 0.05,
    rest: float | None = None,
) -> list[Timing]:
    """Time contenders in alternation: A B A B and so on.

    Parameters
    ----------
    contenders : sequence of Contender
        Calls to time. Each runs once untimed, so that compilation is not measured.
    repeats : int
        Number of rounds, at least 1. A figure to be quoted has at least 7.
    min_time : float
        Least seconds of a measurement. Calls are repeated to fill them.
    rest : float, optional
        Seconds of sleep before each measurement. The default is `REST`; with a ``min_time`` of 0,
        which shows that contenders run and not how fast they are, it is 0.

    Returns
    -------
    list of Timing
        Timings in the order of the contenders.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If there is no contender, or a number is out of range or has the wrong type.
    """
    if not contenders:
        raise ArgumentError("argument 'contenders' must have at least one contender, got none")
    for contender in contenders:
        check_integer("rows", contender.rows, 1)
    check_integer("repeats", repeats, 1)
    check_number("min_time", min_time, 0)
    if rest is None:
        rest = REST if min_time else 0.0
    check_number("rest", rest, 0)

    timers = [Timer(contender.run) for contender in contenders]
    calls = [_calls_to_fill(timer, min_time) for timer in timers]
    rounds = [
        [_measure(timer, number, rest) for timer, number in zip(timers, calls, strict=True)]
        for _ in range(repeats)
    ]
    return [
        Timing(contender.name, contender.rows, number, seconds, contender.work)
        for contender, number, seconds in zip(
            contenders, calls, zip(*rounds, strict=True), strict=True
        )
    ]


def _calls_to_fill(timer: Timer, min_time: float) -> int:
    """Return the number of calls that take ``min_time`` seconds, after one untimed call."""
    timer.timeit(1)
    calls = 1
    while (seconds := timer.timeit(calls)) < min_time:
        # One short measurement is not reliable, so no step is greater than tenfold.
        wanted = math.ceil(1.1 * calls * min_time / max(seconds, 1e-9))
        calls = min(10 * calls, max(wanted, calls + 1))
    return calls


def _measure(timer: Timer, calls: int, rest: float) -> float:
    """Return the seconds of one call."""
    time.sleep(rest)
    return timer.timeit(calls) / calls


def ratio(slow: Timing, fast: Timing) -> float:
    """Return the time per row of one contender over that of another.

    Parameters
    ----------
    slow, fast : Timing
        Timings from one call of `alternate`.

    Returns
    -------
    float
        Median over the rounds of the ratio within each round.

    Raises
    ------
    ArgumentError
        If the timings have different numbers of rounds.
    """
    return statistics.median(ratios(slow, fast))


def ratios(slow: Timing, fast: Timing) -> list[float]:
    """Return the ratio within each round. `ratio` is their median."""
    if len(slow.seconds) != len(fast.seconds):
        raise ArgumentError(
            "arguments 'slow' and 'fast' must come from one alternation, "
            f"got {len(slow.seconds)} and {len(fast.seconds)} rounds"
        )
    scale = fast.rows / slow.rows
    return [one / two * scale for one, two in zip(slow.seconds, fast.seconds, strict=True)]


def doubts(fast: Timing, slow: Timing | None = None, limit: float = math.inf) -> list[str]:
    """Return what speaks against a figure: usually another program that ran meanwhile.

    Parameters
    ----------
    fast : Timing
        The contender that the figure is about.
    slow : Timing, optional
        The contender that it is compared with, from the same call of `alternate`.
    limit : float
        The largest ratio that the arithmetic allows, neurons held over neurons used.

    Returns
    -------
    list of str
        Reasons, in words; empty if there is none.
    """
    timings = [fast] if slow is None or slow is fast else [fast, slow]
    reasons = [
        f"{timing.name} has a spread of {timing.spread:.0%}"
        for timing in timings
        if timing.spread > MOST_SPREAD
    ]
    if slow is not None and (times := ratio(slow, fast)) > limit:
        reasons.append(f"{times:,.1f}x exceeds the {limit:,.1f}x that the arithmetic allows")
    return reasons


def cycling(function: Callable[..., object], *inputs: Sequence[Any]) -> Callable[[], object]:
    """Return a function that passes the next item of each input at each call, cyclically.

    Parameters
    ----------
    function : callable
        Function that is called with one item of each input.
    *inputs : sequences
        Sequences to cycle through. Their lengths may differ.

    Returns
    -------
    callable
        Function for `Contender.run`. It adds about a tenth of a microsecond per call.
    """
    turns = zip(*map(itertools.cycle, inputs), strict=False)
    return lambda: function(*next(turns))


def inference(layer: Any, batches: Sequence[Array]) -> Callable[[], object]:
    """Return a function that runs a layer on batches in turn, in the fastest way to call it.

    From `OUTPUT_GIVEN` rows on, outputs go to two arrays in turn, so that a large one does not stay
    in cache. With fewer rows each call makes its own output.

    Parameters
    ----------
    layer : layer
        Layer that is called as ``layer(x)`` or ``layer(x, out=y)``.
    batches : sequence of arrays of shape (B, I)
        Batches, as `fffcpu.benchmarking.verification.distinct_batches` returns them.

    Returns
    -------
    callable
        Function for `Contender.run`.
    """
    if len(batches[0]) < OUTPUT_GIVEN:
        return cycling(layer, batches)
    outputs = [layer(batches[0]) for _ in range(2)]
    return cycling(lambda x, y: layer(x, out=y), batches, outputs)
