"""Matrix products of fffcpu beside those of NumPy's BLAS.

    python -m benchmarks.speed.products

The shapes are those of a layer of all-MiniLM-L6-v2: rows of width 384, and the projections of the
attention and of the feedforward. Weights lie by output (O, I), as those of projections do, or by
input (I, O), as the output weights of a feedforward do. A call takes the next of several copies of
the weights, 42 MB in all like those of the model's layers, so they come from memory and not from a
cache.

Outputs are compared first. Then both are timed in alternation, on one thread and on two; times are
medians, in microseconds per call. A ratio is the median of the ratios within a round.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import threadpoolctl

import fffcpu
from benchmarks.command import command_line, new_parser
from benchmarks.report import facts, table
from benchmarks.speed.options import add_quick, add_seconds, add_threads
from fffcpu.benchmarking.machine import describe_machine
from fffcpu.benchmarking.timing import Contender, Timing, alternate, ratio, ratios
from fffcpu.errors import WrongOutputError
from fffcpu.kernels.matrix_products import matmul

ROWS = (1, 16, 128, 1024)
WEIGHTS_BYTES = 42e6
TOLERANCE = 1e-5
"""Largest difference of outputs, relative to the largest output."""

Array = np.ndarray
Product = Callable[[Array, Array, Array], object]


class Shape(NamedTuple):
    """Sizes of a product, and how its weights lie."""

    inputs: int
    outputs: int
    by_input: bool


SHAPES = (
    Shape(384, 1152, False),
    Shape(384, 384, False),
    Shape(384, 1536, False),
    Shape(1536, 384, True),
)
QUICK = (Shape(20, 30, False), Shape(30, 20, True))


def parse() -> argparse.Namespace:
    parser = new_parser(__doc__)
    add_threads(parser, "both, besides one")
    parser.add_argument("--repeats", type=int, default=9, help="rounds (9)")
    add_seconds(parser, 0.05)
    add_quick(parser)
    return parser.parse_args()


def blas(y: Array, x: Array, weights: Array) -> object:
    """Write a product by NumPy."""
    return np.matmul(x, weights, out=y)


def calls(shape: Shape, rows: int) -> Iterator[Callable[[], object]]:
    """Yield a call of fffcpu and one of NumPy, after their outputs were compared."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, shape.inputs), np.float32)
    copies = max(1, round(WEIGHTS_BYTES / (4 * shape.inputs * shape.outputs)))
    weights = rng.standard_normal((copies, shape.outputs, shape.inputs), np.float32)
    ordered = [np.ascontiguousarray(own.T) if shape.by_input else own.T for own in weights]
    outputs = [np.empty((rows, shape.outputs), np.float32) for _ in range(2)]
    for product, y in zip((matmul, blas), outputs, strict=True):
        product(y, x, ordered[0])
    error = np.abs(outputs[0] - outputs[1]).max() / np.abs(outputs[1]).max()
    if not error <= TOLERANCE:
        raise WrongOutputError(f"products must agree up to {TOLERANCE:g}, got an error of {error}")
    for product, y in zip((matmul, blas), outputs, strict=True):
        yield call(product, y, x, ordered)


def call(product: Product, y: Array, x: Array, weights: list[Array]) -> Callable[[], object]:
    """Return a call that takes the next weights."""
    turns = itertools.cycle(weights)
    return lambda: product(y, x, next(turns))


def measure(options: argparse.Namespace) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of the table."""
    for threads in sorted({1, options.threads}):
        fffcpu.set_num_threads(threads)
        for shape in QUICK if options.quick else SHAPES:
            for rows in ROWS[:2] if options.quick else ROWS:
                with threadpoolctl.threadpool_limits(threads, "blas"):
                    ours, theirs = alternate(
                        [
                            Contender(name, run, 1)
                            for name, run in zip("ab", calls(shape, rows), strict=True)
                        ],
                        options.repeats,
                        options.seconds,
                    )
                yield cells(shape, rows, threads, ours, theirs)


def cells(shape: Shape, rows: int, threads: int, ours: Timing, theirs: Timing) -> tuple[Any, ...]:
    """Return a row of the table."""
    within = ratios(theirs, ours)
    return (
        f"{shape.inputs} x {shape.outputs}, by {'input' if shape.by_input else 'output'}",
        threads,
        f"{rows:,}",
        f"{ours.microseconds:,.0f}",
        f"{theirs.microseconds:,.0f}",
        f"**{ratio(theirs, ours):.2f}**",
        f"{min(within):.2f} to {max(within):.2f}",
    )


def main() -> None:
    options = parse()
    before = fffcpu.get_num_threads()
    try:
        rows = list(measure(options))
    finally:
        fffcpu.set_num_threads(before)
    head = ("inputs x outputs", "threads", "rows", "fffcpu", "BLAS", "BLAS / fffcpu", "range")
    print(f"Matrix products, float32, us per call, fffcpu {fffcpu.__version__}.")
    print(f"{facts(describe_machine())}.", f"`{command_line()}`", "", sep="\n")
    print(*table(head, [tuple(map(str, row)) for row in rows]), sep="\n")


if __name__ == "__main__":
    main()
