"""The sizes that are measured, and a run's layer, timings and peers."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

import fffcpu
from benchmarks.peers import layers as peers
from benchmarks.speed.session import Session
from benchmarks.speed.shapes import BERT_BASE, LeafShape, PathShape
from fffcpu.benchmarking.roofline import Roofline, roofline_contenders
from fffcpu.benchmarking.timing import Contender, Timing, alternate
from fffcpu.system.terminal import print_status

Array = np.ndarray


class Race(NamedTuple):
    """The timings of one alternation, and the roofline of its rounds."""

    title: str
    timings: list[Timing]
    roofline: Roofline


class Sizes(NamedTuple):
    """What is measured: the sizes of the project's goals, or tiny ones for a trial run."""

    shape: PathShape
    leaf: LeafShape
    batches: tuple[int, ...]
    batch: int
    depths: tuple[int, ...]
    low_bit_depths: tuple[int, ...]
    memory_rows: tuple[int, ...]
    pool_rows: tuple[int, ...]


FULL = Sizes(
    BERT_BASE,
    LeafShape(768, 768, 7, 32),
    batches=(16384, 4096, 256, 16, 1),
    batch=4096,
    depths=tuple(range(3, 17)),
    low_bit_depths=(11, 15),
    memory_rows=(4096, 16384),
    pool_rows=(128, 1024),
)
QUICK = Sizes(
    PathShape(12, 8, 3, 1),
    LeafShape(12, 8, 2, 4),
    batches=(64, 1),
    batch=64,
    depths=(1, 2, 3),
    low_bit_depths=(2,),
    memory_rows=(64,),
    pool_rows=(16,),
)


class Run(Session):
    """The session of this benchmark."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.sizes = QUICK if options.quick else FULL
        self.races: list[Race] = []

    @functools.cached_property
    def layer(self) -> fffcpu.FastFeedForward:
        """The layer of most sections."""
        return fffcpu.FastFeedForward(*self.sizes.shape, rng=0)

    @functools.cached_property
    def dense_params(self) -> dict[str, Array]:
        """The layer's neurons as those of a dense layer."""
        return {
            name: np.asarray(array).reshape(-1, *array.shape[2:])
            for name, array in self.layer.params.items()
        }

    def race(self, title: str, contenders: Sequence[Contender]) -> dict[str, Timing]:
        """Time contenders in alternation with those of the roofline; return them by name."""
        print_status(f"{title}: {', '.join(contender.name for contender in contenders)}")
        machine = roofline_contenders(self.options.threads)
        timings = alternate([*contenders, *machine], self.options.rounds, self.options.seconds)
        own = timings[: len(contenders)]
        self.races.append(Race(title, own, Roofline.of(timings)))
        return {timing.name: timing for timing in own}

    def peer(self, peer: type[peers.Peer], params: Any, activation: str) -> peers.Peer | None:
        """Return a peer with these weights, or None if it is not installed."""
        if not self.has(peer):
            return None
        instance = peer(self.options.threads, not self.options.no_spinning)
        instance.prepare(params, activation)
        return instance
