"""FastBERT's speed: inference and training beside other runtimes, and predictions alone.

Run ``python -m benchmarks.speed.encoder``; ``--help`` tells the rest, ``--only`` runs parts.
Nothing else heavy may run at the time. What is timed is checked first, then timed in alternation;
figures are medians of the ratios within rounds. Models are random unless said.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

import fffcpu
from benchmarks.peers import layers as peers
from benchmarks.peers.encoders import OnnxEncoder, TorchEncoder, TorchTraining
from benchmarks.speed.layers import Figure, format_figure, run_parts, tell
from fffcpu.benchmarking.machine import describe_machine, package_version
from fffcpu.benchmarking.timing import Contender, Timing, alternate, cycling, ratio, ratios
from fffcpu.benchmarking.verification import check_close
from fffcpu.cli.support.table import format_number
from fffcpu.errors import WrongOutputError
from fffcpu.models import FastBertConfig, FastBertEncoder, FastBertForMaskedLM

# First, as in a program whose imports are in order: what it says about BLAS holds from here on.
from fffcpu.system import blas as blas_threads
from fffcpu.system.memory import keep_freed_memory
from fffcpu.training import AdamW, clip_gradients

Array = np.ndarray

OURS, BARE, DENSE = "fffcpu", "fffcpu without feedforwards", "fffcpu dense"
BATCHES = 3
"""Batches of tokens that contenders go through in turn."""
GRADIENT_TOLERANCE = 1e-3
"""Of gradients in float32, which go back through all layers and are sums over all positions."""
MAX_NORM = 0.5
RECIPE = {
    "lr": 1e-3,
    "betas": (0.9, 0.98),
    "eps": 1e-12,
    "weight_decay": 0.01,
    "no_decay": ("bias", "norm"),
}
"""The crammed recipe at its peak rate."""
MASKED = 0.25
"""Share of the positions that training guesses."""
IGNORED = -100


class Sizes(NamedTuple):
    """What is measured: as the project's goals ask, or tiny, to see that the script runs."""

    encoder: FastBertConfig
    dense_neurons: int
    batch: int
    sequences: int
    """Sequences of mixed lengths."""
    trained: FastBertConfig
    trained_batch: int


FULL = Sizes(
    FastBertConfig(32768, 768, 16, 12, feedforward_size=1, depth=11),
    dense_neurons=3072,
    batch=8,
    sequences=128,
    trained=FastBertConfig(8192, 256, 4, 4, feedforward_size=4, depth=5),
    trained_batch=64,
)
QUICK = Sizes(
    FastBertConfig(50, 16, 2, 2, feedforward_size=1, depth=3, positions=12),
    dense_neurons=20,
    batch=4,
    sequences=9,
    trained=FastBertConfig(50, 16, 2, 2, feedforward_size=2, depth=2, positions=12),
    trained_batch=4,
)


