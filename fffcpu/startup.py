"""Kernels compiled, or read from the cache on disk, before the first request needs them.

`warmup` calls layers as users do, a few rows at a time, once with every kernel on the caller's
thread and once with every kernel on the pool. So it needs no list of kernels, and compiles each for
just the types that its layer passes. A new kernel is warmed as soon as a layer calls it; one that
only batches of another size reach needs that size in `ROWS`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from fffcpu.config import check_flag
from fffcpu.errors import ArgumentTypeError, describe
from fffcpu.kernels import get_num_threads
from fffcpu.layers import FastFeedForward, Layer, LeafFeedForward

__all__ = [
    "ROWS",
    "Rehearsal",
    "Warmed",
    "cache_folder",
    "rehearsals",
    "standard_layers",
    "warmup",
]

ROWS = (2, 1024)
"""Rows of the calls: one number for each choice of kernels that batches may meet."""


class Warmed(NamedTuple):
    """A kernel that a warm-up called."""

    layer: str
    """Kind of the layer that called it."""
    dtype: str
    """The layer's dtype."""
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


class Rehearsal(NamedTuple):
    """Every call of one layer, all serial or all parallel, of one number of rows."""

    layer: Any
    """The layer."""
    training: bool
    """Whether forward and backward are called too."""
    rows: int
    """Rows of a call."""
    parallel: bool
    """Whether kernels run on the pool."""

    def run(self) -> list[Warmed]:
        """Make the calls."""
        from fffcpu.kernels.jit import rehearsal

        config = self.layer.config
        warmed = []
        with rehearsal(parallel=self.parallel) as launches:
            for call in self._calls():
                warmed += [Warmed(config.kind, config.dtype, call, *one) for one in launches]
                launches.clear()
        return warmed

    def _calls(self) -> Iterator[str]:
        """Make the calls, and yield the name of each when it is done."""
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
            layer.backward(y, cache)
            yield "backward"


def standard_layers(dtype: DTypeLike = np.float32) -> tuple[FastFeedForward, LeafFeedForward]:
    """Return a layer of each kind that has kernels, no larger than large batches need to be sorted.

    Kernels depend on types, not on sizes.
    """
    return (
        FastFeedForward(512, 512, 11, dtype=dtype, rng=0),
        LeafFeedForward(2, 2, 4, 2, dtype=dtype, rng=0),
    )


def rehearsals(layers: Sequence[Any], training: bool = False) -> list[Rehearsal]:
    """Return what `warmup` runs: none where nothing compiles, since Numba is absent or its JIT off.

    Raises
    ------
    ArgumentTypeError
        If one of the layers is none.
    """
    for layer in layers:
        if not isinstance(layer, Layer):
            raise ArgumentTypeError(
                f"argument 'layers' must be layers of fffcpu, got {describe(layer)}"
            )
    check_flag("training", training)
    if not _compiles():
        return []
    variants = (False, True) if get_num_threads() > 1 else (False,)
    return [
        Rehearsal(layer, training, rows, parallel)
        for layer in layers
        for rows in ROWS
        for parallel in variants
    ]


def _compiles() -> bool:
    if not importlib.util.find_spec("numba"):
        return False
    from fffcpu.kernels.jit import JIT

    return JIT


def cache_folder() -> str | None:
    """Return the folder where compiled kernels are kept, or None if they are not."""
    if not _compiles():
        return None
    from fffcpu.kernels import simd

    dot: Any = simd.dot  # compiled, so it has more than the function that mypy sees
    path: str | None = dot.stats.cache_path
    return path


def warmup(
    *layers: Any, dtype: DTypeLike = np.float32, training: bool = False
) -> tuple[Warmed, ...]:
    """Compile the kernels that layers need, or read them from the cache on disk.

    For a server to call before its first request, and for an image to be built with. All later
    calls of these layers, or of others of the same kind and dtype, of any size, then compile
    nothing. With several threads this starts the pool, so a server that forks its workers
    calls it in each of them.

    Parameters
    ----------
    *layers : FastFeedForward, LeafFeedForward or DenseFeedForward
        What to warm up for; their numbers do not change. Without any: `FastFeedForward` and
        `LeafFeedForward`.
    dtype : {numpy.float32, numpy.float64}
        Of those two; layers that are given have their own.
    training : bool
        Whether to warm up ``forward`` and ``backward`` too.

    Returns
    -------
    tuple of Warmed
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
    chosen = rehearsals(layers or standard_layers(dtype), training)
    return tuple(warmed for rehearsal in chosen for warmed in rehearsal.run())
