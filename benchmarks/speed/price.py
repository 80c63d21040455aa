"""The price of a used neuron: FastFeedForward beside a dense layer of as many neurons.

    python -m benchmarks.speed.price
    python -m benchmarks.speed.price --only batches --rows 8192 --threads 1

No other heavy program may run at the same time. A row of trees x depth uses trees x (depth + 1)
neurons. The price is the time of the layer over that of the two bare matrix products of so many
neurons, by NumPy, on the same rows and with the same threads. If a used neuron is worth w dense
ones, the layer is faster than a dense one of its quality where the price is below w. onnxruntime's
figure is that of its whole dense layer, with activations. The contenders alternate on distinct
rows, after the outputs were checked.

The bound of a batch is arithmetic: two levels at once take three dot products for two nodes, so
the products of a row cost (1.5 + 1) / 2 = 1.25 of those of the dense layer.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np
import threadpoolctl

import fffcpu
from benchmarks.command import command_line, new_parser
from benchmarks.peers.layers import OnnxDense, absent
from benchmarks.report import facts, table
from benchmarks.speed.options import add_quick, add_seconds
from benchmarks.speed.session import section_help
from benchmarks.speed.shapes import PathShape
from fffcpu.benchmarking.machine import describe_machine, package_version
from fffcpu.benchmarking.timing import Contender, alternate, cycling, inference, ratio, ratios
from fffcpu.benchmarking.verification import check_paths, distinct_batches
from fffcpu.system.terminal import print_status
from fffcpu.training import AdamW

SHAPES = ("384:8x7", "384:4x5", "768:8x7", "768:4x5")
ARITHMETIC = 1.25
"""Lowest price of a batch whose products are as fast as those of a matrix product."""

EQUAL_QUALITY = 4
"""Dense neurons per used neuron for the layer that training is compared with. A used neuron of 8
trees of depth 7 replaces three to six in the feedforwards of a sentence encoder."""

Array = np.ndarray
Row = tuple[object, ...]


class Shape(NamedTuple):
    """Width, trees and depth of a layer."""

    width: int
    trees: int
    depth: int

    @classmethod
    def of(cls, text: str) -> Shape:
        """Return the shape that a text like ``384:8x7`` names."""
        width, forest = text.split(":")
        return cls(int(width), *map(int, forest.split("x")))

    @property
    def used(self) -> int:
        """Number of neurons that a row uses."""
        return self.trees * (self.depth + 1)

    def layer(self, two_sided: bool = False) -> fffcpu.FastFeedForward:
        """Return a layer of this shape."""
        shape = PathShape(self.width, self.width, self.depth, self.trees)
        return fffcpu.FastFeedForward(*shape, two_sided=two_sided, rng=0)

    def __str__(self) -> str:
        return f"{self.trees} x {self.depth} ({self.used})"


class Products:
    """The two matrix products of a dense layer, without bias and activation."""

    def __init__(self, inputs: int, neurons: int, outputs: int, rows: int) -> None:
        rng = np.random.default_rng(0)
        self.weights_in = rng.standard_normal((inputs, neurons), dtype=np.float32)
        self.weights_out = rng.standard_normal((neurons, outputs), dtype=np.float32)
        self.hidden = np.empty((rows, neurons), np.float32)
        self.out = np.empty((rows, outputs), np.float32)

    def run(self, x: Array) -> Array:
        """Compute both products."""
        np.matmul(x, self.weights_in, out=self.hidden)
        return np.matmul(self.hidden, self.weights_out, out=self.out)


def main() -> None:
    options = parse()
    versions = {"onnxruntime": package_version("onnxruntime")}
    print(facts({"fffcpu": fffcpu.__version__, **describe_machine(), **versions}))
    print(f"`{command_line()}`\n")
    for name in options.only or SECTIONS:
        SECTIONS[name](options)


def parse() -> argparse.Namespace:
    parser = new_parser(__doc__, section_help(SECTIONS))
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="SECTION", help="(all)")
    parser.add_argument(
        "--shapes", nargs="+", default=SHAPES, metavar="WIDTH:TxD", help=" ".join(SHAPES)
    )
    parser.add_argument("--rows", type=int, nargs="+", help="rows per call of batches and training")
    parser.add_argument("--threads", type=int, nargs="+", help="threads of batches (1 2)")
    parser.add_argument("--repeats", type=int, default=9, help="rounds (9)")
    add_seconds(parser, 0.1)
    add_quick(parser)
    options = parser.parse_args()
    if options.quick:
        options.shapes, options.rows, options.threads = ("16:2x2",), (4,), (1,)
        options.repeats, options.seconds = 1, 0.001
    options.shapes = [Shape.of(text) for text in options.shapes]
    return options


def batches(options: argparse.Namespace) -> None:
    """Batches, beside NumPy's products and onnxruntime's dense layer."""
    rows = [
        race(options, shape, count, threads)
        for threads in options.threads or range(1, min(2, fffcpu.get_num_threads()) + 1)
        for shape in options.shapes
        for count in options.rows or (128, 1024, 8192)
    ]
    print("Batches, microseconds per row; a bound of", ARITHMETIC, "for the price\n")
    print(*table(HEAD, rows), sep="\n", end="\n\n")


def single(options: argparse.Namespace) -> None:
    """Single rows, distinct ones, beside NumPy's products."""
    rows = [race(options, shape, 1, 1) for shape in options.shapes]
    print("Single rows, microseconds\n")
    print(*table(HEAD, rows), sep="\n", end="\n\n")