class Run:
    """Options, and what was found so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.sizes = QUICK if options.quick else FULL
        self.figures: list[Figure] = []
        self.races: list[tuple[str, list[Timing]]] = []
        self.counts: dict[str, float] = {}
        """What became of predictions alone, by what it is."""
        self.notes: list[str] = []

    def race(self, title: str, contenders: Sequence[Contender]) -> dict[str, Timing]:
        """Time contenders in alternation, their rows being tokens; returns them by name."""
        tell(f"{title}: {', '.join(contender.name for contender in contenders)}")
        timings = alternate(contenders, self.options.rounds, self.options.seconds)
        self.races.append((title, timings))
        return {timing.name: timing for timing in timings}

    def compare(self, what: str, slow: Timing, fast: Timing, goal: float | None) -> None:
        """Add the figure that one contender is so many times as fast as another."""
        rounds = ratios(slow, fast)
        self.figures.append(Figure(what, ratio(slow, fast), min(rounds), max(rounds), "x", goal))

    def present(self, peer: Any) -> bool:
        """Whether a peer can run here; notes why not."""
        missing = peers.absent(peer)
        if missing:
            self.note(missing)
        return missing is None

    def note(self, text: str) -> None:
        """Add a line under the tables."""
        tell(text)
        self.notes.append(text)


# --- Inference ----------------------------------------------------------------------------------


def inference(run: Run) -> None:
    """The encoder in batches and alone, beside dense and masked ones, and in mixed lengths."""
    sizes, config = run.sizes, run.sizes.encoder
    encoder = FastBertEncoder(config, rng=0)
    dense = FastBertEncoder(
        dataclasses.replace(config, feedforward="ff", feedforward_size=sizes.dense_neurons),
        rng=0,
    )
    batches = [random_tokens(config, sizes.batch, seed) for seed in range(BATCHES)]
    run.note(f"encoder: {encoder!r}; {leaves_reached(encoder, batches[0])}")
    threads = run.options.threads
    others: dict[str, Any] = {}
    if run.present(OnnxEncoder):
        others[OnnxEncoder.name] = OnnxEncoder(dense, threads, config.positions)
        check_close(others[OnnxEncoder.name].run(batches[0]), dense(batches[0]), 1e-4)
    if run.present(TorchEncoder):
        others[TorchEncoder.name] = TorchEncoder(encoder, threads)
        check_sequences(run, others[TorchEncoder.name].run(batches[0]), encoder(batches[0]))
    calls: dict[str, Callable[[Array], Array]] = {
        OURS: encoder,
        BARE: BareEncoder._sharing(config, encoder.params),
        DENSE: dense,
        **{name: other.run for name, other in others.items()},
    }
    for size, goals in (
        (sizes.batch, {OnnxEncoder.name: 2.2, TorchEncoder.name: 4.5, DENSE: None}),
        (1, {OnnxEncoder.name: 2.0, TorchEncoder.name: None, DENSE: None}),
    ):
        inputs = [ids[:size] for ids in batches]
        tokens = inputs[0].size
        where = f"{size} x {config.positions}"
        contenders = [
            Contender(name, cycling(call, inputs), tokens) for name, call in calls.items()
        ]
        timings = run.race(where, contenders)
        for name, goal in goals.items():
            if name in timings:
                run.compare(f"{name} / {OURS}, {where}", timings[name], timings[OURS], goal)
        goal = 0.85 if size == sizes.batch else None
        what = f"tokens/s of {OURS} / those without feedforwards, {where}"
        run.compare(what, timings[BARE], timings[OURS], goal)
    mixed_lengths(run, encoder, batches)


def mixed_lengths(run: Run, encoder: FastBertEncoder, full: list[Array]) -> None:
    """Time sequences of mixed lengths, in batches by length, beside batches of full length."""
    config = encoder.config
    rng = np.random.default_rng(2)
    lengths = np.sort(rng.integers(1, config.positions + 1, run.sizes.sequences))
    batches = list(by_length(lengths, full[0].size))
    inputs = []
    for part in batches:
        ids = rng.integers(1, config.vocabulary, (len(part), part.max()))
        mask = (np.arange(ids.shape[1]) < part[:, np.newaxis]).astype(np.int64)
        inputs.append((np.where(mask, ids, config.padding_id), mask))
    useful, computed = int(lengths.sum()), sum(ids.size for ids, _ in inputs)
    run.note(
        f"mixed lengths: {len(lengths)} sequences of 1 to {config.positions} tokens in "
        f"{len(inputs)} batches by length, {useful:,} tokens and "
        f"{computed / useful - 1:.1%} of padding"
    )

    def all_batches() -> None:
        for ids, mask in inputs:
            encoder(ids, mask)

    contenders = [
        Contender("full length", cycling(encoder, full), full[0].size),
        Contender("mixed lengths", all_batches, useful),
    ]
    timings = run.race("mixed lengths, useful tokens", contenders)
    what = "time of a useful token, mixed lengths / full length"
    found = ratios(timings["mixed lengths"], timings["full length"])
    value = statistics.median(found)
    run.figures.append(Figure(what, value, min(found), max(found), "x", 1.15, at_least=False))


def by_length(lengths: Array, most: int) -> Iterator[Array]:
    """Cut ascending lengths into batches that padding fills up to at most so many positions.

    Threads share a batch by sequences, so a batch has as many for each, if it can.
    """
    threads, stop = fffcpu.get_num_threads(), len(lengths)
    while stop:
        count = max(1, most // int(lengths[stop - 1]))
        if count > threads:
            count -= count % threads
        yield lengths[max(0, stop - count) : stop]
        stop = max(0, stop - count)


class BareEncoder(FastBertEncoder):
    """An encoder as if its layers were attention alone."""

    def _hidden(self, input_ids: Array, attention_mask: Array | None) -> Array:
        h = self.norm(self.embedding(input_ids))
        for layer in self.layers:
            h += layer.attention(layer.norm1(h), attention_mask)
        return self.final_norm(h)


def random_tokens(config: FastBertConfig, batch: int, seed: int) -> Array:
    """Tokens (B, S) of full length, none of them padding."""
    return np.random.default_rng(seed).integers(1, config.vocabulary, (batch, config.positions))


def leaves_reached(encoder: FastBertEncoder, ids: Array) -> str:
    """Say how the rows of a batch spread over the trees."""
    _, cache = encoder.forward(ids)
    reached = [len(np.unique(layer.feedforward.nodes[:, 0, -1])) for layer in cache.layers]
    return (
        f"the {ids.size:,} rows of a batch reach {min(reached):,} to {max(reached):,} of "
        f"{1 << encoder.config.depth:,} leaves of a layer's first tree"
    )


def check_sequences(run: Run, y: Array, expected: Array) -> None:
    """Compare hidden states; a logit near zero may send one row of a sequence elsewhere.

    That changes the sequence from there on, so most sequences have to agree, and not all.
    """
    errors = np.abs(y - expected).max(axis=(1, 2)) / np.abs(expected).max()
    agree = errors <= TorchEncoder.tolerance  # not true of NaN
    run.note(
        f"{TorchEncoder.name}: {agree.sum()} of {len(agree)} sequences agree with ours within "
        f"{TorchEncoder.tolerance:g} of the largest hidden state"
    )
    if agree.mean() <= 0.5:
        raise WrongOutputError(f"hidden states differ by up to {errors.max():.3g}")


# --- Training -----------------------------------------------------------------------------------


def training(run: Run) -> None:
    """A training step by the crammed recipe, beside the same model with masked FFF in PyTorch."""
    config, batch = run.sizes.trained, run.sizes.trained_batch
    model = FastBertForMaskedLM(config, rng=0)
    batches = [masked_batch(config, batch, seed) for seed in range(BATCHES)]
    run.note(f"training: {model!r}, {batch} x {config.positions}, {MASKED:.0%} masked")
    if keep_freed_memory():
        run.note("training: freed memory is kept, as by fffcpu pretrain, for all contenders")
    contenders = [ours_training(model.copy(), batches)]
    other = None
    if run.present(TorchTraining):
        other = TorchTraining(model, run.options.threads, RECIPE, MAX_NORM)
        check_gradients(model, other, *batches[0])
        contenders.append(
            Contender(
                other.name, cycling(lambda pair: other.step(*pair), batches), batches[0][0].size
            )
        )
    timings = run.race(f"training step, {batch} x {config.positions}", contenders)
    if other is not None:
        run.compare(f"{other.name} / {OURS}", timings[other.name], timings[OURS], 1.5)


def ours_training(model: FastBertForMaskedLM, batches: list[tuple[Array, Array]]) -> Contender:
    """Our training step, as `fffcpu.recipes.pretraining.pretrain` takes it."""
    optimizer = AdamW(model.params, **RECIPE)
    tokens = batches[0][0].size
    sparse = model.config.visits_few(tokens)

    def step(pair: tuple[Array, Array]) -> None:
        ids, labels = pair
        _, cache = model.forward(ids, labels=labels)
        grads = model.backward(cache, row_sparse=sparse)
        clip_gradients(grads, MAX_NORM)
        optimizer.step(grads)

    return Contender(OURS, cycling(step, batches), tokens)


def masked_batch(config: FastBertConfig, batch: int, seed: int) -> tuple[Array, Array]:
    """Tokens and labels: the same share of every sequence is masked, with token 4."""
    rng = np.random.default_rng(seed)
    ids = random_tokens(config, batch, seed)
    count = max(1, round(MASKED * config.positions))
    places = rng.permuted(np.tile(np.arange(config.positions), (batch, 1)), axis=1)[:, :count]
    labels = np.full_like(ids, IGNORED)
    np.put_along_axis(labels, places, np.take_along_axis(ids, places, axis=1), axis=1)
    np.put_along_axis(ids, places, 4, axis=1)
    return ids, labels


def check_gradients(
    model: FastBertForMaskedLM, other: TorchTraining, ids: Array, labels: Array
) -> None:
    """Compare the loss and all gradients of a step."""
    loss, cache = model.forward(ids, labels=labels)
    other_loss, others = other.gradients(ids, labels)
    check_close(np.array([other_loss]), np.array([loss]), 1e-5)
    for name, grad in model.backward(cache).items():
        check_close(others[name].numpy(), grad, GRADIENT_TOLERANCE)


# --- Predictions alone --------------------------------------------------------------------------


def alone(run: Run) -> None:
    """Predictions at masked positions, sequence by sequence and in padded batches."""
    options = run.options
    if options.model:
        model = FastBertForMaskedLM.from_pretrained(options.model)
    else:
        model = FastBertForMaskedLM(run.sizes.trained, rng=0)
    config, rng = model.config, np.random.default_rng(3)
    masked = changed = sequences = 0
    moved, largest = [], 0.0
    progress = tqdm(total=options.count, desc="sequences", file=sys.stderr, disable=options.json)
    with progress:
        for start in range(0, options.count, options.batch):
            size = min(options.batch, options.count - start)
            ids, mask, places = masked_sequences(config, size, options.mask_id, rng)
            together = model.logits_at(ids, places, mask)
            by_itself = np.concatenate(
                [
                    model.logits_at(ids[[k], :length], places[[k], :length])
                    for k, length in enumerate(mask.sum(axis=1))
                ]
            )
            other = together.argmax(axis=1) != by_itself.argmax(axis=1)
            masked += len(other)
            changed += int(other.sum())
            sequences += len(np.unique(np.nonzero(places)[0][other]))
            moved.append(np.abs(together - by_itself).max(axis=1))
            largest = max(largest, float(np.abs(by_itself).max()))
            progress.update(size)
    movement = np.concatenate(moved)
    run.note(
        f"alone: {model!r}; {options.count:,} sequences of 1 to {config.positions} tokens, in "
        f"padded batches of {options.batch}"
    )
    run.counts = {
        "masked positions": masked,
        "predictions that change": changed,
        "sequences with such a prediction": sequences,
        "movement of a position's logits, median": float(np.median(movement)),
        "movement of a position's logits, largest": float(movement.max()),
        "largest logit": largest,
    }


def masked_sequences(
    config: FastBertConfig, count: int, mask_id: int, rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    """Random sequences of random lengths: tokens, attention mask, and which are masked."""
    lengths = rng.integers(1, config.positions + 1, count)[:, np.newaxis]
    places = np.arange(lengths.max())
    mask = places < lengths
    masked = mask & (rng.random(mask.shape) < MASKED)
    masked[:, 0] |= ~masked.any(axis=1)  # at least one of each
    ids = np.where(mask, rng.integers(1, config.vocabulary, mask.shape), config.padding_id)
    return np.where(masked, mask_id, ids), mask.astype(np.int64), masked


PARTS: dict[str, Callable[[Run], None]] = {
    "inference": inference,
    "training": training,
    "alone": alone,
}


# --- The command --------------------------------------------------------------------------------


def main() -> None:
    options = parse()
    run = Run(options)
    run_parts(run, PARTS)
    print(json.dumps(report(run), indent=2) if options.json else format_report(run))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="parts:\n" + "\n".join(f"  {name:9} {part.__doc__}" for name, part in PARTS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help="run these parts")
    most = fffcpu.get_num_threads()
    parser.add_argument(
        "--threads", type=int, default=min(2, most), help=f"of every contender ({min(2, most)})"
    )
    parser.add_argument("--rounds", type=int, default=9, help="of each alternation (9)")
    parser.add_argument("--seconds", type=float, default=0.2, help="of each measurement (0.2)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="tiny models, to see that it runs")
    group = parser.add_argument_group("alone")
    group.add_argument("--model", metavar="FOLDER", help="a masked language model (a random one)")
    group.add_argument("--count", type=int, default=10_000, help="sequences (10000)")
    group.add_argument("--batch", type=int, default=32, help="sequences of a padded batch (32)")
    group.add_argument("--mask-id", type=int, default=4, help="token that stands for a mask (4)")
    return parser.parse_args()


def header(run: Run) -> dict[str, Any]:
    options = run.options
    return {
        "command": f"python {shlex.join(sys.argv)}",
        "fffcpu": fffcpu.__version__,
        **describe_machine(),
        **{name: package_version(name) for name in ("onnxruntime", "torch")},
        blas_threads.VARIABLE: spin(),
        "threads": options.threads,
        "rounds": options.rounds,
        "seconds": options.seconds,
    }


def spin() -> str:
    """What NumPy's BLAS was loaded with."""
    if blas_threads.APPLIED:
        return f"{blas_threads.SPIN}, by fffcpu"
    return os.environ.get(blas_threads.VARIABLE, "not set")


