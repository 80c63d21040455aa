"""The roofline: the least time that this machine needs for the work of a call.

After "Roofline: an insightful visual performance model for multicore architectures" (Williams,
Waterman and Patterson, 2009). A call must compute its products and move its data once: each row in,
each row out, and the weights that it uses, however many rows use them. Two contenders measure what
the machine can do, in the same alternation as the others::

    copy    64 MiB to 64 MiB, a slice for each thread  bytes per second, from memory to memory
    gemm    a product of square matrices by BLAS       flops per second, from the nearest caches

    roofline = max(flops of the call / rate of gemm, bytes of the call / rate of copy)

The fraction of the roofline that a contender reaches is the roofline over its time, the median over
the rounds. It exceeds 1 where the data lie in caches, since the copy goes from memory to memory.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from fffcpu.benchmarking.timing import Contender, Timing, Work
from fffcpu.config import DenseFeedForwardConfig, FastFeedForwardConfig, LeafFeedForwardConfig
from fffcpu.diagnosis.routes import path_logits
from fffcpu.system.terminal import format_number

__all__ = [
    "Roofline",
    "Visits",
    "dense_work",
    "format_rates",
    "leaf_work",
    "path_work",
    "roofline_contenders",
    "visited_nodes",
    "visits",
]

Array = NDArray[Any]

COPY_BYTES = 64 << 20
"""Bytes of the copied array. Two such arrays do not fit into the caches of most machines."""

GEMM_WIDTH = 1024
"""Rows and columns of the multiplied matrices."""

COPY, GEMM = "copy", "gemm"


class Visits(NamedTuple):
    """How many different weights of a FastFeedForward some rows use, in all trees."""

    nodes: int
    """Nodes that are visited."""
    sides: int
    """Sides taken of these nodes: their rows of output weights. One-sided nodes have one."""


class Roofline(NamedTuple):
    """The machine's two rates, measured in the alternation of the contenders."""

    copy: Timing
    """Timing of a copy from memory to memory."""
    gemm: Timing
    """Timing of a product of matrices."""

    @classmethod
    def of(cls, timings: Sequence[Timing]) -> Self:
        """Take the two timings of `roofline_contenders` from those of an alternation."""
        by_name = {timing.name: timing for timing in timings}
        return cls(by_name[COPY], by_name[GEMM])

    def microseconds(self, timing: Timing) -> float | None:
        """Return the roofline in microseconds per row, or None where the work is not known.

        It is the median over the rounds.
        """
        roofline = self._seconds(timing)
        return statistics.median(roofline) / timing.rows * 1e6 if roofline else None

    def fraction(self, timing: Timing) -> float | None:
        """Return the roofline over the time taken, or None where the work is not known.

        It is the median over the rounds.
        """
        roofline = self._seconds(timing)
        if not roofline:
            return None
        return statistics.median(
            best / taken for best, taken in zip(roofline, timing.seconds, strict=True)
        )

    def _seconds(self, timing: Timing) -> list[float]:
        """Return the roofline of a call in seconds, in each round; empty for unknown work."""
        work = timing.work
        if work is None:
            return []
        assert self.copy.work
        assert self.gemm.work
        by_copy = work.bytes / self.copy.work.bytes
        by_gemm = work.flops / self.gemm.work.flops
        rounds = zip(self.copy.seconds, self.gemm.seconds, strict=True)
        return [max(by_copy * copy, by_gemm * gemm) for copy, gemm in rounds]


def roofline_contenders(threads: int, dtype: str = "float32") -> list[Contender]:
    """Return the copy and the matrix product, to be timed with other contenders.

    Parameters
    ----------
    threads : int
        Threads of the copy. The product runs on those of NumPy's BLAS.
    dtype : {"float32", "float64"}
        Type of the matrices.

    Returns
    -------
    list of Contender
        Two contenders for `fffcpu.benchmarking.timing.alternate`. `Roofline.of` takes its result.
    """
    return [_copy(threads), _gemm(dtype)]


def _copy(threads: int) -> Contender:
    source = np.ones(COPY_BYTES, np.uint8)
    target = np.empty_like(source)
    pieces = list(
        zip(np.array_split(target, threads), np.array_split(source, threads), strict=True)
    )
    pool = ThreadPoolExecutor(threads)

    def copy() -> None:
        # NumPy copies without holding the interpreter's lock.
        list(pool.map(lambda piece: np.copyto(*piece), pieces))

    return Contender(COPY, copy, 1, Work(0, 2 * COPY_BYTES))


def _gemm(dtype: str) -> Contender:
    a = np.ones((GEMM_WIDTH, GEMM_WIDTH), dtype)
    b, c = np.ones_like(a), np.empty_like(a)
    work = Work(2 * GEMM_WIDTH**3, 3 * a.nbytes)
    return Contender(GEMM, lambda: np.matmul(a, b, out=c), 1, work)


def path_work(
    config: FastFeedForwardConfig, rows: int, visited: Visits, item_bytes: float | None = None
) -> Work:
    """Return the work of FastFeedForward's inference.

    Parameters
    ----------
    config : FastFeedForwardConfig
        Configuration of the layer.
    rows : int
        Rows per call.
    visited : Visits
        What the rows visit, as `visits` counts it.
    item_bytes : float, optional
        Bytes per weight, if they differ from those of the layer's dtype.

    Returns
    -------
    Work
        The work of one call.
    """
    inner, outer, size = config.input_dim, config.output_dim, config.itemsize
    weights = (visited.nodes * inner + visited.sides * outer) * (item_bytes or size)
    return Work(2 * rows * config.multiply_adds, rows * (inner + outer) * size + weights)


def dense_work(config: DenseFeedForwardConfig, rows: int) -> Work:
    """Return the work of DenseFeedForward's inference on ``rows`` rows."""
    numbers = rows * (config.input_dim + config.output_dim) + config.multiply_adds
    return Work(2 * rows * config.multiply_adds, numbers * config.itemsize)


def leaf_work(config: LeafFeedForwardConfig, rows: int, leaves: int) -> Work:
    """Return the work of LeafFeedForward's hard inference on rows that reach ``leaves`` leaves.

    The gates above those leaves are taken to be ``leaves - 1``, which is all of them if all leaves
    are reached.
    """
    widths = config.input_dim + config.output_dim
    weights = leaves * config.leaf_width * widths + max(0, leaves - 1) * config.input_dim
    return Work(2 * rows * config.multiply_adds, (rows * widths + weights) * config.itemsize)


def visits(layer: Any, x: Array) -> Visits:
    """Return what rows (B, I) visit in a FastFeedForward or QuantizedFastFeedForward."""
    logits, nodes = path_logits(layer, x)
    visited = visited_nodes(nodes)
    if not layer.config.two_sided:
        return Visits(visited, visited)
    return Visits(visited, visited_nodes(2 * nodes + (logits > 0)))


def visited_nodes(nodes: Array) -> int:
    """Return the number of different nodes in routes (B, T, L), in all trees."""
    return sum(len(np.unique(tree)) for tree in np.moveaxis(nodes, 1, 0))


def format_rates(timing: Timing, roofline: Roofline) -> tuple[str, str, str]:
    """Return GB/s, GFLOP/s and the fraction of the roofline, or dashes for unknown work."""
    flops, size, fraction = timing.gigaflops, timing.gigabytes, roofline.fraction(timing)
    if flops is None or size is None or fraction is None:
        return "-", "-", "-"
    return format_number(size), format_number(flops), f"{100 * fraction:.0f} %"
