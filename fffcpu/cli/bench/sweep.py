"""``fffcpu bench --plot``: speed-ups over the dense layer by width and rows, drawn.

One grid serves all panels. For each depth in turn, two layers are made, checked, timed for each
number of rows, and dropped::

    rows 65,536   .  .  .  .  .  .
          4,096   .  .  .  .  .  .  +  +  +     . GRID_DEPTHS, GRID_ROWS
             16   .  .  .  .  .  .  +  +  +     + DEEP_DEPTHS, DEEP_ROWS
              1   .  .  .  .  .  .  +  +  +
         depth    0  1  2 ... 10 11 12 ... 16
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from numpy.typing import NDArray

from fffcpu import DenseFeedForward, FastFeedForward, get_num_threads, set_num_threads
from fffcpu.benchmarking.machine import describe_machine, package_version
from fffcpu.benchmarking.onnx_dense import onnx_dense
from fffcpu.benchmarking.timing import Contender, alternate, doubts, inference, ratio
from fffcpu.benchmarking.verification import (
    TOLERANCES,
    check_close,
    check_dense,
    check_paths,
    distinct_batches,
)
from fffcpu.checks import check_integer, check_number
from fffcpu.errors import MissingExtraError
from fffcpu.onnx.graph import MODEL_BYTES
from fffcpu.plots import SpeedUp, check_plot_path, plot_speedups
from fffcpu.system.terminal import format_number, with_progress

__all__ = ["add_arguments", "run"]

Array = NDArray[Any]

GRID_DEPTHS = tuple(range(12))
GRID_ROWS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536)
DEEP_DEPTHS = tuple(range(12, 17))
DEEP_ROWS = (1, 16, 256)

REPEATS = 3
"""Number of rounds per point: enough for a picture, whose lines have some width."""

DENSE_ROWS = 4096
"""Rows per block of the dense layer, for larger batches. The division costs it no time."""

CHECKED_ROWS = 4096
"""Number of rows of a batch whose output is checked."""


DESCRIPTION = f"""\
--plot draws speed-ups over the dense layer, at depths from 0 to {DEEP_DEPTHS[-1]} and batches from
1 to {GRID_ROWS[-1]:,}. It ignores --depth, --rows and --backends, and uses the largest of
--threads. The dense layer is onnxruntime's where the extra 'bench' is installed, else fffcpu's.
Drawing needs the extra 'plot'.
"""


class Point(NamedTuple):
    """A point of the grid."""

    depth: int
    rows: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options to the parser of ``fffcpu bench``."""
    group = parser.add_argument_group(
        "drawing",
        DESCRIPTION,
    )
    group.add_argument("--plot", metavar="FILE", help="draw to this file: .png, .svg, .pdf")
    group.add_argument(
        "--minutes",
        type=float,
        default=10,
        metavar="M",
        help="start no point after M minutes (10)",
    )


def run(options: argparse.Namespace) -> None:
    """Time the grid and draw it."""
    check_plot_path(options.plot)
    check_number("minutes", options.minutes, 0)
    check_number("seconds", options.seconds, 0)
    check_integer("seed", options.seed, 0)
    before = get_num_threads()
    threads = max(options.threads or [before])
    try:
        set_num_threads(threads)
        sweep = _Sweep(options, threads)
        speedups = sweep.measure()
    finally:
        set_num_threads(before)
    sides = "two-sided, " if options.two_sided else ""
    title = (
        f"FastFeedForward {sides}{options.input_dim} -> {options.output_dim}, {options.dtype}, "
        f"{threads} threads, against dense by {sweep.dense_name}\n{describe_machine()['processor']}"
    )
    plot_speedups(speedups, options.plot, title)
    if options.json:
        print(json.dumps(_report(speedups, sweep), indent=2))
    else:
        print("\n".join([title, "", *_crossovers(speedups), "", *sweep.notes]))
        print(f"drawn to {options.plot}")