HEAD = (
    "width",
    "trees x depth (used)",
    "rows",
    "threads",
    "FFF",
    "NumPy, two products",
    "price",
    "range",
    "onnxruntime, dense",
    "price",
)


def race(options: argparse.Namespace, shape: Shape, rows: int, threads: int) -> Row:
    """Time a layer, the products and onnxruntime on one shape."""
    print_status(f"{shape.width}, {shape}, {rows:,} rows, {threads} threads ...")
    most = fffcpu.get_num_threads()
    fffcpu.set_num_threads(threads)
    layer, batch = shape.layer(), distinct_batches(rows, shape.width, rng=1)
    check_paths(layer, batch[0], layer(batch[0]), layer.route(batch[0]))
    products = Products(shape.width, shape.used, shape.width, rows)
    contenders = [
        Contender("FFF", inference(layer, batch), rows),
        Contender("products", cycling(products.run, batch), rows),
    ]
    peer = None if absent(OnnxDense) else OnnxDense(threads)
    if peer is not None:
        neurons = (shape.used, shape.width)
        rng = np.random.default_rng(2)
        params = {
            "weights_in": rng.standard_normal(neurons, dtype=np.float32),
            "bias_in": np.zeros(shape.used, np.float32),
            "weights_out": rng.standard_normal(neurons, dtype=np.float32),
        }
        peer.prepare(params)
        contenders.append(Contender(peer.name, cycling(peer.run, batch), rows))
    with threadpoolctl.threadpool_limits(threads, "blas"):
        ours, bare, *others = alternate(contenders, options.repeats, options.seconds)
    fffcpu.set_num_threads(most)
    found = ratios(ours, bare)
    dense = (
        [f"{others[0].microseconds:.2f}", f"{ratio(ours, others[0]):.2f}"] if others else 2 * "-"
    )
    return (
        shape.width,
        shape,
        f"{rows:,}",
        threads,
        f"{ours.microseconds:.2f}",
        f"{bare.microseconds:.2f}",
        f"**{ratio(ours, bare):.2f}**",
        f"{min(found):.2f} to {max(found):.2f}",
        *dense,
    )


def sides(options: argparse.Namespace) -> None:
    """Layers with two-sided nodes, beside the same layers with one-sided ones."""
    most, rows = fffcpu.get_num_threads(), []
    for shape in options.shapes:
        for count in (1, *(options.rows or (128, 8192))):
            for threads in (1,) if count == 1 else options.threads or (1, most):
                print_status(f"sides {shape.width}, {shape}, {count:,} rows, {threads} threads ...")
                fffcpu.set_num_threads(threads)
                batch = distinct_batches(count, shape.width, rng=1)
                layers = [shape.layer(two_sided) for two_sided in (False, True)]
                two, one = alternate(
                    [
                        Contender(name, inference(layer, batch), count)
                        for name, layer in zip(("two", "one"), reversed(layers), strict=True)
                    ],
                    options.repeats,
                    options.seconds,
                )
                found = ratios(two, one)
                rows.append(
                    (
                        shape.width,
                        shape,
                        f"{count:,}",
                        threads,
                        f"{one.microseconds:.2f}",
                        f"{two.microseconds:.2f}",
                        f"**{ratio(two, one):.2f}**",
                        f"{min(found):.2f} to {max(found):.2f}",
                    )
                )
    fffcpu.set_num_threads(most)
    head = ("width", "trees x depth (used)", "rows", "threads", "one-sided", "two-sided")
    print("Two-sided nodes beside one-sided ones, microseconds per row\n")
    print(*table((*head, "ratio", "range"), rows), sep="\n", end="\n\n")


def training(options: argparse.Namespace) -> None:
    """Training steps, beside a dense layer of equal quality, four times the used neurons."""
    rows = []
    for shape in options.shapes:
        for count in options.rows or (256, 1024, 4096):
            print_status(f"training {shape.width}, {shape}, {count:,} rows ...")
            dense = fffcpu.DenseFeedForward(
                shape.width, shape.width, EQUAL_QUALITY * shape.used, rng=0
            )
            ours, theirs = alternate(
                [step(shape.layer(), count, straight_through=True), step(dense, count)],
                options.repeats,
                options.seconds,
            )
            found = ratios(ours, theirs)
            rows.append(
                (
                    shape.width,
                    shape,
                    f"{count:,}",
                    f"{ours.microseconds:.2f}",
                    f"{theirs.microseconds:.2f} ({EQUAL_QUALITY * shape.used})",
                    f"**{ratio(ours, theirs):.2f}**",
                    f"{min(found):.2f} to {max(found):.2f}",
                )
            )
    head = ("width", "trees x depth (used)", "rows", "FFF", "dense (neurons)", "ratio", "range")
    print(
        f"Training steps (forward, backward with routes that learn, AdamW), microseconds per row, "
        f"{fffcpu.get_num_threads()} threads\n"
    )
    print(*table(head, rows), sep="\n", end="\n\n")


def step(
    layer: fffcpu.FastFeedForward | fffcpu.DenseFeedForward, rows: int, **flags: bool
) -> Contender:
    """Return a training step to be timed."""
    optimizer = AdamW(layer.params, 1e-4)

    def run(x: Array) -> None:
        y, cache = layer.forward(x)
        y *= 1 / y.size
        _, grads = layer.backward(y, cache, **flags)
        optimizer.step(grads)

    return Contender(
        "step", cycling(run, distinct_batches(rows, layer.config.input_dim, rng=1)), rows
    )


SECTIONS = {"batches": batches, "single": single, "sides": sides, "training": training}

if __name__ == "__main__":
    main()
