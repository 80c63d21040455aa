"""Training: a step with dense and with row-sparse gradients, with routes that learn, and epochs.

    python -m benchmarks.speed.training
    python -m benchmarks.speed.training --only routes

No other heavy program may run at the same time. A step is forward, backward, clipping and AdamW on
random rows. Steps are timed in alternation, with batches in turn.
"""

from __future__ import annotations

import argparse
import itertools
import time

import numpy as np

import fffcpu
from benchmarks.command import new_parser
from benchmarks.report import facts
from benchmarks.speed.options import add_seconds
from benchmarks.speed.session import Section, section_help
from fffcpu.benchmarking.machine import describe_machine
from fffcpu.benchmarking.timing import Contender, Timing, alternate, ratio, ratios
from fffcpu.benchmarking.verification import distinct_batches
from fffcpu.data import Table
from fffcpu.recipes.fitting import FitSettings, fit
from fffcpu.system.terminal import format_number, format_table, print_status
from fffcpu.training import AdamW, clip_gradients

WIDTH = 768
ROWS = 60_000
PIXELS, CLASSES = 784, 10


def main() -> None:
    options = parse()
    print(facts(describe_machine()), "\n")
    for name in options.only or SECTIONS:
        SECTIONS[name](options)


def parse() -> argparse.Namespace:
    parser = new_parser(__doc__, section_help(SECTIONS))
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, metavar="SECTION", help="run these sections (all)"
    )
    parser.add_argument(
        "--depths",
        type=int,
        nargs="+",
        default=[9, 11, 13, 15],
        help="depths of the trees in section step (9 11 13 15)",
    )
    parser.add_argument("--batch", type=int, default=64, help="rows per step (64)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of an alternation (9)")
    add_seconds(parser, 0.2)
    return parser.parse_args()


def steps(options: argparse.Namespace) -> None:
    """A step with dense and with row-sparse gradients, for trees of several depths."""
    rows = []
    for depth in options.depths:
        print_status(f"depth {depth} ...")
        dense, sparse = compare(options, "row_sparse", WIDTH, WIDTH, depth)
        times = [milliseconds(timing, options) for timing in (dense, sparse)]
        rows.append((f"{depth}", f"{(2 << depth) - 1:,}", *times, times_longer(dense, sparse, 1)))
    head = ("depth", "nodes", "ms per step, dense", "ms, row-sparse", "times faster")
    print(f"{WIDTH} -> {WIDTH}, one tree, {options.batch} rows, AdamW\n")
    print(format_table(head, rows), "\n")


def routes(options: argparse.Namespace) -> None:
    """A step with constant routes and with routes that learn, of two layers for images."""
    rows = []
    for trees, depth in ((4, 3), (2, 7)):
        constant, learning = compare(options, "straight_through", PIXELS, CLASSES, depth, trees)
        times = [milliseconds(timing, options) for timing in (constant, learning)]
        rows.append((f"{trees} x {depth}", *times, times_longer(learning, constant, 2)))
    head = (
        "trees x depth",
        "ms per step, constant routes",
        "ms, routes that learn",
        "times longer",
    )
    print(f"{PIXELS} -> {CLASSES}, {options.batch} rows, AdamW, dense gradients\n")
    print(format_table(head, rows), "\n")


def compare(options: argparse.Namespace, flag: str, *sizes: int) -> list[Timing]:
    """Time a step of a layer without and with a flag of its backward pass."""
    contenders = [
        step(fffcpu.FastFeedForward(*sizes, rng=0), options.batch, **{flag: on})
        for on in (False, True)
    ]
    return alternate(contenders, options.rounds, options.seconds)


def milliseconds(timing: Timing, options: argparse.Namespace) -> str:
    """Return the milliseconds of a step."""
    return format_number(timing.microseconds * options.batch / 1000)


def times_longer(slow: Timing, fast: Timing, digits: int) -> str:
    """Return the ratio of two timings, and its range over the rounds."""
    found = (ratio(slow, fast), min(ratios(slow, fast)), max(ratios(slow, fast)))
    median, least, most = (f"{value:.{digits}f}" for value in found)
    return f"{median} ({least} to {most})"


def step(layer: fffcpu.FastFeedForward, batch: int, **backward: bool) -> Contender:
    """Return a training step to be timed, with options of the backward pass."""
    optimizer = AdamW(layer.params, 1e-3)
    batches = itertools.cycle(distinct_batches(batch, layer.config.input_dim, rng=1))

    def run() -> None:
        y, cache = layer.forward(next(batches))
        y -= 1.0
        y /= y.size
        _, grads = layer.backward(y, cache, **backward)
        clip_gradients(grads, 1.0)
        optimizer.step(grads)

    return Contender("step", run, batch)


def epochs(options: argparse.Namespace) -> None:
    """Ten epochs on a table of MNIST's size, for several batch sizes."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (ROWS, PIXELS), dtype=np.uint8)
    y = rng.integers(0, CLASSES, ROWS)
    table = Table(x, y, classes=tuple(range(CLASSES)))
    rows = []
    for batch in (64, 128, 256):
        settings = FitSettings(
            depth=7,
            trees=2,
            epochs=10,
            batch_size=batch,
            validation=0.0,
            standardize="table",
        )
        start = time.perf_counter()
        fit(table, settings)
        seconds = time.perf_counter() - start
        rows.append((f"{batch}", f"{seconds:.1f}", f"{10 * ROWS / seconds:,.0f}"))
    print(f"10 epochs of {ROWS:,} x {PIXELS}, 2 trees of depth 7, AdamW\n")
    print(format_table(("rows per step", "seconds", "rows/s"), rows))


SECTIONS: dict[str, Section] = {"step": steps, "routes": routes, "epochs": epochs}


if __name__ == "__main__":
    main()
