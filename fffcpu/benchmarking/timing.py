"""Timing that can be believed: compile, check, then time the contenders in alternation.

On a shared machine the same code takes twice as long from one minute to the next, so only what was
measured side by side is compared::

    round     1             2             3
              A   B   C     A   B   C     A   B   C     time  -->
              |---|         |---|         |---|
    ratio     A1/B1         A2/B2         A3/B3         median: the figure quoted

Each contender runs once untimed, which compiles its kernels. A measurement is as many calls as fill
a given time, and its figure the time of one call. Between two measurements lies a short rest, in
which the idle threads of the last contender's pool stop spinning and leave the cores to the next.

A figure counts only for an output that was checked (`check_paths` and its like), on
distinct random rows (`distinct_batches`, `cycling`): a repeated row finds its weights in the
nearest cache. What a figure is worth on this machine, `fffcpu.benchmarking.roofline` tells.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import itertools
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from timeit import Timer
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fffcpu.checks import check_integer, check_number
from fffcpu.config import Activation
from fffcpu.errors import ArgumentError
from fffcpu.kernels.backends import vectorized
from fffcpu.kernels.weights import LeafWeights, PathWeights
from fffcpu.layers import (
    DenseFeedForward,
    FastFeedForward,
    LeafFeedForward,
    QuantizedFastFeedForward,
)
from fffcpu.system.threads import get_thread_layer

__all__ = [
    "DISTINCT_ROWS",
    "Contender",
    "Timing",
    "Work",
    "WrongOutputError",
    "alternate",
    "check_close",
    "check_dense",
    "check_leaves",
    "check_paths",
    "cycling",
    "describe_machine",
    "distinct_batches",
    "inference",
    "package_version",
    "path_arguments",
    "ratio",
    "ratios",
]

Array = NDArray[Any]

DISTINCT_ROWS = 4096
"""Rows through which small batches cycle: together with the nodes they visit, too many for L2."""

REST = 0.15
"""Seconds before each measurement. OpenBLAS's idle threads spin for 2**26 ticks of the processor's
clock, unless ``OPENBLAS_THREAD_TIMEOUT`` says otherwise: a tenth of a second, as measured, in which
another contender has one core fewer."""

TOLERANCES = {"float32": 2e-5, "float64": 1e-10}
"""Largest error of an output, relative to the largest value."""

OUTPUT_GIVEN = 256
"""From so many rows on, `inference` writes into arrays it has: large new ones are slow to get."""

MARGINS = {"float32": 1e-4, "float64": 1e-11}
"""How near zero a logit must be, relative to the largest, for a row to take another route."""


class WrongOutputError(RuntimeError):
    """What was to be timed computes something else."""


class Work(NamedTuple):
    """What a call must do at least, however it does it."""

    flops: float
    """Additions and multiplications."""
    bytes: float
    """Bytes that it must read or write once."""


class Contender(NamedTuple):
    """What is to be timed under a name."""

    name: str
    """Name in tables."""
    run: Callable[[], object]
    """Makes one call."""
    rows: int
    """Rows of a call, at least 1."""
    work: Work | None = None
    """What a call must do at least, where that is known."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """What `alternate` measured of one contender."""

    name: str
    """Name of the contender."""
    rows: int
    """Rows of a call."""
    calls: int
    """Calls of a measurement."""
    seconds: tuple[float, ...]
    """Seconds of one call, a figure a round."""
    work: Work | None = None
    """What a call must do at least, where that is known."""

    @property
    def microseconds(self) -> float:
        """Median over the rounds of the microseconds a row."""
        return statistics.median(self.seconds) / self.rows * 1e6

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, as a fraction of the median."""
        low, middle, high = np.quantile(self.seconds, (0.25, 0.5, 0.75))
        return float((high - low) / (2 * middle))

    @property
    def rows_per_second(self) -> float:
        """Rows in a second, at the median."""
        return 1e6 / self.microseconds

    @property
    def gigaflops(self) -> float | None:
        """Billions of additions and multiplications in a second, at the median."""
        return self._rate(self.work.flops) if self.work else None

    @property
    def gigabytes(self) -> float | None:
        """Billions of bytes in a second, at the median, if each is moved once."""
        return self._rate(self.work.bytes) if self.work else None

    def _rate(self, amount: float) -> float:
        return amount / statistics.median(self.seconds) / 1e9


def alternate(
    contenders: Sequence[Contender],
    repeats: int = 7,
    min_time: float = 0.05,
    rest: float = REST,
) -> list[Timing]:
    """Time contenders in alternation: A B A B and so on.

    Parameters
    ----------
    contenders : sequence of Contender
        Each runs once untimed first, so that compilation is not measured.
    repeats : int
        Rounds, at least 1. A figure to be quoted has at least 7.
    min_time : float
        Seconds that a measurement takes at least; calls are repeated to fill them.
    rest : float
        Seconds of sleep before each measurement.

    Returns
    -------
    list of Timing
        In the order of the contenders.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If there is no contender, or a number is out of range or of the wrong kind.
    """
    if not contenders:
        raise ArgumentError("argument 'contenders' must have at least one contender, got none")
    for contender in contenders:
        check_integer("rows", contender.rows, 1)
    check_integer("repeats", repeats, 1)
    check_number("min_time", min_time, 0)
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
    """Return how many calls take ``min_time`` seconds, after one untimed call."""
    timer.timeit(1)
    calls = 1
    while (seconds := timer.timeit(calls)) < min_time:
        # One short measurement says little, so no step is greater than tenfold.
        wanted = math.ceil(1.1 * calls * min_time / max(seconds, 1e-9))
        calls = min(10 * calls, max(wanted, calls + 1))
    return calls


