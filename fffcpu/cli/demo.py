"""``fffcpu demo``: masked sentences; train on real digits, save, reload, run; BERT's size.

The recipe for both networks: AdamW with weight decay 0.1 and a peak learning rate of 0.02 that
rises over the first tenth and falls along half a cosine, gradients clipped to norm 1, 30 epochs in
batches of 32, on images less the mean training image. It was chosen by five-fold cross-validation
inside the training rows, where with it either network does as well as with any other that was
tried, up to the noise of half a percent; the test rows had no say.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

import fffcpu
from fffcpu import DenseFeedForward, FastFeedForward, kernels
from fffcpu.benchmarking.timing import Contender, Timing, alternate, cycling, ratio
from fffcpu.benchmarking.verification import check_dense, check_paths, distinct_batches
from fffcpu.cli.support.table import (
    Commands,
    add_command,
    check_output,
    format_number,
    format_table,
)
from fffcpu.config import check_integer
from fffcpu.data import load_digits
from fffcpu.errors import WrongOutputError
from fffcpu.inference.pipelines import default_model_folder
from fffcpu.inference.predictor import softmax
from fffcpu.models import FastBertForMaskedLM
from fffcpu.parameters import Parameters
from fffcpu.text.tokenizer import TOKENIZER_FILE
from fffcpu.training import AdamW, clip_gradients, cosine, softmax_cross_entropy

__all__ = ["add", "run"]

Array = NDArray[Any]

PIXELS, CLASSES = 64, 10
TREES, DEPTH = 4, 4
ACTIVE = TREES * (DEPTH + 1)
"""Neurons of the digit networks that a row uses: 20."""

BATCH = 32
PEAK_RATE = 0.02
WEIGHT_DECAY = 0.1
MAX_NORM = 1.0

BERT_WIDTH, BERT_DEPTH = 768, 11
MASK = "[MASK]"
SENTENCES_FILE = "sentences.json"
GUESSES = 3
"""Guesses that are shown of a masked sentence."""

INK = " .:-=+*#%@"
"""From paper to ink."""

DESCRIPTION = """\
Show all of fffcpu on data it carries:
  1. Fill masked sentences with a small FastBERT, pretrained on WordNet's glosses.
  2. Train a fast feedforward network on real handwritten digits (8x8 pixels), and a dense network
     of as many active neurons by the same recipe; test both; save the first, reload it, run it.
  3. Time the layer at BERT's size (768 -> 768, depth 11: 12 of 4,095 neurons a row) beside the
     dense layer of 4,095 neurons in NumPy, outputs checked.

examples:
  fffcpu demo
  fffcpu demo --seed 1 --out digits.safetensors
  fffcpu demo --quick

how to read the output:
  test accuracy  mean over the runs (and lowest to highest), on rows that training never saw.
  neurons        used for a row, of those the network holds.
  us a row       microseconds, median of 7 rounds in alternation. Rows are distinct.
