"""The cost of bfloat16 and int8 weights: bytes, errors, changed routes, accuracy.

    python -m benchmarks.accuracy.quantized

Nothing is timed. Both layers are trained on the digits, three times each. An untrained layer of
BERT's size is added, on random rows. The columns of the table:

    same route      largest error of an output among rows with an unchanged route, relative to the
                    largest output of all rows
    all rows        median over all rows of their largest error, and the largest error, both
                    relative to the largest output
    rows flipped    share of the rows with another route in any tree
    accuracy        on the 397 rows that training did not see, before and after
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fffcpu
from benchmarks.command import command_line, new_parser
from benchmarks.report import table
from benchmarks.speed.shapes import BERT_BASE, PathShape
from fffcpu import FastFeedForward, LeafFeedForward
from fffcpu.data import load_digits
from fffcpu.training import AdamW, clip_gradients, one_cycle_triangle, softmax_cross_entropy

Array = NDArray[Any]

TRAINING_ROWS, STEPS, BATCH = 1400, 1500, 64
HEAD = (
    *("layer", "weights", "bytes", "same route", "all rows: median", "largest"),
    *("rows flipped", "accuracy"),
)


def main() -> None:
    options = parse()
    steps, runs = (20, 1) if options.quick else (STEPS, 3)
    images, labels = load_digits()
    lines = []
    for seed in range(runs):
        fast = FastFeedForward(64, 10, depth=4, trees=4, rng=seed)
        leaf = LeafFeedForward(64, 10, depth=3, leaf_width=8, rng=seed)
        train(fast, images, labels, steps, seed)
        train(leaf, images, labels, steps, seed, hardening=0.3)
        for name, layer in (("fast", fast), ("leaf", leaf)):
            lines += compare(f"digits, {name}, seed {seed}", layer, images, labels)
    shape = PathShape(16, 16, 3, 1) if options.quick else BERT_BASE
    layer = FastFeedForward(*shape, rng=0)
    rows = np.random.default_rng(1).standard_normal((4096, shape.input_dim), dtype=np.float32)
    lines += compare(f"{shape.input_dim} wide, depth {shape.depth}, random", layer, rows)
    print(f"fffcpu {fffcpu.__version__}, NumPy {np.__version__}: `{command_line()}`\n")
    print("\n".join(table(HEAD, sorted(lines))))


def parse() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny layers, to see that it runs")
    return parser.parse_args()


def train(
    layer: Any, images: Array, labels: Array, steps: int, seed: int, **options: float
) -> None:
    """Train on the digits. The options are those of the layer's backward."""
    optimizer, rng = AdamW(layer.params, lr=0.01), np.random.default_rng(seed)
    for step in range(steps):
        batch = rng.integers(0, TRAINING_ROWS, BATCH)
        logits, cache = layer.forward(images[batch])
        _, dlogits = softmax_cross_entropy(logits, labels[batch])
        _, grads = layer.backward(dlogits, cache, **options)
        clip_gradients(grads, 0.5)
        optimizer.step(grads, lr=optimizer.lr * one_cycle_triangle(step / steps))


def compare(name: str, layer: Any, x: Array, labels: Array | None = None) -> list[list[str]]:
    """Return a row of the table for each type of weights."""
    y, routes = layer(x), layer.route(x).reshape(len(x), -1)
    lines = []
    for weights in ("bfloat16", "int8"):
        small = layer.quantize(weights)
        rounded = small(x)
        same = (small.route(x).reshape(routes.shape) == routes).all(axis=1)
        errors = np.abs(rounded - y).max(axis=1) / np.abs(y).max()
        accuracies = "-"
        if labels is not None:
            before, after = (
                (output[TRAINING_ROWS:].argmax(axis=1) == labels[TRAINING_ROWS:]).mean()
                for output in (y, rounded)
            )
            accuracies = f"{before:.1%}, {after:.1%}"
        figures = (errors[same].max(), np.median(errors), errors.max())
        lines.append(
            [
                *(name, weights, f"{small.nbytes / layer.nbytes:.1%}"),
                *(f"{figure:.2%}" for figure in figures),
                *(f"{1 - same.mean():.2%}", accuracies),
            ]
        )
    return lines


if __name__ == "__main__":
    main()
