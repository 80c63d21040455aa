"""The encoder's inference: compared with other encoders, and in mixed lengths."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import fffcpu
from benchmarks.peers.encoders import OnnxEncoder, TorchEncoder
from benchmarks.speed.encoder.run import BARE, BATCHES, DENSE, OURS, Run, random_tokens
from fffcpu.benchmarking.timing import Contender, cycling, ratios
from fffcpu.benchmarking.verification import check_close
from fffcpu.errors import WrongOutputError
from fffcpu.models import FastBertEncoder

Array = np.ndarray


def inference(run: Run) -> None:
    """The encoder in batches and alone, with dense and masked ones, and in mixed lengths."""
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
    if run.has(OnnxEncoder):
        others[OnnxEncoder.name] = OnnxEncoder(dense, threads, config.positions)
        check_close(others[OnnxEncoder.name].run(batches[0]), dense(batches[0]), 1e-4)
    if run.has(TorchEncoder):
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
                run.times_faster(f"{name} / {OURS}, {where}", timings[name], timings[OURS], goal)
        goal = 0.85 if size == sizes.batch else None
        what = f"tokens/s of {OURS} / those without feedforwards, {where}"
        run.times_faster(what, timings[BARE], timings[OURS], goal)
    mixed_lengths(run, encoder, batches)


def mixed_lengths(run: Run, encoder: FastBertEncoder, full: list[Array]) -> None:
    """Time sequences of mixed lengths, in batches by length, and batches of full length."""
    config = encoder.config
    rng = np.random.default_rng(2)
    lengths = np.sort(rng.integers(1, config.positions + 1, run.sizes.sequences))
    batches = list(by_length(lengths, full[0].size))
    inputs = []
    for own in batches:
        ids = rng.integers(1, config.vocabulary, (len(own), own.max()))
        mask = (np.arange(ids.shape[1]) < own[:, np.newaxis]).astype(np.int64)
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
    what = "time per useful token, mixed lengths / full length"
    run.at_most(what, ratios(timings["mixed lengths"], timings["full length"]), "x", 1.15)


def by_length(lengths: Array, most: int) -> Iterator[Array]:
    """Cut ascending lengths into batches of at most ``most`` positions, padding included.

    Threads share a batch by sequences. So a batch has equally many per thread, if possible.
    """
    threads, stop = fffcpu.get_num_threads(), len(lengths)
    while stop:
        count = max(1, most // int(lengths[stop - 1]))
        if count > threads:
            count -= count % threads
        yield lengths[max(0, stop - count) : stop]
        stop = max(0, stop - count)


class BareEncoder(FastBertEncoder):
    """An encoder whose layers leave out their feedforwards."""

    def _hidden(self, input_ids: Array, attention_mask: Array | None) -> Array:
        h = self.norm(self.embedding(input_ids))
        for layer in self.layers:
            h += layer.attention(layer.norm1(h), attention_mask)
        return self.final_norm(h)


def leaves_reached(encoder: FastBertEncoder, ids: Array) -> str:
    """Return a note of how the rows of a batch spread over the trees."""
    _, cache = encoder.forward(ids)
    reached = [len(np.unique(layer.feedforward.nodes[:, 0, -1])) for layer in cache.layers]
    return (
        f"the {ids.size:,} rows of a batch reach {min(reached):,} to {max(reached):,} of "
        f"{1 << encoder.config.depth:,} leaves of a layer's first tree"
    )


def check_sequences(run: Run, y: Array, expected: Array) -> None:
    """Compare hidden states. Most sequences must agree, and not all of them.

    A logit near zero may give a row another route, which changes the rest of its sequence.
    """
    errors = np.abs(y - expected).max(axis=(1, 2)) / np.abs(expected).max()
    agree = errors <= TorchEncoder.tolerance  # not true of NaN
    run.note(
        f"{TorchEncoder.name}: {agree.sum()} of {len(agree)} sequences agree with ours within "
        f"{TorchEncoder.tolerance:g} of the largest hidden state"
    )
    if agree.mean() <= 0.5:
        raise WrongOutputError(
            f"hidden states of most sequences must agree, got errors of up to {errors.max():.3g}"
        )
