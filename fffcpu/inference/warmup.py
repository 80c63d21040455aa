"""Kernels are compiled, or read from the cache on disk, before the first request needs them.

`warmup` calls layers and models as users do, with a few rows per call: once with every kernel on
the caller's thread, once with every kernel on the pool. So it needs no list of kernels, and
compiles each only for the types that its layer passes. A new kernel is warmed up if a layer calls
it; a kernel that only batches of another size reach needs that size in `ROWS`.
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
"""Batch sizes of the calls: for the kernels of few rows, and for those of many. The second is large
enough for deep trees to be sorted."""


class WarmedKernel(NamedTuple):
    """A kernel that a warm-up called."""

    layer: str
    """Class of the layer or model that called it."""
    dtype: str
    """Its dtype."""
    call: str
    """The call: ``inference``, ``route``, ``forward`` or ``backward``."""
    kernel: str
    """Name of the compiled function."""
    parallel: bool
    """Whether it ran on the pool of threads."""
    seconds: float
    """Seconds of the call, including those to compile or read the kernel."""
    source: str
    """Source of its machine code: ``compiled``, ``cache`` (on disk) or ``memory`` (an earlier call
    in this process)."""


class WarmupRun(NamedTuple):
    """All calls of one layer or model with one batch size, all serial or all parallel."""

    layer: Any
    """The layer, or the model."""
    training: bool
    """Whether forward and backward are called too."""
    rows: int
    """Rows of a call; positions for a model."""
    parallel: bool
    """Whether kernels run on the pool."""

    @property
    def kind(self) -> str:
        """Class of the layer or model."""
        return type(self.layer).__name__

    def run(self) -> list[WarmedKernel]:
        """Make the calls."""
        from fffcpu.kernels.jit import recording

        dtype = self.layer.config.dtype
        warmed = []
        with recording(parallel=self.parallel) as times, kernels.backend_for_many():
            for call in self._calls() if isinstance(self.layer, Layer) else self._model_calls():
                warmed += [WarmedKernel(self.kind, dtype, call, *one) for one in times]
                times.clear()
        return warmed

    def _calls(self) -> Iterator[str]:
        """Make the calls of a layer, and yield the name of each after it."""
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
            # Also the routes' gradients: all kernels that a layer's backward may call.
            options = {"straight_through": True} if isinstance(layer, FastFeedForward) else {}
            layer.backward(y, cache, **options)
            yield "backward"

    def _model_calls(self) -> Iterator[str]:
        """Make the calls of a model, and yield the name of each after it."""
        from fffcpu.models.masked_lm import MaskedLM

        model = self.layer
        length = min(self.rows, model.config.positions)
        ids = np.zeros((self.rows // length, length), np.intp)
        model(ids)
        yield "inference"
        if self.training and hasattr(model, "encoder"):
            labels = ids if isinstance(model, MaskedLM) else ids[:, 0]
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
    """Return a layer of each class that has kernels, and a model.

    Kernels depend on types, not on sizes; so the layers are just large enough for large batches to
    be sorted.
    """
    from fffcpu.models import FastBertConfig, FastBertForMaskedLM

    config = FastBertConfig(2, 16, 1, 1, feedforward_size=1, depth=1, dtype=dtype)
    return (
        FastFeedForward(512, 512, 11, dtype=dtype, rng=0),
        LeafFeedForward(2, 2, 4, 2, dtype=dtype, rng=0),
        FastBertForMaskedLM(config, rng=0),
    )


def warmup_runs(layers: Sequence[Any], training: bool = False) -> list[WarmupRun]:
    """Return the runs of `warmup`: none where nothing compiles, as Numba is absent or its JIT off.

    Raises
    ------
    ArgumentTypeError
        If an element is neither a layer nor a model.
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
        config, layers=min(config.layers, 1), vocabulary=config.padding_id + 1, weights=None
    )
    made = type(model)(small, rng=0)
    return made if config.weights is None else made.quantize(config.weights)


def cache_folder() -> str | None:
    """Return the folder of the compiled kernels, or None if they are not kept."""
    if not kernels.selection().compiles:
        return None
    from fffcpu.kernels._numba import compiling
    from fffcpu.kernels.sums import dot

    return compiling.cache_folder(dot)


def warmup(
    *layers: Any, dtype: DTypeLike = np.float32, training: bool = False
) -> tuple[WarmedKernel, ...]:
    """Compile the kernels that layers and models need, or read them from the cache on disk.

    A server calls it before its first request; so does the build of an image. Later calls of these
    layers, or of others of the same class and dtype and of any size, compile nothing. With several
    threads this starts the pool, so a server that forks its workers calls it in each worker.

    Parameters
    ----------
    *layers : layer or model of fffcpu
        Layers and models to warm up for; they do not change. Without any: `FastFeedForward`,
        `LeafFeedForward` and a FastBERT.
    dtype : {numpy.float32, numpy.float64}
        dtype of these defaults; given layers have their own.
    training : bool
        Whether to warm up ``forward`` and ``backward`` too.

    Returns
    -------
    tuple of WarmedKernel
        Time of each kernel; empty where nothing compiles, because Numba is not installed or
        ``NUMBA_DISABLE_JIT`` is set.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If an argument has the wrong type, or ``dtype`` is another dtype.

    Examples
    --------
    >>> import fffcpu
    >>> layer = fffcpu.FastFeedForward(768, 768, depth=11)
    >>> sum(kernel.seconds for kernel in fffcpu.warmup(layer))  # doctest: +SKIP
    0.21
    """
    chosen = warmup_runs(layers or standard_layers(dtype), training)
    return tuple(warmed for run in chosen for warmed in run.run())