"""


class Plan(NamedTuple):
    """How much work the demo does."""

    runs: int
    """Trainings of each network, from different initial values."""
    epochs: int
    bert_rows: tuple[int, ...]
    """Rows a call at BERT size."""
    min_time: float
    """Seconds of a measurement, at least."""


FULL = Plan(runs=3, epochs=30, bert_rows=(1, 256, 4096), min_time=0.05)
QUICK = Plan(runs=1, epochs=5, bert_rows=(1, 64), min_time=0.01)


class Digits(NamedTuple):
    """The digits, split: 1438 rows to train on, 359 to test with."""

    images: Array
    labels: Array
    test_images: Array
    test_labels: Array


class Network(Protocol):
    """What training needs of a layer."""

    @property
    def params(self) -> Parameters: ...

    def __call__(self, x: Any, out: Array | None = None) -> Array: ...

    def forward(self, x: Any) -> tuple[Array, Any]: ...

    def backward(self, dy: Any, cache: Any) -> tuple[Array, dict[str, Array]]: ...


class Trained(NamedTuple):
    """Networks of one kind, and their test accuracies."""

    networks: list[Any]
    accuracies: list[float]


def add(commands: Commands) -> argparse.ArgumentParser:
    """Register the command."""
    parser = add_command(commands, "demo", "train on real digits, save, reload, time", DESCRIPTION)
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of initial values and batches (0)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one short training of each and small batches"
    )
    parser.add_argument(
        "--out", metavar="FILE", help="where to save the network (a new temporary folder)"
    )
    return parser


def run(options: argparse.Namespace) -> None:
    """Run the demo."""
    seed = check_integer("seed", options.seed, 0)
    plan = QUICK if options.quick else FULL
    check_output(options.out)
    kernels.choose()  # complains of a wrong FFFCPU_BACKEND before anything is printed
    digits = split_digits()
    print(f"fffcpu {fffcpu.__version__}, {_threads()}\n")
    _compile(digits)
    print(f"\n{fill_sentences()}")
    print(
        f"2. Handwritten digits: {len(digits.images)} images to train on, "
        f"{len(digits.test_images)} to test with"
    )
    network = _compare_on_digits(digits, plan, seed)
    path = _save_and_reload(network, options.out, digits)
    print(f"\n{draw_examples(digits, network)}")
    print(f"\n3. At BERT's size: {BERT_WIDTH} -> {BERT_WIDTH}, depth {BERT_DEPTH}")
    _compare_at_bert_size(plan, seed)
    print(_how_to_go_on(path))


def _threads() -> str:
    """Return how many threads kernels may use, in words."""
    number = fffcpu.get_num_threads()
    return f"{number} thread" if number == 1 else f"{number} threads"


# --- Masked sentences ---------------------------------------------------------------------------


def fill_sentences() -> str:
    """Return sentences with what the model that the package carries puts in for their masks.

    Their tokens are stored beside it, so that this needs no tokenizer.
    """
    folder = default_model_folder()
    model = FastBertForMaskedLM.from_pretrained(folder)
    sentences = json.loads((folder / SENTENCES_FILE).read_text(encoding="utf-8"))
    tokenizer = json.loads((folder / TOKENIZER_FILE).read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    special = [token["id"] for token in tokenizer["added_tokens"]]
    names = {number: name for name, number in vocabulary.items()}
    feedforward: Any = model.config.parts()["encoder.layers.0.feedforward"]
    used, held = feedforward.active_neurons, feedforward.neurons
    lines = [
        f"1. Masked sentences: a FastBERT that has read WordNet's glosses, {used} of {held} neurons"
    ]
    for sentence in sentences:
        ids = np.array([sentence["ids"]])
        chances = softmax(model.logits_at(ids, ids == vocabulary[MASK])[0])
        chances[special] = -1
        best = chances.argsort()[::-1][:GUESSES]
        guesses = ", ".join(f"{names[int(token)]} {chances[token]:.0%}" for token in best)
        lines.append(f"  {sentence['text']:<52} {guesses}")
    return "\n".join([*lines, ""])


# --- Digits -------------------------------------------------------------------------------------


def split_digits() -> Digits:
    """Shuffle the digits, always alike, and keep a fifth to test with."""
    images, labels = load_digits()
    order = np.random.default_rng(0).permutation(len(images))
    test, train = np.split(order, [len(order) // 5])
    return Digits(images[train], labels[train], images[test], labels[test])


def _compile(digits: Digits) -> None:
    """Call all that will be called, so that no figure holds the time of compiling it."""
    print("compiling kernels (once; later runs find them on disk) ...", end=" ", flush=True)
    start = time.perf_counter()
    fill_sentences()
    layer = FastFeedForward(PIXELS, CLASSES, DEPTH, TREES, rng=0)
    y, cache = layer.forward(digits.images[:BATCH])
    layer.backward(y, cache)
    for rows in (digits.images[:1], digits.images):  # on one thread, on all
        layer(rows)
        layer.route(rows)
    print(f"{time.perf_counter() - start:.1f} s")


def _compare_on_digits(digits: Digits, plan: Plan, seed: int) -> FastFeedForward:
    """Train, test and time both kinds of network; return the first fast one."""
    fast = _train_all("FastFeedForward", digits, plan, seed)
    dense = _train_all("DenseFeedForward", digits, plan, seed)
    networks = {"FastFeedForward": fast.networks[0], "DenseFeedForward": dense.networks[0]}
    many = _time(networks, [digits.test_images], plan.min_time)
    one = _time(networks, list(digits.test_images[:, np.newaxis]), plan.min_time)
    head = ("", "test accuracy", "neurons", f"us a row, {many[0].rows} a call", "1 a call")
    rows = [
        (
            name,
            _format_accuracies(trained.accuracies),
            f"{trained.networks[0].config.active_neurons} of {trained.networks[0].config.neurons}",
            format_number(many[index].microseconds),
            format_number(one[index].microseconds),
        )
        for index, (name, trained) in enumerate(
            (("FastFeedForward", fast), ("DenseFeedForward", dense))
        )
    ]
    print(f"\n{format_table(head, rows)}")
    print(
        f"\nWith {ACTIVE} neurons a row there is little arithmetic: the cost of a call decides.\n"
        "The tree pays where it holds many neurons, as in part 3."
    )
    network: FastFeedForward = fast.networks[0]
    return network


def _make(kind: str, rng: np.random.Generator) -> FastFeedForward | DenseFeedForward:
    """Return an untrained network of a kind; both use the same number of neurons for a row."""
    if kind == "FastFeedForward":
        return FastFeedForward(PIXELS, CLASSES, DEPTH, TREES, rng=rng)
    return DenseFeedForward(PIXELS, CLASSES, ACTIVE, rng=rng)


def _train_all(kind: str, digits: Digits, plan: Plan, seed: int) -> Trained:
    """Train networks of a kind with a progress bar, and say so in a line."""
    from tqdm import tqdm

    steps = plan.runs * plan.epochs * (len(digits.images) // BATCH)
    trained = Trained([], [])
    start = time.perf_counter()
    loss = 0.0
    with tqdm(total=steps, desc=kind, file=sys.stderr, disable=None, leave=False) as bar:
        for number in range(plan.runs):
            rng = np.random.default_rng((seed, number))
            network = _make(kind, rng)
            for loss, accuracy in train(network, digits, rng, plan.epochs):
                bar.update(len(digits.images) // BATCH)
                bar.set_postfix(run=number + 1, loss=f"{loss:.3f}", accuracy=f"{accuracy:.1%}")
            trained.networks.append(network)
            trained.accuracies.append(accuracy_of(network, digits.test_images, digits.test_labels))
    seconds = time.perf_counter() - start
    print(f"{kind}: {steps} steps in {seconds:.1f} s, loss at the end {loss:.4f}")
    return trained


def train(
    network: Network, digits: Digits, rng: np.random.Generator, epochs: int
) -> Iterator[tuple[float, float]]:
    """Train a network in place.

    Parameters
    ----------
    network : Network
        An untrained layer.
    digits : Digits
        Its test rows are not looked at.
    rng : numpy.random.Generator
        For the order of rows.
    epochs : int
        Passes through the training rows.

    Yields
    ------
    loss, accuracy : float
        After each epoch: of the last batch, and of all training rows.
    """
    mean = digits.images.mean(axis=0)
    images, labels = digits.images - mean, digits.labels
    batches = len(images) // BATCH
    optimizer = AdamW(network.params, PEAK_RATE, weight_decay=WEIGHT_DECAY)
    for epoch in range(epochs):
        order = rng.permutation(len(images))[: batches * BATCH].reshape(batches, BATCH)
        for number, rows in enumerate(order):
            logits, cache = network.forward(images[rows])
            loss, dlogits = softmax_cross_entropy(logits, labels[rows])
            _, grads = network.backward(dlogits, cache)
            clip_gradients(grads, MAX_NORM)
            spent = (epoch * batches + number) / (epochs * batches)
            optimizer.step(grads, lr=PEAK_RATE * cosine(spent))
        if epoch == epochs - 1:
            _take_in_mean(network, mean)
            images = digits.images
        yield loss, accuracy_of(network, images, labels)


def _take_in_mean(network: Network, mean: Array) -> None:
    """Turn a network of ``x - mean`` into one of ``x``: the mean goes into the biases."""
    network.params["bias_in"][...] -= network.params["weights_in"] @ mean


def accuracy_of(network: Network, images: Array, labels: Array) -> float:
    """Return the fraction of images whose digit the network tells."""
    return float((network(images).argmax(axis=1) == labels).mean())


def _time(networks: dict[str, Any], batches: list[Array], min_time: float) -> list[Timing]:
    """Time networks on batches in turn."""
    contenders = [
        Contender(name, cycling(network, batches), len(batches[0]))
        for name, network in networks.items()
    ]
    return alternate(contenders, min_time=min_time)


def _format_accuracies(accuracies: list[float]) -> str:
    """Return the mean, and the range if there are several."""
    mean = f"{np.mean(accuracies):.1%}"
    return (
        mean if len(accuracies) == 1 else f"{mean} ({min(accuracies):.1%} to {max(accuracies):.1%})"
    )


# --- The file -----------------------------------------------------------------------------------


def _save_and_reload(network: FastFeedForward, out: str | None, digits: Digits) -> Path:
    """Save, reload, and check that the reloaded network gives the same bits; return the path."""
    path = Path(out or Path(tempfile.mkdtemp(prefix="fffcpu-")) / "digits.safetensors")
    network.save(path)
    reloaded = fffcpu.load(path)
    if reloaded(digits.test_images).tobytes() != network(digits.test_images).tobytes():
        raise WrongOutputError(f"the network reloaded from '{path}' gives other outputs")
    accuracy = accuracy_of(reloaded, digits.test_images, digits.test_labels)
    print(f"\nsaved to {path} ({path.stat().st_size:,} bytes)")
    print(f"reloaded: the same outputs to the bit, test accuracy {accuracy:.1%}")
    return path


# --- Examples -----------------------------------------------------------------------------------


def draw_examples(digits: Digits, network: Network) -> str:
    """Draw two test images that the network reads right and, if there is one, one it does not."""
    says = network(digits.test_images).argmax(axis=1)
    right, wrong = (
        np.flatnonzero(test) for test in (says == digits.test_labels, says != digits.test_labels)
    )
    chosen = [*right[:2], *(wrong[:1] if len(wrong) else right[2:3])]
    drawings = [_draw(digits.test_images[index]) for index in chosen]
    captions = [f"says {says[index]}, is {digits.test_labels[index]}" for index in chosen]
    lines = ["     ".join(line) for line in zip(*drawings, strict=True)]
    return "\n".join([*lines, "     ".join(caption.ljust(16) for caption in captions).rstrip()])


def _draw(image: Array) -> list[str]:
    """Return 8 lines of 16 characters."""
    levels = np.rint(image.reshape(8, 8) * (len(INK) - 1)).astype(int)
    return ["".join(2 * INK[level] for level in line) for line in levels]


# --- BERT's size --------------------------------------------------------------------------------


def _compare_at_bert_size(plan: Plan, seed: int) -> None:
    """Check and time FastFeedForward beside the dense layer of as many neurons."""
    fast = FastFeedForward(BERT_WIDTH, BERT_WIDTH, BERT_DEPTH, rng=seed)
    dense = DenseFeedForward(BERT_WIDTH, BERT_WIDTH, fast.config.neurons, rng=seed)
    used, held = fast.config.active_neurons, fast.config.neurons
    leaves = _check(fast, dense, seed)
    print(
        f"{used} of {held:,} neurons a row, beside NumPy's dense layer of {held:,}.\n"
        f"Outputs checked, on random rows that reach {leaves:,} of the {2**BERT_DEPTH:,} leaves.\n"
    )
    rows = []
    for count in plan.bert_rows:
        batches = distinct_batches(count, BERT_WIDTH, rng=seed)
        timings = _time({"fast": fast, "dense": dense}, batches, plan.min_time)
        speedup = ratio(timings[1], timings[0])
        figures = (*(timing.microseconds for timing in timings), speedup)
        rows.append((f"{count:,}", *map(format_number, figures)))
    head = ("rows a call", "us a row, FastFeedForward", "us a row, dense", "times faster")
    print(format_table(head, rows))
    print(
        f"\nThe arithmetic allows {held / used:.0f} times ({held:,} / {used}). "
        f"FastFeedForward ran on {_threads()}, NumPy on those of its BLAS."
    )


def _check(fast: FastFeedForward, dense: DenseFeedForward, seed: int) -> int:
    """Check both layers' outputs; return how many leaves the rows reached."""
    x = np.concatenate(distinct_batches(1, BERT_WIDTH, rng=seed))
    check_dense(dense, x[:2], dense(x[:2]))
    return check_paths(fast, x, fast(x), fast.route(x))


def _how_to_go_on(path: Path) -> str:
    return f"""
4. How to go on
  fffcpu info {path}
  fffcpu bench --help       other sizes, threads and backends
  README.md                 the training loop in 15 lines, and when FFF helps and when it does not
  docs/tutorial.md          from the first layer to a saved model"""
