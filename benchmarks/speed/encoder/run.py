"""The sizes that are measured, the session, and tokens."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.speed.session import Session
from fffcpu.benchmarking.timing import Contender, Timing, alternate
from fffcpu.models import BertConfig, FastBertConfig
from fffcpu.system.terminal import print_status

Array = np.ndarray

OURS, BARE, DENSE = "fffcpu", "fffcpu without feedforwards", "fffcpu dense"
INT8 = "fffcpu int8"
BATCHES = 3
"""Batches of tokens that contenders take in turn."""
MASKED = 0.25
"""Share of the positions that are masked."""


class Sizes(NamedTuple):
    """What is measured: the sizes of the project's goals, or tiny ones for a trial run."""

    encoder: FastBertConfig
    dense_neurons: int
    batch: int
    sequences: int
    """Number of sequences of mixed lengths."""
    trained: FastBertConfig
    trained_batch: int
    bert: BertConfig
    """The BERT that is compared in float32 and int8: that of all-MiniLM-L6-v2."""
    shapes: tuple[tuple[int, int], ...]
    """Its batches: sequences, and tokens of each."""


FULL = Sizes(
    FastBertConfig(32768, 768, 16, 12, feedforward_size=1, depth=11),
    dense_neurons=3072,
    batch=8,
    sequences=128,
    trained=FastBertConfig(8192, 256, 4, 4, feedforward_size=4, depth=5),
    trained_batch=64,
    bert=BertConfig(30522, 384, 6, 12, feedforward_size=1536),
    shapes=((1, 16), (1, 128), (32, 32), (8, 128)),
)
QUICK = Sizes(
    FastBertConfig(50, 16, 2, 2, feedforward_size=1, depth=3, positions=12),
    dense_neurons=20,
    batch=4,
    sequences=9,
    trained=FastBertConfig(50, 16, 2, 2, feedforward_size=2, depth=2, positions=12),
    trained_batch=4,
    bert=BertConfig(50, 16, 2, 2, feedforward_size=20, positions=12),
    shapes=((1, 4), (4, 12)),
)


class Run(Session):
    """The session of this benchmark."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.sizes = QUICK if options.quick else FULL
        self.races: list[tuple[str, list[Timing]]] = []
        self.counts: dict[str, float] = {}
        """Counts and measures of predictions alone, by their description."""

    def race(self, title: str, contenders: Sequence[Contender]) -> dict[str, Timing]:
        """Time contenders in alternation, whose rows are tokens; return timings by name."""
        print_status(f"{title}: {', '.join(contender.name for contender in contenders)}")
        timings = alternate(contenders, self.options.rounds, self.options.seconds)
        self.races.append((title, timings))
        return {timing.name: timing for timing in timings}


def random_tokens(config: FastBertConfig, batch: int, seed: int) -> Array:
    """Return tokens (B, S) of full length, without padding."""
    return np.random.default_rng(seed).integers(1, config.vocabulary, (batch, config.positions))
