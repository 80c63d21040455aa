"""Part 2 of ``fffcpu demo``: two networks of equally many active neurons on handwritten digits.

The recipe for both is `fit` with AdamW, weight decay 0.3, a peak learning rate of 0.03, gradients
clipped to norm 1, and 30 epochs in batches of 32. Five-fold cross-validation inside the training
rows chose it, among learning rates from 0.005 to 0.03 and decays from 0.03 to 0.3: no other was
better for either network. The test rows were not used.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.benchmarking.timing import doubts
from fffcpu.cli.demo.speed import print_doubts, time_layers
from fffcpu.data import Table, load_digits
from fffcpu.inference.predictor import Predictor
from fffcpu.recipes.fitting import FitSettings, evaluate_table, fit
from fffcpu.system.terminal import format_number, format_table, progress_bar

__all__ = ["Digits", "compare_networks", "compile_kernels", "draw_examples", "split_digits"]

Array = NDArray[Any]

TREES, DEPTH = 4, 4
ACTIVE = TREES * (DEPTH + 1)
"""Number of neurons of either network that a row uses: 20."""

KINDS: dict[str, dict[str, Any]] = {
    "FastFeedForward": {"layer": "fast", "trees": TREES, "depth": DEPTH},
    "DenseFeedForward": {"layer": "dense", "width": ACTIVE},
}
"""The settings in which the networks differ."""

RECIPE: dict[str, Any] = {
    "optimizer": "adamw",
    "lr": 0.03,
    "schedule": "cosine",
    "weight_decay": 0.3,
    "max_norm": 1.0,
    "batch_size": 32,
    "standardize": "table",
    "validation": 0.0,
}

SEEDS = 1000
"""Distance of the runs' first seeds for two consecutive seeds of the command."""

INK = " .:-=+*#%@"
"""Characters from paper to ink."""


class Digits(NamedTuple):
    """The digits, split: 1,438 images to train on, 359 to test with."""

    training: Table
    test: Table

    def __str__(self) -> str:
        return (
            f"Handwritten digits: {len(self.training.x):,} images to train on, "
            f"{len(self.test.x)} to test with"
        )


class Trained(NamedTuple):
    """Networks of one class, and their test accuracies."""

    networks: list[Predictor]
    accuracies: list[float]


def split_digits() -> Digits:
    """Shuffle the digits, always in the same order, and hold out a fifth to test with."""
    images, labels = load_digits()
    order = np.random.default_rng(0).permutation(len(images))
    test, training = (
        Table(images[rows], labels[rows], classes=tuple(range(10)))
        for rows in np.split(order, [len(order) // 5])
    )
    return Digits(training, test)


def compile_kernels(digits: Digits) -> None:
    """Call all kernels of this part, so that no figure includes the time to compile them."""
    for kind in KINDS:
        network = train(kind, digits.training, epochs=1, seed=0)
        for rows in (digits.test.x[:1], digits.test.x):  # on one thread, and on all
            network.layer(rows)


def compare_networks(
    digits: Digits, runs: int, epochs: int, min_time: float, seed: int
) -> Predictor:
    """Train, test and time both networks; return the first FastFeedForward.

    Parameters
    ----------
    digits : Digits
        The images to train on and to test with.
    runs : int
        Number of training runs of each network.
    epochs : int
        Number of passes over the training images.
    min_time : float
        Least seconds of a measurement.
    seed : int
        Seed of initial values and batches.
    """
    found = {kind: _train_all(kind, digits, runs, epochs, seed) for kind in KINDS}
    layers = {kind: trained.networks[0].layer for kind, trained in found.items()}
    x = digits.test.x
    many = time_layers(layers, [x], min_time)
    one = time_layers(layers, list(x[:, np.newaxis]), min_time)
    head = ("", "test accuracy", "neurons", f"µs/row, {len(x)} rows", "1 row")
    rows = [
        (
            kind,
            _format_accuracies(trained.accuracies),
            f"{layers[kind].config.active_neurons} of {layers[kind].config.neurons}",
            format_number(many[index].microseconds),
            format_number(one[index].microseconds),
        )
        for index, (kind, trained) in enumerate(found.items())
    ]
    print(f"\n{format_table(head, rows)}")
    print(
        f"\nThis table is easy for both. With {ACTIVE} neurons per row, a call costs more\n"
        "than its arithmetic. Part 3 times a layer of a size where the arithmetic counts."
    )
    print_doubts(
        [
            f"batches of {count}: {reason}"
            for count, timings in ((len(x), many), (1, one))
            for timing in timings
            for reason in doubts(timing)
        ]
    )
    return found["FastFeedForward"].networks[0]


def train(kind: str, training: Table, *, epochs: int, seed: int) -> Predictor:
    """Train a network.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    training : Table
        The images to train on.
    epochs : int
        Number of passes over them.
    seed : int
        Seed of initial values and batches.
    """
    settings = FitSettings(**RECIPE, **KINDS[kind], epochs=epochs, seed=seed)
    return fit(training, settings, progress=False).predictor


def _train_all(kind: str, digits: Digits, runs: int, epochs: int, seed: int) -> Trained:
    """Train several networks of one class, and report it in a line."""
    start = time.perf_counter()
    with progress_bar(range(runs), kind, unit="run") as numbers:
        networks = [
            train(kind, digits.training, epochs=epochs, seed=SEEDS * seed + number)
            for number in numbers
        ]
    seconds = time.perf_counter() - start
    loss = np.mean([evaluate_table(network, digits.training)["loss"] for network in networks])
    count = "1 training run" if runs == 1 else f"{runs} training runs"
    print(f"{kind}: {count} of {epochs} epochs in {seconds:.1f} s, training loss {loss:.4f}")
    accuracies = [evaluate_table(network, digits.test)["accuracy"] for network in networks]
    return Trained(networks, accuracies)


def _format_accuracies(accuracies: list[float]) -> str:
    """Return the mean, and the range if there are several."""
    mean = f"{np.mean(accuracies):.1%}"
    if len(accuracies) == 1:
        return mean
    return f"{mean} ({min(accuracies):.1%} to {max(accuracies):.1%})"


# --- Examples -----------------------------------------------------------------------------------


def draw_examples(test: Table, network: Callable[[Array], Array]) -> str:
    """Draw two test images that a network classifies correctly and, if any, one it does not.

    Parameters
    ----------
    test : Table
        The images, and the digits on them.
    network : callable
        Maps images to scores of the ten digits.
    """
    labels = np.asarray(test.y)
    predicted = network(test.x).argmax(axis=1)
    right, wrong = np.flatnonzero(predicted == labels), np.flatnonzero(predicted != labels)
    chosen = [*right[:2], *(wrong[:1] if len(wrong) else right[2:3])]
    drawings = [_draw(test.x[index]) for index in chosen]
    captions = [f"read as {predicted[index]}, is {labels[index]}" for index in chosen]
    lines = ["     ".join(line) for line in zip(*drawings, strict=True)]
    return "\n".join([*lines, "     ".join(caption.ljust(16) for caption in captions).rstrip()])


def _draw(image: Array) -> list[str]:
    """Return an image as 8 lines of 16 characters."""
    levels = np.rint(image.reshape(8, 8) * (len(INK) - 1)).astype(int)
    return ["".join(2 * INK[level] for level in line) for line in levels]
