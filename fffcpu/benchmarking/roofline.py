"""What a call must do at least, and how fast this machine could do it.

A call must compute its products and move its data once: each row in, each row out, and the weights
it uses, however many rows use them. Two contenders measure what the machine can do, in the same
alternation as the others::

    copy    64 MiB to 64 MiB, a slice a thread        bytes / second, from memory to memory
    gemm    a product of square matrices by BLAS      flops / second, from the nearest caches

    bound = max(flops of the call / gemm's rate, bytes of the call / copy's rate)

The fraction of the bound that a contender reaches is the bound over its time, the median over the
rounds. It can exceed 1 where the data lie in caches, which a copy between memories does not see.
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

__all__ = [
    "Bound",
    "bound_contenders",
    "dense_work",
    "leaf_work",
    "path_work",
    "visited_nodes",
]

Array = NDArray[Any]

COPY_BYTES = 64 << 20
"""Bytes of the copied array: more than the caches of most machines hold twice."""

GEMM_WIDTH = 1024
"""Rows and columns of the multiplied matrices."""

COPY, GEMM = "copy", "gemm"


class Bound(NamedTuple):
    """What the machine can do, measured in the alternation of what it is compared with."""

    copy: Timing
    """Of a copy from memory to memory."""
    gemm: Timing
    """Of a product of matrices."""

    @classmethod
    def of(cls, timings: Sequence[Timing]) -> Self:
        """Pick the two timings of `bound_contenders` out of an alternation's."""
        by_name = {timing.name: timing for timing in timings}
        return cls(by_name[COPY], by_name[GEMM])

    def microseconds(self, timing: Timing) -> float | None:
        """Least microseconds a row that the machine could take: the median over the rounds."""
        least = self._seconds(timing)
        return statistics.median(least) / timing.rows * 1e6 if least else None

    def fraction(self, timing: Timing) -> float | None:
        """Fraction of the bound reached: the median over the rounds of bound over time."""
        least = self._seconds(timing)
        if not least:
            return None
        return statistics.median(
            bound / taken for bound, taken in zip(least, timing.seconds, strict=True)
        )

    def _seconds(self, timing: Timing) -> list[float]:
        """Least seconds of a call, a figure a round; none where the work is not known."""
        work = timing.work
        if work is None:
            return []
        assert self.copy.work
        assert self.gemm.work
        by_copy = work.bytes / self.copy.work.bytes
        by_gemm = work.flops / self.gemm.work.flops
        rounds = zip(self.copy.seconds, self.gemm.seconds, strict=True)
        return [max(by_copy * copy, by_gemm * gemm) for copy, gemm in rounds]


def bound_contenders(threads: int, dtype: str = "float32") -> list[Contender]:
    """Return the copy and the matrix product, to be timed with the contenders they bound.

    Parameters
    ----------
    threads : int
        Threads of the copy. The product runs on those of NumPy's BLAS.
    dtype : {"float32", "float64"}
        Of the matrices.

    Returns
    -------
    list of Contender
        Two, for `fffcpu.benchmarking.timing.alternate`; `Bound.of` finds them in what it returns.
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
    config: FastFeedForwardConfig, rows: int, visited: int, item_bytes: float | None = None
) -> Work:
    """Work of FastFeedForward's inference.

    Parameters
    ----------
    config : FastFeedForwardConfig
        Of the layer.
    rows : int
        Rows of a call.
    visited : int
        Nodes that the rows visit, each counted once, as `visited_nodes` counts.
    item_bytes : float, optional
        Bytes of a weight, where it is not of the layer's dtype.

    Returns
    -------
    Work
        Of one call.
    """
    widths, size = config.input_dim + config.output_dim, config.itemsize
    weights = visited * widths * (item_bytes or size)
    return Work(2 * rows * config.multiply_adds, rows * widths * size + weights)


def dense_work(config: DenseFeedForwardConfig, rows: int) -> Work:
    """Work of DenseFeedForward's inference on so many rows."""
    numbers = rows * (config.input_dim + config.output_dim) + config.multiply_adds
    return Work(2 * rows * config.multiply_adds, numbers * config.itemsize)


def leaf_work(config: LeafFeedForwardConfig, rows: int, leaves: int) -> Work:
    """Work of LeafFeedForward's hard inference on rows that reach so many different leaves.

    The gates above those leaves are taken to be ``leaves - 1``: all of them, where all leaves are
    reached.
    """
    widths = config.input_dim + config.output_dim
    weights = leaves * config.leaf_width * widths + max(0, leaves - 1) * config.input_dim
    return Work(2 * rows * config.multiply_adds, (rows * widths + weights) * config.itemsize)


def visited_nodes(nodes: Array) -> int:
    """Count the different nodes in routes (B, T, L), in all trees."""
    return sum(len(np.unique(tree)) for tree in np.moveaxis(nodes, 1, 0))
