"""Kernels compiled, or read from the cache on disk, before the first request needs them.

`warmup` calls layers and models as users do, a few rows at a time, once with every kernel on the
caller's thread and once with every kernel on the pool. So it needs no list of kernels, and compiles
each for just the types that its layer passes. A new kernel is warmed as soon as a layer calls it;
one that only batches of another size reach needs that size in `ROWS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from fffcpu import kernels
from fffcpu.checks import check_flag
from fffcpu.errors import ArgumentTypeError, describe
from fffcpu.layers import FastFeedForward, Layer, LeafFeedForward
from fffcpu.system.threads import get_num_threads

__all__ = [
    "ROWS",
    "WarmedKernel",
    "WarmupRun",
    "cache_folder",
    "standard_layers",
    "warmup",
    "warmup_runs",
]

ROWS = (2, 1024)
"""Rows of the calls: one number for each choice of kernels that batches may meet."""


class WarmedKernel(NamedTuple):
    """A kernel that a warm-up called."""

    layer: str
    """Kind of the layer or model that called it."""
    dtype: str
    """Its dtype."""
    call: str
    """What was called: ``inference``, ``route``, ``forward`` or ``backward``."""
    kernel: str
    """Name of the compiled function."""
    parallel: bool
    """Whether it ran on the pool of threads."""
    seconds: float
    """How long it took; compiling or reading included."""
    source: str
    """Where its machine code came from: ``compiled``, ``cache`` (on disk) or ``memory`` (a call
    before in this process)."""


class WarmupRun(NamedTuple):
    """Every call of one layer or model, all serial or all parallel, of one number of rows."""

    layer: Any
    """The layer, or the model."""
    training: bool
    """Whether forward and backward are called too."""
    rows: int
    """Rows of a call; of a model, positions."""
    parallel: bool
    """Whether kernels run on the pool."""

    @property
    def kind(self) -> str:
        """What kind of layer or model it is."""
        return type(self.layer).__name__

    def run(self) -> list[WarmedKernel]:
        """Make the calls."""
        from fffcpu.kernels.jit import recording

        dtype = self.layer.config.dtype
        warmed = []
        with recording(parallel=self.parallel) as times:
            for call in self._calls() if isinstance(self.layer, Layer) else self._model_calls():
                warmed += [WarmedKernel(self.kind, dtype, call, *one) for one in times]
                times.clear()
        return warmed

    def _calls(self) -> Iterator[str]:
        """Make the calls of a layer, and yield the name of each when it is done."""
        layer = self.layer
        x = np.zeros((self.rows, layer.config.input_dim), layer.config.dtype)
        layer(x)
        yield "inference"
        if hasattr(layer, "route"):
            layer.route(x)
            yield "route"
        if self.training:
            y, cache = layer.forward(x)
            yield "forward"
            # With the routes' gradients too: all that a layer's backward may call.
            options = {"straight_through": True} if isinstance(layer, FastFeedForward) else {}
            layer.backward(y, cache, **options)
            yield "backward"

    def _model_calls(self) -> Iterator[str]:
        """Make the calls of a model, and yield the name of each when it is done."""
        from fffcpu.models import FastBertForMaskedLM

        model = self.layer
        length = min(self.rows, model.config.positions)
        ids = np.zeros((self.rows // length, length), np.intp)
        model(ids)
        yield "inference"
        if self.training and hasattr(model, "encoder"):
            labels = ids if isinstance(model, FastBertForMaskedLM) else ids[:, 0]
            _, cache = model.forward(ids, labels=labels)
            yield "forward"
            model.backward(cache)
            yield "backward"
        elif self.training:
            hidden, cache = model.forward(ids)
            yield "forward"
            model.backward(hidden, cache)
            yield "backward"


def standard_layers(dtype: DTypeLike = np.float32) -> tuple[Any, ...]:
    """Return a layer of each kind that has kernels, and a model.

    Kernels depend on types, not on sizes; so they are no larger than large batches need to be
    sorted.
    """
    from fffcpu.models import FastBertConfig, FastBertForMaskedLM

    config = FastBertConfig(2, 16, 1, 1, feedforward_size=1, depth=1, dtype=dtype)
    return (
        FastFeedForward(512, 512, 11, dtype=dtype, rng=0),
        LeafFeedForward(2, 2, 4, 2, dtype=dtype, rng=0),
        FastBertForMaskedLM(config, rng=0),
    )


def warmup_runs(layers: Sequence[Any], training: bool = False) -> list[WarmupRun]:
    """Return what `warmup` runs: none where nothing compiles, since Numba is absent or its JIT off.

    Raises
    ------
    ArgumentTypeError
        If one of the layers is none, and no model.
    """
    actors = [layer if isinstance(layer, Layer) else _small_copy(layer) for layer in layers]
    check_flag("training", training)
    if not kernels.selection().compiles:
        return []
    variants = (False, True) if get_num_threads() > 1 else (False,)
    return [
        WarmupRun(actor, training, rows, parallel)
        for actor in actors
        for rows in ROWS
        for parallel in variants
    ]


def _small_copy(model: Any) -> Any:
    """Return a model that calls the same kernels, with one layer and few tokens."""
    from fffcpu.models.model import Model

    if not isinstance(model, Model):
        raise ArgumentTypeError(
            f"argument 'layers' must be layers or models of fffcpu, got {describe(model)}"
        )
    config = model.config
    small = dataclasses.replace(
        config, layers=min(config.layers, 1), vocabulary=config.padding_id + 1
    )
    return type(model)(small, rng=0)


def cache_folder() -> str | None:
    """Return the folder where compiled kernels are kept, or None if they are not."""
    if not kernels.selection().compiles:
        return None
    from fffcpu.kernels._numba import compiling
    from fffcpu.kernels.sums import dot

    return compiling.cache_folder(dot)


def warmup(
    *layers: Any, dtype: DTypeLike = np.float32, training: bool = False
) -> tuple[WarmedKernel, ...]:
    """Compile the kernels that layers and models need, or read them from the cache on disk.

    For a server to call before its first request, and for an image to be built with. All later
    calls of these, or of others of the same kind and dtype, of any size, then compile nothing. With
    several threads this starts the pool, so a server that forks its workers calls it in each of
    them.

    Parameters
    ----------
    *layers : layer or model of fffcpu
        What to warm up for; their numbers do not change. Without any: `FastFeedForward`,
        `LeafFeedForward` and a FastBERT.
    dtype : {numpy.float32, numpy.float64}
        Of those; layers that are given have their own.
    training : bool
        Whether to warm up ``forward`` and ``backward`` too.

    Returns
    -------
    tuple of WarmedKernel
        What each kernel took; empty where nothing compiles, since Numba is not installed or
        ``NUMBA_DISABLE_JIT`` is set.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If an argument is of the wrong kind, or ``dtype`` is another.

    Examples
    --------
    >>> import fffcpu
    >>> layer = fffcpu.FastFeedForward(768, 768, depth=11)
    >>> sum(kernel.seconds for kernel in fffcpu.warmup(layer))  # doctest: +SKIP
    0.21
    """
    chosen = warmup_runs(layers or standard_layers(dtype), training)
    return tuple(warmed for run in chosen for warmed in run.run())
