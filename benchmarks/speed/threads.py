"""FastFeedForward and matrix products of NumPy in turn, on each thread layer.

    python -m benchmarks.speed.threads

No other heavy program may run at the same time. Each thread layer is measured in a process of its
own, since a process has one pool. For each number of rows both are timed alone, and then in
alternation, call by call:

    alone         F F F F F ...      G G G G G ...
    alternating   F G F G F G F G ...                 each call timed on its own

The ratio is the median alternating over the median alone, and its range that of the rounds. The
last line is the cost of a launch: a kernel that does nothing, on the pool, right after another, and
right after a matrix product.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import fffcpu
from benchmarks.command import command_line, new_parser, program
from benchmarks.report import facts, table
from benchmarks.speed.options import add_quick, add_threads
from benchmarks.speed.shapes import BERT_BASE, PathShape
from fffcpu.benchmarking.machine import describe_machine
from fffcpu.benchmarking.timing import REST, cycling
from fffcpu.benchmarking.verification import check_paths, distinct_batches
from fffcpu.kernels.jit import MIN_PARALLEL_WORK, kernel, launch
from fffcpu.system.threads import get_thread_layer

VARIANTS = {
    "one thread, no pool": {"NUMBA_NUM_THREADS": "1"},
    "tbb": {"NUMBA_THREADING_LAYER": "tbb"},
    "omp, idle threads sleep": {"NUMBA_THREADING_LAYER": "omp", "OMP_WAIT_POLICY": "passive"},
    "omp, idle threads spin": {"NUMBA_THREADING_LAYER": "omp", "OMP_WAIT_POLICY": "active"},
    "workqueue": {"NUMBA_THREADING_LAYER": "workqueue"},
}
"""Environments of the processes. Without a pool a call takes longer because the other one took its
place in the caches. The next two are those that `fffcpu.system.pool` prefers."""

GOAL = 1.5
"""Largest ratio of the time in alternation to the time alone."""

Call = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Series:
    """Seconds of calls alone and in alternation with another: the median of each round."""

    what: str
    alone: list[float]
    alternating: list[float]

    @property
    def ratios(self) -> list[float]:
        """Time in alternation over time alone, in each round."""
        return [two / one for one, two in zip(self.alone, self.alternating, strict=True)]


def main() -> None:
    options = parse()
    if options.variant:
        print(json.dumps([dataclasses.asdict(series) for series in measure(options)]))
        return
    rows = []
    for variant, variables in VARIANTS.items():
        found = in_process(variant, variables)
        rows += [cells(variant, series) for series in found] or [(variant, *6 * "-")]
    print(format_report(options, rows))


def parse() -> argparse.Namespace:
    parser = new_parser(__doc__)
    add_threads(parser)
    parser.add_argument("--repeats", type=int, default=15, help="rounds (15)")
    parser.add_argument("--calls", type=int, default=50, help="calls of a series in a round (50)")
    add_quick(parser)
    parser.add_argument("--variant", choices=list(VARIANTS), help=argparse.SUPPRESS)
    return parser.parse_args()


def in_process(variant: str, variables: dict[str, str]) -> list[Series]:
    """Measure in a process with these variables. The list is empty if the layer cannot load."""
    command = [sys.executable, *program(), *sys.argv[1:], "--variant", variant]
    done = subprocess.run(
        command, env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True, check=True
    )
    return [Series(**series) for series in json.loads(done.stdout)]


def measure(options: argparse.Namespace) -> Iterator[Series]:
    """Time all pairs on the thread layer that the environment names."""
    try:
        get_thread_layer()
    except ValueError:  # Numba cannot load it
        return
    threads = min(options.threads, fffcpu.get_num_threads())
    fffcpu.set_num_threads(threads)
    shape = PathShape(16, 16, 2, 1) if options.quick else BERT_BASE
    layer = fffcpu.FastFeedForward(*shape, rng=0)
    for rows in (4, 8) if options.quick else (128, 1024):
        inference, product = inference_call(layer, rows), product_call(rows, shape.input_dim)
        alone = [alternate([call], options) for call in (inference, product)]
        both = alternate([inference, product], options)
        yield Series(f"FFF, B = {rows:,}", alone[0][0], both[0])
        yield Series(f"GEMM, B = {rows:,}", alone[1][0], both[1])
    if threads > 1:
        alone, both = alternate([empty_call], options), alternate([empty_call, product], options)
        yield Series("empty kernel", alone[0], both[0])


def inference_call(layer: fffcpu.FastFeedForward, rows: int) -> Call:
    """Return a call of the layer on batches in turn, after its output was checked."""
    batches = distinct_batches(rows, layer.config.input_dim, rng=1)
    check_paths(layer, batches[0], layer(batches[0]), layer.route(batches[0]))
    return cycling(layer, batches)


def product_call(rows: int, width: int) -> Call:
    """Return the first matrix product of a dense feedforward layer, four times as wide."""
    rng = np.random.default_rng(2)
    left = rng.standard_normal((rows, width), dtype=np.float32)
    right = rng.standard_normal((width, 4 * width), dtype=np.float32)
    out = np.empty((rows, 4 * width), np.float32)
    return lambda: np.matmul(left, right, out=out)


@kernel
def _nothing(marks: Any, start: int, stop: int) -> None:
    marks[start] = stop


MARKS = np.zeros(1024, np.int64)


def empty_call() -> object:
    """Run a kernel that does nothing on the pool."""
    return launch(_nothing, MARKS.size, MIN_PARALLEL_WORK, MARKS)


def alternate(calls: list[Call], options: argparse.Namespace) -> list[list[float]]:
    """Return the median seconds of each call in each round. The calls take turns."""
    rounds: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    for _ in range(options.repeats):
        time.sleep(REST)
        seconds: list[list[float]] = [[] for _ in calls]
        for _ in range(options.calls):
            for call, own in zip(calls, seconds, strict=True):
                start = time.perf_counter()
                call()
                own.append(time.perf_counter() - start)
        for own, medians in zip(seconds, rounds, strict=True):
            medians.append(statistics.median(own))
    return rounds


def cells(variant: str, series: Series) -> tuple[str, ...]:
    """Return a row of the table."""
    alone, both = (1e6 * statistics.median(one) for one in (series.alone, series.alternating))
    ratio, low, high = both / alone, min(series.ratios), max(series.ratios)
    return (
        variant,
        series.what,
        f"{alone:,.0f} us",
        f"{both:,.0f} us",
        f"{ratio:.2f}x",
        f"{low:.2f} to {high:.2f}x",
        "-" if series.what == "empty kernel" else f"{GOAL}x",
    )


def format_report(options: argparse.Namespace, rows: list[tuple[str, ...]]) -> str:
    """Return the table, under the machine and the command."""
    versions = f"fffcpu {fffcpu.__version__}, {options.threads} threads"
    head = ("threads", "call", "alone", "alternating", "ratio", "range", "goal: at most")
    lines = [
        f"FastFeedForward at BERT's size and NumPy products of the same rows, float32, {versions}.",
        f"{facts(describe_machine())} (by default).",
        f"`{command_line()}`",
        "",
        *table(head, rows),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
