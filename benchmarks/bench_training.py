"""Training: a step with dense and with row-sparse gradients, with routes that learn, and epochs.

Run ``python benchmarks/bench_training.py``; nothing else heavy may run at the time. A step is
forward, backward, clipping and AdamW on random rows, timed in alternation by batches in turn.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time

import numpy as np

import fffcpu
from fffcpu.cli.table import format_number, format_table
from fffcpu.data import Table
from fffcpu.fitting import FitSettings, fit
from fffcpu.timing import Contender, alternate, describe_machine, distinct_batches, ratio, ratios
from fffcpu.training import AdamW, clip_gradients

WIDTH = 768
ROWS = 60_000
PIXELS, CLASSES = 784, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("step", "routes", "epochs"), help="one of the parts")
    parser.add_argument("--depths", type=int, nargs="+", default=[9, 11, 13, 15], help="of `step`")
    parser.add_argument("--batch", type=int, default=64, help="rows of a step (64)")
    parser.add_argument("--rounds", type=int, default=9, help="of each alternation (9)")
    parser.add_argument("--seconds", type=float, default=0.2, help="of a measurement (0.2)")
    options = parser.parse_args()
    print(", ".join(f"{name} {value}" for name, value in describe_machine().items()), "\n")
    if options.only in (None, "step"):
        steps(options)
    if options.only in (None, "routes"):
        routes(options)
    if options.only in (None, "epochs"):
        epochs()


def steps(options: argparse.Namespace) -> None:
    """Time a step with dense and with row-sparse gradients, for trees of several depths."""
    rows = []
    for depth in options.depths:
        print(f"depth {depth} ...", file=sys.stderr)
        contenders = [
            step(
                fffcpu.FastFeedForward(WIDTH, WIDTH, depth, rng=0), options.batch, row_sparse=sparse
            )
            for sparse in (False, True)
        ]
        dense, sparse = alternate(contenders, options.rounds, options.seconds)
        times = [timing.microseconds * options.batch / 1000 for timing in (dense, sparse)]
        found = ratios(dense, sparse)
        rows.append(
            (
                f"{depth}",
                f"{(2 << depth) - 1:,}",
                *map(format_number, times),
                f"{ratio(dense, sparse):.1f} ({min(found):.1f} to {max(found):.1f})",
            )
        )
    head = ("depth", "nodes", "ms a step, dense", "ms, row-sparse", "times faster")
    print(f"{WIDTH} -> {WIDTH}, one tree, {options.batch} rows, AdamW\n")
    print(format_table(head, rows), "\n")


def routes(options: argparse.Namespace) -> None:
    """Time a step with constant routes and with routes that learn, of two layers for images."""
    rows = []
    for trees, depth in ((4, 3), (2, 7)):
        contenders = [
            step(
                fffcpu.FastFeedForward(PIXELS, CLASSES, depth, trees, rng=0),
                options.batch,
                straight_through=learn,
            )
            for learn in (False, True)
        ]
        constant, learning = alternate(contenders, options.rounds, options.seconds)
        found = ratios(learning, constant)
        rows.append(
            (
                f"{trees} x {depth}",
                *(
                    format_number(timing.microseconds * options.batch)
                    for timing in (constant, learning)
                ),
                f"{ratio(learning, constant):.2f} ({min(found):.2f} to {max(found):.2f})",
            )
        )
    head = ("trees x depth", "us a step, constant routes", "us, routes that learn", "times")
    print(f"{PIXELS} -> {CLASSES}, {options.batch} rows, AdamW, dense gradients\n")
    print(format_table(head, rows), "\n")


def step(layer: fffcpu.FastFeedForward, batch: int, **backward: bool) -> Contender:
    """Return a training step to be timed; `backward` is what the backward pass is told."""
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


def epochs() -> None:
    """Time ten epochs on a table of MNIST's size, for several batch sizes."""
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
    print(format_table(("rows a step", "seconds", "rows/s"), rows))


if __name__ == "__main__":
    main()