def _measure(timer: Timer, calls: int, rest: float) -> float:
    """Return the seconds of one call."""
    time.sleep(rest)
    return timer.timeit(calls) / calls


def ratio(slow: Timing, fast: Timing) -> float:
    """How many times longer a row takes one contender than another.

    Parameters
    ----------
    slow, fast : Timing
        From one call of `alternate`.

    Returns
    -------
    float
        Median over the rounds of the ratio within each round.

    Raises
    ------
    ArgumentError
        If they have different numbers of rounds.
    """
    return statistics.median(ratios(slow, fast))


def ratios(slow: Timing, fast: Timing) -> list[float]:
    """Return the ratio within each round, of which `ratio` is the median."""
    if len(slow.seconds) != len(fast.seconds):
        raise ArgumentError(
            "arguments 'slow' and 'fast' must come from one alternation, "
            f"got {len(slow.seconds)} and {len(fast.seconds)} rounds"
        )
    scale = fast.rows / slow.rows
    return [one / two * scale for one, two in zip(slow.seconds, fast.seconds, strict=True)]


def cycling(function: Callable[..., object], *inputs: Sequence[Any]) -> Callable[[], object]:
    """Return a function that at each call takes the next of each of the inputs, round and round.

    Parameters
    ----------
    function : callable
        Called with one of each of the inputs.
    *inputs : sequences
        Their lengths may differ.

    Returns
    -------
    callable
        For `Contender.run`. Taking the next input costs about a tenth of a microsecond.
    """
    turns = zip(*map(itertools.cycle, inputs), strict=False)
    return lambda: function(*next(turns))


def inference(layer: Any, batches: Sequence[Array]) -> Callable[[], object]:
    """Return a function that runs a layer on batches in turn, as a user who wants speed calls it.

    From `OUTPUT_GIVEN` rows on outputs go to two arrays in turn, so that a large one does not stay
    in cache; below, each call makes its own.

    Parameters
    ----------
    layer : layer
        Called as ``layer(x)`` or ``layer(x, out=y)``.
    batches : sequence of arrays of shape (B, I)
        From `distinct_batches`.

    Returns
    -------
    callable
        For `Contender.run`.
    """
    if len(batches[0]) < OUTPUT_GIVEN:
        return cycling(layer, batches)
    outputs = [layer(batches[0]) for _ in range(2)]
    return cycling(lambda x, y: layer(x, out=y), batches, outputs)


