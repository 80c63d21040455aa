"""The cost of compilation: each kernel with an empty cache, and first results of new processes.

    python -m benchmarks.speed.compile

No other heavy program may run at the same time. Each figure is that of several processes. Cold ones
start with an empty cache folder, and the next ones find the kernels of these. Seconds of first
results count from the start of the process, with Python and NumPy. Seconds of kernels count from
their call. The first kernel of a process also starts the compiler and compiles shared code.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import fffcpu
from benchmarks.command import command_line, new_parser
from benchmarks.report import facts
from benchmarks.speed.figures import Figure, figure_table
from benchmarks.speed.options import add_quick
from benchmarks.speed.processes import first_line, first_result
from benchmarks.speed.shapes import BERT_BASE, PathShape
from fffcpu.benchmarking.machine import describe_machine

SMALL, LARGE = 16, 4096
"""Rows of a small batch, which stays on its caller's thread, and of one that threads share."""


def main() -> None:
    options = parse()
    shape = PathShape(16, 16, 2, 1) if options.quick else BERT_BASE
    figures = [*first_results(shape, options), *by_kernel(options)]
    print(f"Compilation, float32, fffcpu {fffcpu.__version__}, {options.repeats} processes each.")
    print(f"{facts(describe_machine())}.\n`{command_line()}`\n")
    print("\n".join(figure_table(figures)))


def parse() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="processes per figure (5)")
    add_quick(parser)
    return parser.parse_args()


@contextlib.contextmanager
def empty_cache() -> Iterator[dict[str, str]]:
    """Environment in which nothing is compiled yet."""
    with tempfile.TemporaryDirectory() as folder:
        yield {**os.environ, "NUMBA_CACHE_DIR": folder}


def first_results(shape: PathShape, options: argparse.Namespace) -> Iterator[Figure]:
    """Yield first results of small and large batches, with an empty cache and with a full one."""
    for rows, goal in ((SMALL, 5),) if options.quick else ((SMALL, 5), (LARGE, 15)):
        program = first_result(shape, rows)
        cold, warm = [], []
        for _ in range(options.repeats):
            with empty_cache() as environment:
                cold.append(first_line(program, environment).seconds)
                warm.append(first_line(program, environment).seconds)
        yield Figure.at_most(f"first result, {rows:,} rows, empty cache", cold, "s", goal)
        yield Figure.at_most(f"the same in the next process, {rows:,} rows", warm, "s", 1.5)


def by_kernel(options: argparse.Namespace) -> Iterator[Figure]:
    """Yield figures of all kernels in the order of ``fffcpu warmup --training``."""
    seconds: dict[tuple[str, str], list[float]] = {}
    for _ in range(options.repeats):
        with empty_cache() as environment:
            for source in ("compiled", "from the cache"):
                for kernel in warm_up(environment, options.quick):
                    seconds.setdefault((source, kernel["kernel"]), []).append(kernel["seconds"])
    for (source, name), found in sorted(seconds.items(), key=lambda item: item[0][0]):
        yield Figure.at_most(f"`{name}`, {source}", found, "s")


def warm_up(environment: dict[str, str], quick: bool) -> list[dict[str, float | str]]:
    """Run ``fffcpu warmup --training`` and return its report on each kernel.

    A quick run warms up for the inference of one small layer.
    """
    command = [sys.executable, "-m", "fffcpu", "warmup", "--json"]
    if not quick:
        command.append("--training")
    else:
        layer = os.path.join(environment["NUMBA_CACHE_DIR"], "layer.safetensors")
        fffcpu.FastFeedForward(16, 16, 2, rng=0).save(layer)
        command.append(layer)
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    kernels: list[dict[str, float | str]] = json.loads(done.stdout)["kernels"]
    return kernels


if __name__ == "__main__":
    main()
