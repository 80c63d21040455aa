"""Data parallelism: each thread takes some of a batch's sequences through the whole model.

::

    thread 0   | embedding | layer 0 | layer 1 | ... | head |    the first half of the sequences
    thread 1   | embedding | layer 0 | layer 1 | ... | head |    the others

Within a thread everything is serial, kernels and matrix products alike. So threads wait for each
other once a call, not several times a layer; and no thread of OpenBLAS idles, which it does by
spinning for up to a tenth of a second after a product, on the core that the next kernel wants.

A call runs so where it has work enough, its sequences divide well among the threads, and NumPy's
BLAS lets the number of its threads be set. One such call runs at a time; others wait for it, as
it has all the cores. The bits of a result may depend on the number of threads, and on nothing else
here.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import itertools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from fffcpu.config.fastbert import FastBertConfig
from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError
from fffcpu.parameters import RowGradient, generator
from fffcpu.system.threads import get_num_threads

__all__ = [
    "ShardCaches",
    "backward_in_shards",
    "call_in_shards",
    "forward_in_shards",
    "run_shards",
    "share_out",
]

Array = NDArray[Any]

MIN_WORK = 1 << 26
"""Multiply-adds of a batch below which starting threads costs more than they save."""

MIN_BALANCE = 0.8
"""Least share of the threads' time that must be work: 5 sequences on 2 threads do, 3 do not."""


class ShardCaches(NamedTuple):
    """What a forward that ran in shards keeps for its backward."""

    shards: tuple[Any, ...]
    """What the model keeps, for each shard of the sequences."""
    weights: tuple[float, ...]
    """Share that each shard's loss has in the loss, a mean over something that shards have more or
    less of."""


