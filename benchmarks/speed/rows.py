"""The row kernels at BERT's size, and start-up.

    python -m benchmarks.speed.rows

No other heavy program may run at the same time. Layers are called as layer(x), with its checks and
its new array. Start-up is that of new processes, whose kernels are on disk.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

import fffcpu
from benchmarks.command import command_line, new_parser
from benchmarks.report import facts
from benchmarks.speed.figures import Figure, figure_table
from benchmarks.speed.options import add_quick, add_seconds, add_threads
from benchmarks.speed.processes import first_line, first_result
from benchmarks.speed.shapes import BERT_BASE, PathShape
from fffcpu.benchmarking.machine import describe_machine
from fffcpu.benchmarking.timing import Contender, Timing, alternate, cycling, ratios
from fffcpu.benchmarking.verification import check_paths, distinct_batches

IMPORT = (
    "import time; start = time.perf_counter(); import fffcpu; print(time.perf_counter() - start)"
)
MOST_PROCESSES = 7


def main() -> None:
    options = parse()
    fffcpu.set_num_threads(options.threads)
    shape = PathShape(3, 2, 2, 1) if options.quick else BERT_BASE
    many = 8 if options.quick else 4096
    layer = fffcpu.FastFeedForward(*shape, rng=0)
    figures = [
        *one_row(layer, options),
        *many_rows(layer, many, options),
        *training(layer, many, options),
        *start_up(shape, min(options.repeats, MOST_PROCESSES)),
    ]
    print(f"{shape}, float32, fffcpu {fffcpu.__version__}, {options.threads} threads.")
    print(f"{facts(describe_machine())}.\n`{command_line()}`\n")
    print("\n".join(figure_table(figures)))


def parse() -> argparse.Namespace:
    parser = new_parser(__doc__)
    add_threads(parser)
    parser.add_argument("--repeats", type=int, default=15, help="rounds of an alternation (15)")
    add_seconds(parser, 0.1)
    add_quick(parser)
    return parser.parse_args()


def race(contenders: list[Contender], options: argparse.Namespace) -> list[Timing]:
    return alternate(contenders, options.repeats, options.seconds)


def one_row(layer: fffcpu.FastFeedForward, options: argparse.Namespace) -> list[Figure]:
    """Time one row per call: the same row each time, and another row each time."""
    batches = distinct_batches(1, layer.config.input_dim, rng=1)
    check(layer, np.concatenate(batches))
    repeated, distinct = race(
        [
            Contender("repeated", cycling(layer, batches[:1]), 1),
            Contender("distinct", cycling(layer, batches), 1),
        ],
        options,
    )
    return [
        time_figure("one row per call, the same row", repeated, 5),
        time_figure(f"one row per call, {len(batches):,} rows in turn", distinct, 8),
    ]


def many_rows(
    layer: fffcpu.FastFeedForward, rows: int, options: argparse.Namespace
) -> list[Figure]:
    """Time many rows per call, into a new array and into given ones, with batches in turn."""
    batches = distinct_batches(rows, layer.config.input_dim, rng=2)
    outputs = [np.empty((rows, layer.config.output_dim), np.float32) for _ in range(2)]
    check(layer, batches[0])
    new, given = race(
        [
            Contender("new", cycling(layer, batches), rows),
            Contender("given", cycling(lambda x, y: layer(x, out=y), batches, outputs), rows),
        ],
        options,
    )
    return [
        time_figure(f"{rows:,} rows per call, layer(x)", new, 3),
        time_figure(f"{rows:,} rows per call, layer(x, out=y)", given, 3),
    ]


def training(layer: fffcpu.FastFeedForward, rows: int, options: argparse.Namespace) -> list[Figure]:
    """Time forward and backward, without an optimizer, and inference."""
    batches = distinct_batches(rows, layer.config.input_dim, rng=3)
    upstream = distinct_batches(rows, layer.config.output_dim, rng=4)
    inference, both = race(
        [
            Contender("inference", cycling(layer, batches), rows),
            Contender("both", cycling(forward_backward(layer), batches, upstream), rows),
        ],
        options,
    )
    return [
        time_figure(f"{rows:,} rows, forward and backward", both),
        Figure.at_most("the same over inference", ratios(both, inference), "x", 4),
    ]


def forward_backward(layer: fffcpu.FastFeedForward) -> Callable[[Any, Any], object]:
    def step(x: Any, dy: Any) -> object:
        _, cache = layer.forward(x)
        return layer.backward(dy, cache)

    return step


def start_up(shape: PathShape, processes: int) -> list[Figure]:
    """Time the import, and the first result of a second process, whose kernels are on disk."""
    imports = [float(first_line(IMPORT).text) for _ in range(processes)]
    program = first_result(shape, rows=1)
    first_line(program)  # leaves the kernels on disk
    firsts = [first_line(program).seconds for _ in range(processes)]
    return [
        Figure.at_most("import fffcpu", imports, "s", 0.3),
        Figure.at_most("a new process's first result, kernels on disk", firsts, "s", 1.5),
    ]


def check(layer: fffcpu.FastFeedForward, x: Any) -> None:
    check_paths(layer, x, layer(x), layer.route(x))


def time_figure(what: str, timing: Timing, goal: float | None = None) -> Figure:
    """Return the figure of a contender's time per row."""
    rounds = [1e6 * seconds / timing.rows for seconds in timing.seconds]
    return Figure.at_most(what, rounds, "us per row", goal)


if __name__ == "__main__":
    main()