def format_report(run: Run) -> str:
    facts = header(run)
    lines = [
        f"`{facts.pop('command')}`",
        "",
        ", ".join(f"{name} {value}" for name, value in facts.items()) + ".",
        "",
        "| figure | median | range | goal | |",
        "|---|---|---|---|---|",
        *(format_figure(figure) for figure in run.figures),
    ]
    if run.counts:
        lines += ["", "| predictions alone against batches | |", "|---|---|"]
        lines += [f"| {what} | {format_count(value)} |" for what, value in run.counts.items()]
    for title, timings in run.races:
        lines += [
            "",
            f"{title}.",
            "",
            "| contender | tokens/s | ms a call | spread |",
            "|---|---|---|---|",
            *(format_timing(timing) for timing in timings),
        ]
    return "\n".join([*lines, "", *(f"- {note}" for note in run.notes)])


def format_count(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def format_timing(timing: Timing) -> str:
    milliseconds = 1000 * statistics.median(timing.seconds)
    cells = (
        timing.name,
        f"{timing.rows_per_second:,.0f}",
        format_number(milliseconds),
        f"{100 * timing.spread:.0f} %",
    )
    return f"| {' | '.join(cells)} |"


def report(run: Run) -> dict[str, Any]:
    """Return all results as plain JSON values."""
    return {
        **header(run),
        "figures": [{**figure._asdict(), "verdict": figure.verdict} for figure in run.figures],
        "races": [
            {
                "title": title,
                "timings": [
                    {
                        "name": timing.name,
                        "tokens": timing.rows,
                        "tokens_a_second": timing.rows_per_second,
                        "spread": timing.spread,
                        "seconds_a_call": list(timing.seconds),
                    }
                    for timing in timings
                ],
            }
            for title, timings in run.races
        ],
        "alone": run.counts,
        "notes": run.notes,
    }


if __name__ == "__main__":
    main()
