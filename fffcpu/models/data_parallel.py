"""Data parallelism: each thread runs some of a batch's sequences through the whole model.

::

    thread 0   | embedding | layer 0 | layer 1 | ... | head |    the first half of the sequences
    thread 1   | embedding | layer 0 | layer 1 | ... | head |    the others

Within a thread everything is serial. So threads wait for each other once per call, not several
times per layer.

A call runs in shards if it has enough work, and if its sequences divide evenly enough among the
threads. One such call runs at a time; others wait, because it uses all the cores. The bits of
gradients may depend on the number of threads, but on nothing else here.

Compiled kernels include all products of a model. Without them, NumPy's BLAS makes the products:
then a call runs in shards if the number of threads of that BLAS can be set, and it has one thread
meanwhile.
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

from fffcpu import kernels
from fffcpu.config.encoder import EncoderConfig
from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError
from fffcpu.parameters import RowGradient, generator
from fffcpu.system.compiler import has_numba
from fffcpu.system.threads import get_num_threads

__all__ = [
    "ShardCaches",
    "backward_in_shards",
    "call_in_shards",
    "forward_in_shards",
    "on_one_core",
    "on_this_thread",
    "run_shards",
    "shard_threads",
    "share_out",
]

Array = NDArray[Any]

MIN_WORK = 1 << 26
"""Multiply-adds of a batch below which starting threads costs more than they save."""

MIN_BALANCE = 0.8
"""Minimum share of the threads' time that is work; 5 sequences on 2 threads reach it, 3 do not."""


class ShardCaches(NamedTuple):
    """What a forward that ran in shards keeps for its backward."""

    shards: tuple[Any, ...]
    """Cache of the model for each shard of the sequences."""
    weights: tuple[float, ...]
    """Weight of each shard's loss in the loss of the batch, which is a mean over elements that are
    not split equally."""


