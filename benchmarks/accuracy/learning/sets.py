"""The sets: their rows, the base recipe of each, and the sizes of layers that are tried on it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from benchmarks.accuracy.learning.recipes import TEACHER_TRIES, TRIES, Changes, Recipe, changed
from benchmarks.data.bert import Neurons
from benchmarks.data.minilm import read_activations, read_neurons
from benchmarks.data.tables import read_data
from fffcpu.recipes.scaling import Scaling, TargetScaling

Array = np.ndarray

QUICK_ROWS = 512
"""Training rows, and test rows, of a quick run."""


class Rows(NamedTuple):
    """Scaled inputs, float32 (R, I), and targets: class numbers (R,), or float32 (R, O)."""

    x: Array
    y: Array
    test_x: Array
    test_y: Array
    outputs: int
    """Number of outputs O of a layer: that of the classes, if there are classes."""
    teacher: Neurons | None = None
    """The neurons that made the targets, if these are outputs of a feedforward."""


class Source(NamedTuple):
    """The origin of a set, and what is tried on it."""

    read: Callable[[argparse.Namespace], Rows]
    """It returns the rows unscaled."""
    standardize: str
    score: str
    """What the score is."""
    form: str
    """How the score is printed."""
    base: Recipe
    shapes: tuple[tuple[int, int], ...]
    """Trees and depth of layers of which a row uses about as many neurons as of the base."""
    widths: tuple[int, ...]
    """Neurons of dense layers."""
    tries: dict[str, Changes]
    """The tries that need no size of their own."""


def feedforward(layer: int) -> Callable[[argparse.Namespace], Rows]:
    """Return the reader of a feedforward of MiniLM: an input and an output per token."""

    def read(options: argparse.Namespace) -> Rows:
        x, y = read_activations(options.activations, layer, "training")
        test_x, test_y = read_activations(options.activations, layer, "held-out")
        neurons = read_neurons(options.activations, layer)
        return Rows(x, y, test_x, test_y, y.shape[1], neurons)

    return read


def table(name: str) -> Callable[[argparse.Namespace], Rows]:
    """Return the reader of a table."""

    def read(options: argparse.Namespace) -> Rows:
        training, test = read_data(options.tables, name)
        assert training.y is not None
        assert test.y is not None
        assert training.classes is not None
        return Rows(training.x, training.y, test.x, test.y, len(training.classes))

    return read


def minilm(layer: int) -> Source:
    """Return a set that imitates a feedforward of MiniLM."""
    base = Recipe(
        trees=8, depth=7, epochs=6, batch_size=256, lr=0.004, weight_decay=0.3, rows=200_000
    )
    shapes, widths = ((16, 3), (13, 4), (6, 10)), (128, 256, 512)
    score = "R2 on the tokens held out"
    tries = TRIES | TEACHER_TRIES
    return Source(feedforward(layer), "columns", score, ".4f", base, shapes, widths, tries)


def classes(name: str, standardize: str, base: Recipe) -> Source:
    """Return a set of classes."""
    shapes, widths = ((2, 7), (5, 2), (1, 15)), (16, 32)
    score = "accuracy on the test rows"
    return Source(table(name), standardize, score, ".2%", base, shapes, widths, TRIES)


LETTERS = Recipe(trees=4, depth=3, epochs=40, batch_size=64, lr=0.025, weight_decay=0.02)
IMAGES = Recipe(trees=4, depth=3, epochs=20, batch_size=64, lr=0.006, weight_decay=0.1)

SOURCES = {
    "minilm-1": minilm(1),
    "minilm-4": minilm(4),
    "letters": classes("letters", "columns", LETTERS),
    "mnist": classes("mnist", "table", IMAGES),
    "fashion-mnist": classes("fashion-mnist", "table", IMAGES),
}


def tries_of(data: str) -> dict[str, Changes]:
    """Return the tries on a set."""
    source = SOURCES[data]
    shapes = {
        f"{trees}x{depth}": {"trees": trees, "depth": depth} for trees, depth in source.shapes
    }
    dense = {f"dense-{width}": {"width": width} for width in source.widths}
    return {**source.tries, **shapes, **dense}


def recipe_of(data: str, name: str, quick: bool) -> Recipe:
    """Return the recipe of a try on a set."""
    recipe = changed(SOURCES[data].base, tries_of(data)[name])
    return recipe._replace(rows=QUICK_ROWS, epochs=1) if quick else recipe


def read_rows(data: str, options: argparse.Namespace) -> Rows:
    """Return the rows of a set, scaled by its training rows."""
    source = SOURCES[data]
    found = source.read(options)
    count = QUICK_ROWS if options.quick else source.base.rows
    x, y = np.array(found.x[:count]), np.array(found.y[:count])
    test_count = QUICK_ROWS if options.quick else None
    test_x, test_y = found.test_x[:test_count], found.test_y[:test_count]
    scaling = Scaling.of(x, np.arange(len(x)), source.standardize)
    teacher = found.teacher
    if y.ndim > 1:
        targets = TargetScaling.of(y)
        teacher = teacher and scaled_neurons(teacher, scaling, targets)
        y, test_y = (targets.apply(numbers, np.float32) for numbers in (y, test_y))
    x, test_x = (scaling.apply(numbers, np.float32) for numbers in (x, test_x))
    return Rows(x, y, test_x, np.array(test_y), found.outputs, teacher)


def scaled_neurons(neurons: Neurons, scaling: Scaling, targets: TargetScaling) -> Neurons:
    """Return neurons of scaled inputs and outputs that are as active as the given ones."""
    mean, scale, unit = (
        np.asarray(numbers, np.float32) for numbers in (scaling.mean, scaling.scale, targets.unit)
    )
    weights_in, bias_in, weights_out = neurons
    return Neurons(weights_in * scale, bias_in + weights_in @ mean, weights_out / unit)