def share_out(
    config: FastBertConfig, input_ids: Any, *others: Any, gradients: int = 0
) -> list[slice]:
    """Return which sequences each thread is to take; nothing if the batch had better stay whole.

    Parameters
    ----------
    config : FastBertConfig
        The model's.
    input_ids : array_like of integers of shape (B, S)
        The tokens.
    *others : array_like of shape (B, ...), or None
        What else is to be shared out. Lists stay whole.
    gradients : int
        How many numbers the gradients have, of which each shard makes its own. They must not take
        more memory than what the forward keeps.
    """
    threads = get_num_threads()
    if threads == 1 or not _takes_pool():
        return []
    arrays = [array for array in (input_ids, *others) if array is not None]
    if not all(isinstance(array, np.ndarray) for array in arrays) or input_ids.ndim != 2:
        return []
    batch, length = input_ids.shape
    if batch < threads or any(array.shape not in ((batch,), (batch, length)) for array in arrays):
        return []  # the latter is wrong, and what runs the whole says so
    if not _pays(config, batch, length, gradients, threads) or not _blas().lib_controllers:
        return []
    cuts = [batch * k // threads for k in range(threads + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(cuts)]


def run_shards(function: Callable[..., Any], shards: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Return what a function gives for the arguments of each shard, a thread for each.

    The first shard runs on the caller's thread. What a shard raises is raised here.
    """
    results: list[Any] = [None] * len(shards)
    failures: dict[int, Exception] = {}
    errors = np.geterr()

    def run(k: int) -> None:
        try:
            with np.errstate(**errors):  # which NumPy keeps by thread before version 2
                results[k] = function(*shards[k])
        except Exception as failure:  # noqa: BLE001  # whatever it is, it is the caller's
            failures[k] = failure

    started: list[threading.Thread] = []
    with _TURN.taken():
        try:
            for k in range(1, len(shards)):
                thread = threading.Thread(target=contextvars.copy_context().run, args=(run, k))
                try:
                    thread.start()
                except RuntimeError:  # there can be no more threads
                    run(k)
                else:
                    started.append(thread)
            run(0)
        finally:
            for thread in started:
                thread.join()
    if failures:
        raise failures[min(failures)]
    return results


def call_in_shards(
    function: Callable[..., Any],
    slices: Sequence[slice],
    arrays: Sequence[Any],
    rngs: Sequence[Any] = (),
) -> list[Any]:
    """Return what a function gives for the sequences of each slice.

    Parameters
    ----------
    function : callable
        Called as ``function(*arrays)``, or ``function(*arrays, rng)`` if there are ``rngs``.
    slices : sequence of slice
        From `share_out`.
    arrays : sequence of (array of shape (B, ...), or None)
        Of the whole batch.
    rngs : sequence
        One for each shard, or none at all.
    """
    shards: list[tuple[Any, ...]] = [
        tuple(None if array is None else array[own] for array in arrays) for own in slices
    ]
    if rngs:
        shards = [(*shard, rng) for shard, rng in zip(shards, rngs, strict=True)]
    try:
        return run_shards(function, shards)
    except (ArgumentError, ArgumentTypeError, ShapeError):
        # The whole is as wrong as its shard, and its error names the place in the whole.
        return [function(*arrays, *rngs[:1])]


def forward_in_shards(
    forward: Callable[..., tuple[float, Any]],
    slices: Sequence[slice],
    arrays: Sequence[Any],
    rng: Any,
    weigh: Callable[[Any], int],
) -> tuple[float, ShardCaches]:
    """Return the loss of a batch, and what `backward_in_shards` needs.

    Parameters
    ----------
    forward : callable
        ``forward(*arrays, rng)`` gives the mean loss of some sequences and a cache.
    slices : sequence of slice
        From `share_out`.
    arrays : sequence of (array of shape (B, ...), or None)
        Of the whole batch.
    rng : None, int or numpy.random.Generator
        For dropout; each shard has a generator of its own, seeded from it.
    weigh : callable
        Gives from a cache how many things its loss is the mean of.
    """
    rngs: list[Any] = [None] * len(slices)
    if rng is not None:
        seeds = generator(rng).integers(1 << 62, size=len(slices))
        rngs = [generator(seed) for seed in seeds]
    losses, caches = zip(*call_in_shards(forward, slices, arrays, rngs), strict=True)
    counts = [weigh(cache) for cache in caches]
    weights = tuple(count / max(1, sum(counts)) for count in counts)
    loss = sum(weight * loss for weight, loss in zip(weights, losses, strict=True))
    return loss, ShardCaches(caches, weights)


def backward_in_shards(
    backward: Callable[..., dict[str, Any]], cache: ShardCaches, row_sparse: bool
) -> dict[str, Any]:
    """Return the gradients of a batch's loss.

    Parameters
    ----------
    backward : callable
        ``backward(cache, row_sparse)`` gives the gradients of some sequences' loss, each in memory
        of its own.
    cache : ShardCaches
        From `forward_in_shards`.
    row_sparse : bool
        Passed on.
    """

    def weighted(shard: Any, weight: float) -> dict[str, Any]:
        grads = backward(shard, row_sparse)
        for grad in grads.values():
            values = grad.values if isinstance(grad, RowGradient) else grad
            values *= weight
        return grads

    first: dict[str, Any]
    first, *others = run_shards(weighted, list(zip(cache.shards, cache.weights, strict=True)))
    for other in others:
        for name, grad in other.items():
            if isinstance(grad, RowGradient):
                first[name] = first[name].plus(grad)
            else:
                first[name] += grad
    return first


def _pays(config: FastBertConfig, batch: int, length: int, gradients: int, threads: int) -> bool:
    """Whether a batch has work enough, divides well, and has not too many gradients."""
    width, layers, tokens = config.width, config.layers, batch * length
    kept = tokens * layers * (8 * width + config.heads * length)
    return (
        tokens * layers * 4 * width * width >= MIN_WORK
        and batch >= MIN_BALANCE * threads * -(-batch // threads)
        and gradients * (threads - 1) <= kept
    )


def _takes_pool() -> bool:
    from fffcpu.kernels.jit import takes_pool

    return takes_pool()


@functools.cache
def _blas() -> ThreadpoolController:
    """Return what sets the number of threads of NumPy's BLAS; none of it can, if it is Apple's."""
    built: Any = np.show_config(mode="dicts")
    name = built["Build Dependencies"]["blas"].get("name", "")
    apis = [] if name == "accelerate" else ["blas"]
    return ThreadpoolController().select(user_api=apis)


class _Turn:
    """The one call at a time that runs in shards; others wait. NumPy's BLAS is serial meanwhile.

    A forked child has the thread alone that forked, and so nobody else's turn.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._limit: Any = None
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Context of a call: its kernels and products keep to the thread they are called from."""
        from fffcpu.kernels.jit import serial

        with self._lock, serial():
            self._limit = _blas().limit(limits=1)
            try:
                yield
            finally:
                self._limit.restore_original_limits()
                self._limit = None

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        if self._limit is not None:
            self._limit.restore_original_limits()
            self._limit = None


_TURN = _Turn()
