"""What compiling costs: each kernel on an empty cache, and the first results of new processes.

Run ``python -m benchmarks.speed.compile``; ``--help`` tells the rest. Nothing else heavy may run at
the time. Every figure is of processes of their own: cold ones start with an empty cache folder, the
next ones find what these left. Seconds of first results count from the start of the process, Python
and NumPy included; those of kernels from their call. The first kernel of a process has the start of
the compiler in it and compiles the parts that it shares with the others.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import fffcpu
from benchmarks.speed.shapes import BERT_BASE, PathShape
from fffcpu.benchmarking.machine import describe_machine

FIRST_RESULT = """
import numpy as np
from fffcpu import FastFeedForward
layer = FastFeedForward({shape}, rng=0)
print(layer(np.ones(({rows}, {width}), np.float32)).shape, flush=True)
"""

SMALL, LARGE = 16, 4096
"""Rows of a small batch, which stays on its caller's thread, and of one that is shared."""


def main() -> None:
    options = parse()
    shape = PathShape(16, 16, 2, 1) if options.quick else BERT_BASE
    print(format_report(options, [*first_results(shape, options), *by_kernel(options)]))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="processes of each kind (5)")
    parser.add_argument("--quick", action="store_true", help="a tiny layer, to see that it runs")
    return parser.parse_args()


@contextlib.contextmanager
def empty_cache() -> Iterator[dict[str, str]]:
    """Environment in which nothing is compiled yet."""
    with tempfile.TemporaryDirectory() as folder:
        yield {**os.environ, "NUMBA_CACHE_DIR": folder}


def first_results(shape: PathShape, options: argparse.Namespace) -> Iterator[str]:
    """Lines of first results, small and large, on an empty cache and on a full one."""
    sizes = ", ".join(map(str, shape))
    for rows, goal in ((SMALL, "5 s"), (LARGE, "15 s")):
        program = FIRST_RESULT.format(shape=sizes, rows=rows, width=shape.input_dim)
        cold, warm = [], []
        for _ in range(options.repeats):
            with empty_cache() as environment:
                cold.append(seconds_to_first_line(program, environment))
                warm.append(seconds_to_first_line(program, environment))
        yield line(f"first result, {rows:,} rows, empty cache", cold, goal)
        yield line(f"the same in the next process, {rows:,} rows", warm, "1.5 s")


def seconds_to_first_line(program: str, environment: dict[str, str]) -> float:
    """Run a program; return the seconds from its start to the first line it prints."""
    command = [sys.executable, "-c", program]
    start = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seconds = time.perf_counter() - start
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return seconds


def by_kernel(options: argparse.Namespace) -> Iterator[str]:
    """Lines of all kernels in the order of ``fffcpu warmup --training``."""
    seconds: dict[tuple[str, str], list[float]] = {}
    for _ in range(options.repeats):
        with empty_cache() as environment:
            for source in ("compiled", "cache"):
                for kernel in warm_up(environment):
                    seconds.setdefault((kernel["kernel"], source), []).append(kernel["seconds"])
    names = list(dict.fromkeys(name for name, _ in seconds))
    for name in names:
        yield line(f"`{name}`, compiled", seconds[name, "compiled"], "-")
    for name in names:
        yield line(f"`{name}`, from the cache", seconds[name, "cache"], "-")


def warm_up(environment: dict[str, str]) -> list[dict[str, float | str]]:
    """Run ``fffcpu warmup --training`` and return what it tells of each kernel."""
    command = [sys.executable, "-m", "fffcpu", "warmup", "--training", "--json"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    kernels: list[dict[str, float | str]] = json.loads(done.stdout)["kernels"]
    return kernels


def line(what: str, seconds: list[float], goal: str) -> str:
    limits = f"{min(seconds):.2f} to {max(seconds):.2f} s"
    return f"| {what} | {statistics.median(seconds):.2f} s | {limits} | {goal} |"


def format_report(options: argparse.Namespace, lines: list[str]) -> str:
    machine = ", ".join(f"{name} {value}" for name, value in describe_machine().items())
    return "\n".join(
        [
            f"Compilation, float32, fffcpu {fffcpu.__version__}, {options.repeats} processes each.",
            f"{machine}.",
            f"`python {shlex.join(sys.argv)}`",
            "",
            "| figure | median | range | goal: at most |",
            "|---|---|---|---|",
            *lines,
        ]
    )


if __name__ == "__main__":
    main()