class _Sweep:
    """The measurement of the grid, with notes for the report."""

    def __init__(self, options: argparse.Namespace, threads: int) -> None:
        self.options, self.threads = options, threads
        self.deadline = time.monotonic() + 60 * options.minutes
        self.notes: list[str] = []
        self.doubtful: list[str] = []
        self.batches: dict[int, list[Array]] = {}
        self.dense_name = self._choose_dense()

    def _choose_dense(self) -> str:
        """Return the name of the dense layer's runtime; note why it is not onnxruntime."""
        if self.options.dtype != "float32":
            return f"fffcpu {package_version('fffcpu')}"
        tiny = DenseFeedForward(1, 1, 1, rng=0)
        try:
            onnx_dense(tiny.params)
        except MissingExtraError as error:
            self.notes.append(f"onnxruntime left out: {error}")
            return f"fffcpu {package_version('fffcpu')}"
        return f"onnxruntime {package_version('onnxruntime')}"

    def measure(self) -> list[SpeedUp]:
        """Time as many points as the time limit allows, at least one."""
        points = [Point(depth, rows) for depth in GRID_DEPTHS for rows in GRID_ROWS]
        points += [Point(depth, rows) for depth in DEEP_DEPTHS for rows in DEEP_ROWS]
        result: list[SpeedUp] = []
        left_out: list[Point] = []
        pair, made = None, -1
        for point in with_progress(points, "point", lambda p: f"depth {p.depth}, rows {p.rows}"):
            if result and time.monotonic() > self.deadline:
                left_out.append(point)
                continue
            if point.depth != made:
                pair = None  # frees the memory of the previous pair first
                pair, made = _Pair(self, point.depth), point.depth
            assert pair
            result.append(pair.measure(point.rows))
        if self.doubtful:
            self.notes.append(
                f"{len(self.doubtful)} of {len(result)} points are doubtful, such as "
                f"{self.doubtful[-1]}"
            )
        if left_out:
            first = left_out[0]
            self.notes.append(
                f"{len(left_out)} points left out, from depth {first.depth} and {first.rows:,} "
                f"rows on: the limit of --minutes {self.options.minutes:g} was reached"
            )
        return result

    def inputs(self, rows: int) -> list[Array]:
        """Return batches, the same for all depths."""
        if rows not in self.batches:
            options = self.options
            self.batches[rows] = distinct_batches(
                rows, options.input_dim, options.dtype, options.seed
            )
        return self.batches[rows]


class _Pair:
    """FastFeedForward of one depth and a dense layer of as many neurons."""

    def __init__(self, sweep: _Sweep, depth: int) -> None:
        options = sweep.options
        sizes = (options.input_dim, options.output_dim)
        how = {"dtype": options.dtype, "rng": options.seed}
        self.sweep = sweep
        trees, two_sided = options.trees, options.two_sided
        self.tree = FastFeedForward(*sizes, depth, trees, two_sided=two_sided, **how)
        dense = DenseFeedForward(*sizes, self.tree.config.neurons, **how)
        x = sweep.inputs(1)[0]
        check_dense(dense, x, dense(x))
        self.dense: Callable[[Array], Array] = dense
        if sweep.dense_name.startswith("onnxruntime") and dense.nbytes < MODEL_BYTES:
            self.dense = onnx_dense(dense.params, threads=sweep.threads)
            check_close(self.dense(x), dense(x), TOLERANCES[options.dtype])

    def measure(self, rows: int) -> SpeedUp:
        """Check the tree's output and time both."""
        config, batches = self.tree.config, self.sweep.inputs(rows)
        x, some = batches[0], slice(CHECKED_ROWS)
        check_paths(self.tree, x[some], self.tree(x)[some], self.tree.route(x)[some])
        contenders = [
            Contender("tree", inference(self.tree, batches), rows),
            Contender("dense", self._dense_calls(batches), rows),
        ]
        min_time = self.sweep.options.seconds / (2 * REPEATS)
        tree, dense = alternate(contenders, REPEATS, min_time)
        reasons = doubts(tree, dense, config.neurons / config.active_neurons)
        if reasons:
            where = f"depth {config.depth} at {rows:,} rows"
            self.sweep.doubtful.append(f"{where}: {', '.join(reasons)}")
        return SpeedUp(config.neurons, config.active_neurons, rows, ratio(dense, tree))

    def _dense_calls(self, batches: list[Array]) -> Callable[[], object]:
        blocks = [
            [x[start : start + DENSE_ROWS] for start in range(0, len(x), DENSE_ROWS)]
            for x in batches
        ]
        turn = iter(range(sys.maxsize))

        def call() -> None:
            for block in blocks[next(turn) % len(blocks)]:
                self.dense(block)

        return call


def _crossovers(speedups: list[SpeedUp]) -> list[str]:
    """Return a line for each number of rows: where the tree is faster, and its largest speed-up."""
    lines = []
    for rows in sorted({point.rows for point in speedups}):
        points = sorted(point for point in speedups if point.rows == rows)
        lost = [point for point in points if point.value < 1]
        best = max(points, key=lambda point: point.value)
        reach = (
            f"dense is faster at {', '.join(f'{point.neurons:,}' for point in lost)} neurons"
            if lost
            else "FFF is faster at every width"
        )
        most = f"at most {format_number(best.value)}x, at {best.neurons:,} neurons"
        lines.append(f"{rows:>6,} rows: {reach}; {most}")
    return lines


def _report(speedups: list[SpeedUp], sweep: _Sweep) -> dict[str, Any]:
    """Return all results as plain JSON values."""
    return {
        "machine": describe_machine(),
        "dense": sweep.dense_name,
        "threads": sweep.threads,
        "points": [point._asdict() for point in speedups],
        "notes": sweep.notes,
    }