def distinct_batches(
    rows: int, width: int, dtype: DTypeLike = np.float32, rng: Any = None
) -> list[Array]:
    """Return random batches to cycle through: `DISTINCT_ROWS` rows or more, in two batches or more.

    Parameters
    ----------
    rows : int
        Rows of a batch.
    width : int
        Width of a row.
    dtype : {numpy.float32, numpy.float64}
        Of the numbers, which are standard normal.
    rng : None, int or numpy.random.Generator
        Where they come from.

    Returns
    -------
    list of arrays of shape (rows, width)
        Of `DISTINCT_ROWS` rows in all, or two batches if those have more.
    """
    count = max(2, -(-DISTINCT_ROWS // rows))
    kind: Any = np.dtype(dtype).type
    return list(np.random.default_rng(rng).standard_normal((count, rows, width), dtype=kind))


PathLayer = FastFeedForward | QuantizedFastFeedForward
"""A layer of paths, with float weights or narrow ones."""


def path_arguments(layer: PathLayer) -> tuple[Any, ...]:
    """Return what ``path_infer`` takes of a layer: its weights, and the code of its activation."""
    return (*PathWeights.of(layer.params), int(Activation.parse(layer.config.activation)))


def check_paths(layer: PathLayer, x: Array, y: Array, nodes: Array) -> int:
    """Check an output of FastFeedForward, and its routes, against the plain NumPy backend.

    Parameters
    ----------
    layer : FastFeedForward or QuantizedFastFeedForward
        The layer.
    x : array of shape (B, I)
        Rows, of the layer's dtype.
    y : array of shape (B, O)
        Output to check.
    nodes : int32 array of shape (B, T, L)
        Routes to check.

    Returns
    -------
    int
        How many leaves, in all trees, the rows reached.

    Raises
    ------
    WrongOutputError
        If a row took another route although no logit on it was near zero, or if outputs differ on
        equal routes by more than `TOLERANCES`.
    """
    dtype = layer.config.dtype
    expected, logits = np.empty_like(y), np.empty(nodes.shape, dtype)
    routes = np.empty_like(nodes)
    weights = PathWeights.of(layer.params)
    vectorized.path_logits(logits, routes, x, weights.weights_in, weights.bias_in, weights.scale_in)
    vectorized.path_infer(expected, x, *path_arguments(layer))
    same = (nodes == routes).all(axis=(1, 2))
    nearest = np.abs(logits).min(axis=(1, 2))
    if (nearest[~same] > MARGINS[dtype] * np.abs(logits).max(initial=0)).any():
        raise WrongOutputError("rows take routes that the plain backend does not")
    check_close(y[same], expected[same], TOLERANCES[dtype])
    return sum(len(np.unique(tree)) for tree in np.moveaxis(nodes[:, :, -1], 1, 0))


def check_leaves(layer: LeafFeedForward, x: Array, y: Array, leaves: Array) -> int:
    """Check a hard output of LeafFeedForward, and the leaves, against the plain NumPy backend.

    Parameters
    ----------
    layer : LeafFeedForward
        The layer.
    x : array of shape (B, I)
        Rows, of the layer's dtype.
    y : array of shape (B, O)
        Output to check.
    leaves : int32 array of shape (B,)
        Leaves to check.

    Returns
    -------
    int
        How many leaves the rows reached.

    Raises
    ------
    WrongOutputError
        If a row reached another leaf although no gate's logit on the way was near zero, or if
        outputs differ at equal leaves by more than `TOLERANCES`.
    """
    dtype, params = layer.config.dtype, layer.params
    code = int(Activation.parse(layer.config.activation))
    expected, reached = np.empty_like(y), np.empty_like(leaves)
    vectorized.leaf_route(reached, x, params["gate_weights"], params["gate_bias"])
    vectorized.leaf_infer(expected, x, *LeafWeights.of(params), code)
    other = np.flatnonzero(leaves != reached)
    logits = x[other] @ params["gate_weights"].T + params["gate_bias"]
    # Gates on the way to a leaf, from it to the root: the parent of node n is (n - 1) // 2.
    way, nearest = reached[other] + logits.shape[1], np.full(len(other), np.inf)
    for _ in range(layer.config.depth):
        way = (way - 1) // 2
        nearest = np.minimum(nearest, np.abs(logits[np.arange(len(other)), way]))
    if (nearest > MARGINS[dtype] * np.abs(logits).max(initial=0)).any():
        raise WrongOutputError("rows reach leaves that they do not by the plain backend")
    same = leaves == reached
    check_close(y[same], expected[same], TOLERANCES[dtype])
    return len(np.unique(leaves))


def check_dense(layer: DenseFeedForward, x: Array, y: Array) -> None:
    """Check an output of DenseFeedForward against the plain NumPy backend of FastFeedForward.

    A dense layer is a FastFeedForward in which every neuron is a tree of depth 0. That is slow to
    compute: pass a few rows.

    Parameters
    ----------
    layer : DenseFeedForward
        The layer.
    x : array of shape (B, I)
        Rows, of the layer's dtype.
    y : array of shape (B, O)
        Output to check.

    Raises
    ------
    WrongOutputError
        If outputs differ by more than `TOLERANCES`.
    """
    trees = {name: array[:, np.newaxis] for name, array in layer.params.items()}
    twin = FastFeedForward.from_arrays(**trees, activation=layer.config.activation)
    expected = np.empty_like(y)
    vectorized.path_infer(expected, x, *path_arguments(twin))
    check_close(y, expected, TOLERANCES[layer.config.dtype])


def check_close(y: Array, expected: Array, tolerance: float) -> None:
    """Raise unless an output is near enough to what it should be.

    Parameters
    ----------
    y, expected : arrays of one shape
        Output to check, and the plain backend's or another contender's.
    tolerance : float
        Largest error allowed, relative to the largest expected value.

    Raises
    ------
    WrongOutputError
        If an error is larger, or NaN, or the shapes differ.
    """
    if y.shape != expected.shape:
        raise WrongOutputError(f"outputs have shape {y.shape}, expected was {expected.shape}")
    error = float(np.abs(y - expected).max(initial=0))
    largest = float(np.abs(expected).max(initial=0))
    # Written so that NaN fails.
    if not error <= tolerance * largest:
        raise WrongOutputError(
            f"outputs differ from what is expected by up to {error:.3g}, where the largest is "
            f"{largest:.3g} and {tolerance * largest:.3g} is allowed"
        )


def describe_machine() -> dict[str, str | int]:
    """Describe what a timing depends on: processor, cores, system, versions.

    Returns
    -------
    dict of str to str or int
        With the keys ``processor``, ``cores`` (that this process may use), ``system``, ``python``,
        ``numpy``, ``numba`` and ``thread_layer`` (that kernels run on; asking starts its pool).
    """
    return {
        "processor": _processor(),
        "cores": _cores(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": package_version("numba"),
        "thread_layer": get_thread_layer(),
    }


def _processor() -> str:
    """Return the processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def package_version(package: str) -> str:
    """Return the version of an installed package, or "not installed"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