def share_out(
    config: EncoderConfig, input_ids: Any, *others: Any, gradients: int = 0
) -> list[slice]:
    """Return the sequences of each thread as slices; an empty list if the batch must stay whole.

    Parameters
    ----------
    config : EncoderConfig
        Config of the model.
    input_ids : array_like of integers of shape (B, S)
        The tokens.
    *others : array_like of shape (B, ...), or None
        Other arrays to split. Lists stay whole.
    gradients : int
        Count of numbers in the gradients; each shard allocates its own. They must not take more
        memory than what the forward keeps.
    """
    threads = shard_threads()
    if threads == 1:
        return []
    arrays = [input_ids, *(array for array in others if array is not None)]
    if not all(isinstance(array, np.ndarray) for array in arrays) or input_ids.ndim != 2:
        return []
    batch, length = input_ids.shape
    if batch < threads or any(array.shape[:1] != (batch,) for array in arrays):
        return []  # the latter is wrong; running the whole batch raises the error
    if not _pays(config, batch, length, gradients, threads):
        return []
    if not (kernels.selection().compiles or _blas().lib_controllers):
        return []
    cuts = [batch * k // threads for k in range(threads + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(cuts)]


def shard_threads() -> int:
    """Return the number of threads that shards may run on: 1 inside of another shard."""
    return get_num_threads() if _takes_pool() else 1


def _takes_pool() -> bool:
    """Whether kernels of this thread may use the pool."""
    if not has_numba():
        return True
    from fffcpu.kernels.jit import takes_pool

    return takes_pool()


def run_shards(function: Callable[..., Any], shards: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Call a function with the arguments of each shard, one thread per shard; return the results.

    The first shard runs on the caller's thread. An exception of a shard is raised here. A call from
    within a context of one core, such as another shard, runs without waiting for its turn.
    """
    results: list[Any] = [None] * len(shards)
    failures: dict[int, Exception] = {}
    errors = np.geterr()

    def run(k: int) -> None:
        try:
            with np.errstate(**errors):  # NumPy before version 2 keeps this per thread
                results[k] = function(*shards[k])
        except Exception as failure:  # noqa: BLE001  # raised again in the caller's thread
            failures[k] = failure

    started: list[threading.Thread] = []
    with _TURN.taken() if _takes_pool() else _serial():
        try:
            for k in range(1, len(shards)):
                thread = threading.Thread(target=contextvars.copy_context().run, args=(run, k))
                try:
                    thread.start()
                except RuntimeError:  # no further thread can be started
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
    """Call a function with the sequences of each slice; return the results.

    Parameters
    ----------
    function : callable
        Called as ``function(*arrays)``, or ``function(*arrays, rng)`` if there are ``rngs``.
    slices : sequence of slice
        Slices that `share_out` returned.
    arrays : sequence of (array of shape (B, ...), or None)
        Arrays of the whole batch.
    rngs : sequence
        One generator per shard, or none at all.
    """
    shards: list[tuple[Any, ...]] = [
        tuple(None if array is None else array[own] for array in arrays) for own in slices
    ]
    if rngs:
        shards = [(*shard, rng) for shard, rng in zip(shards, rngs, strict=True)]
    try:
        return run_shards(function, shards)
    except (ArgumentError, ArgumentTypeError, ShapeError):
        # The whole batch has the same error, whose message then names the place in the batch.
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
        Function of ``(*arrays, rng)`` that returns the mean loss of some sequences and a cache.
    slices : sequence of slice
        Slices that `share_out` returned.
    arrays : sequence of (array of shape (B, ...), or None)
        Arrays of the whole batch.
    rng : None, int or numpy.random.Generator
        Generator or seed of the dropout; it seeds one generator per shard.
    weigh : callable
        Function of a cache that returns the number of terms in the mean loss.
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
    backward: Callable[..., dict[str, Any]], cache: ShardCaches, *options: bool
) -> dict[str, Any]:
    """Return the gradients of a batch's loss.

    Parameters
    ----------
    backward : callable
        Function of a cache and of ``options`` that returns the gradients of some sequences' loss,
        in newly allocated memory.
    cache : ShardCaches
        Cache that `forward_in_shards` returned.
    *options : bool
        Further arguments of ``backward``.
    """

    def weighted(shard: Any, weight: float) -> dict[str, Any]:
        grads = backward(shard, *options)
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


def _pays(config: EncoderConfig, batch: int, length: int, gradients: int, threads: int) -> bool:
    """Whether a batch has enough work, divides evenly enough, and has few enough gradients."""
    width, layers, tokens = config.width, config.layers, batch * length
    kept = tokens * layers * (8 * width + config.heads * length)
    return (
        tokens * layers * 4 * width * width >= MIN_WORK
        and batch >= MIN_BALANCE * threads * -(-batch // threads)
        and gradients * (threads - 1) <= kept
    )


@functools.cache
def _blas() -> ThreadpoolController:
    """Return the object that limits the threads of NumPy's BLAS; Apple's BLAS allows no limit."""
    built: Any = np.show_config(mode="dicts")
    name = built["Build Dependencies"]["blas"].get("name", "")
    apis = [] if name == "accelerate" else ["blas"]
    return ThreadpoolController().select(user_api=apis)


class _SerialBlas:
    """Keeps NumPy's BLAS serial while at least one thread wants it so; a fork's child starts free.

    The limit of a BLAS holds for the whole process. So the first thread sets it, and the last one
    restores what was there before.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._limit: Any = None
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Context in which matrix products run on the thread that calls them."""
        with self._lock:
            self._holders += 1
            if self._holders == 1:
                self._limit = _blas().limit(limits=1)
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                if self._holders == 0:
                    self._restore()

    def _restore(self) -> None:
        limit, self._limit = self._limit, None
        limit.restore_original_limits()

    def _after_fork(self) -> None:
        self._lock, self._holders = threading.Lock(), 0
        if self._limit is not None:
            self._restore()


class _Turn:
    """Lock of the one call that runs in shards.

    A forked child has only the thread that forked, so its lock starts free.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Context of a call: its kernels and products run on the calling thread only."""
        with self._lock, _serial():
            yield

    def _after_fork(self) -> None:
        self._lock = threading.Lock()


@contextlib.contextmanager
def on_one_core() -> Iterator[None]:
    """Context in which kernels and matrix products run on the calling thread only.

    Any number of threads may enter it. Meanwhile NumPy's BLAS is serial in the whole process.
    """
    with _SERIAL_BLAS.held(), on_this_thread():
        yield


def _serial() -> contextlib.AbstractContextManager[None]:
    """Return a context in which all that a model computes runs on the calling thread only."""
    return on_this_thread() if kernels.selection().compiles else on_one_core()


def on_this_thread() -> contextlib.AbstractContextManager[None]:
    """Return a context in which kernels do not use the pool of threads."""
    if not has_numba():
        return contextlib.nullcontext()
    from fffcpu.kernels.jit import serial

    return serial()


_SERIAL_BLAS = _SerialBlas()
_TURN = _Turn()
