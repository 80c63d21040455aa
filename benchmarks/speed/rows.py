"""The figures of the row kernels at BERT size, and of start-up, as a table in Markdown.

Run ``python -m benchmarks.speed.rows``; ``--help`` tells the rest. Nothing else heavy may run at
the time. Layers are called as users call them: ``layer(x)``, with its checks and its new array.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import fffcpu
from benchmarks.speed.shapes import BERT_BASE, PathShape
from fffcpu.benchmarking.machine import describe_machine
from fffcpu.benchmarking.timing import Contender, Timing, alternate, cycling, ratio
from fffcpu.benchmarking.verification import check_paths, distinct_batches

IMPORT = (
    "import time; start = time.perf_counter(); import fffcpu; print(time.perf_counter() - start)"
)
FIRST_RESULT = """
import numpy as np
from fffcpu import FastFeedForward
layer = FastFeedForward({shape}, rng=0)
print(layer(np.ones((1, {width}), np.float32)).shape, flush=True)
"""
MOST_PROCESSES = 7


class Figure(NamedTuple):
    """One line of the table."""

    what: str
    value: str
    range: str
    goal: str


class FirstLine(NamedTuple):
    """What a process printed first, and how many seconds after its start."""

    text: str
    seconds: float


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
    print(format_report(shape, figures))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    threads = min(2, fffcpu.get_num_threads())
    parser.add_argument("--threads", type=int, default=threads, help="of the kernels (2)")
    parser.add_argument("--repeats", type=int, default=15, help="rounds of alternation (15)")
    parser.add_argument("--seconds", type=float, default=0.1, help="of each measurement (0.1)")
    parser.add_argument("--quick", action="store_true", help="a tiny layer, to see that it runs")
    return parser.parse_args()


def race(contenders: list[Contender], options: argparse.Namespace) -> list[Timing]:
    return alternate(contenders, options.repeats, options.seconds)


def one_row(layer: fffcpu.FastFeedForward, options: argparse.Namespace) -> list[Figure]:
    """One row a call: the same each time, and another each time."""
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
        time_figure("one row a call, the same row", repeated, "5"),
        time_figure(f"one row a call, {len(batches):,} rows in turn", distinct, "8"),
    ]


def many_rows(
    layer: fffcpu.FastFeedForward, rows: int, options: argparse.Namespace
) -> list[Figure]:
    """Many rows a call, into a new array and into given ones; batches take turns."""
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
        time_figure(f"{rows:,} rows a call, layer(x)", new, "3"),
        time_figure(f"{rows:,} rows a call, layer(x, out=y)", given, "3"),
    ]


def training(layer: fffcpu.FastFeedForward, rows: int, options: argparse.Namespace) -> list[Figure]:
    """Forward and backward, without an optimizer, over inference."""
    batches = distinct_batches(rows, layer.config.input_dim, rng=3)
    upstream = distinct_batches(rows, layer.config.output_dim, rng=4)
    inference, both = race(
        [
            Contender("inference", cycling(layer, batches), rows),
            Contender("both", cycling(forward_backward(layer), batches, upstream), rows),
        ],
        options,
    )
    rounds = [two / one for one, two in zip(inference.seconds, both.seconds, strict=True)]
    low, high = min(rounds), max(rounds)
    times = f"{ratio(both, inference):.2f}x"
    return [
        time_figure(f"{rows:,} rows, forward and backward", both, "-"),
        Figure("the same over inference", times, f"{low:.2f} to {high:.2f}x", "4x"),
    ]


def forward_backward(layer: fffcpu.FastFeedForward) -> Callable[[Any, Any], object]:
    def step(x: Any, dy: Any) -> object:
        _, cache = layer.forward(x)
        return layer.backward(dy, cache)

    return step


def start_up(shape: PathShape, processes: int) -> list[Figure]:
    """Import, and a second process's first result from its start, kernels on disk."""
    imports = [float(first_line(IMPORT).text) for _ in range(processes)]
    sizes = ", ".join(map(str, shape))
    program = FIRST_RESULT.format(shape=sizes, width=shape.input_dim)
    first_line(program)  # leaves the kernels on disk
    firsts = [first_line(program).seconds for _ in range(processes)]
    return [
        seconds_figure("import fffcpu", imports, "0.3"),
        seconds_figure("a new process's first result, kernels on disk", firsts, "1.5"),
    ]


def first_line(program: str) -> FirstLine:
    """Run a program in a process of its own."""
    command = [sys.executable, "-c", program]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - start
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return FirstLine(line, seconds)


def check(layer: fffcpu.FastFeedForward, x: Any) -> None:
    check_paths(layer, x, layer(x), layer.route(x))


def time_figure(what: str, timing: Timing, goal: str) -> Figure:
    limit = goal if goal == "-" else f"{goal} us"
    low, high = (1e6 * end(timing.seconds) / timing.rows for end in (min, max))
    return Figure(what, f"{timing.microseconds:.2f} us a row", f"{low:.2f} to {high:.2f} us", limit)


def seconds_figure(what: str, seconds: list[float], goal: str) -> Figure:
    limits = f"{min(seconds):.2f} to {max(seconds):.2f} s"
    return Figure(what, f"{statistics.median(seconds):.2f} s", limits, f"{goal} s")


def format_report(shape: PathShape, figures: list[Figure]) -> str:
    machine = ", ".join(f"{name} {value}" for name, value in describe_machine().items())
    layer = f"{shape.input_dim} -> {shape.output_dim}, depth {shape.depth}, trees {shape.trees}"
    lines = [
        f"FastFeedForward {layer}, float32, fffcpu {fffcpu.__version__}.",
        f"{fffcpu.get_num_threads()} threads.",
        f"{machine}.",
        f"`python {shlex.join(sys.argv)}`",
        "",
        "| figure | median | range | goal: at most |",
        "|---|---|---|---|",
        *(f"| {' | '.join(figure)} |" for figure in figures),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
