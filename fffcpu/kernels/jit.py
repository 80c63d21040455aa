"""How kernels are launched: serial or parallel, on arrays of one type.

Compilation is lazy: decorating compiles nothing. The first call of a kernel with new types
compiles, and stores the machine code in a cache for the next process
(`fffcpu.kernels._numba.cache`).

A kernel takes ``start`` and ``stop`` as its last arguments and processes that range of rows or
other items. `launch` runs it over all items: on the caller's thread, or one range per thread of
`fffcpu.system.pool`. Kernels consist of inner functions, which only compiled code calls.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numba import prange
from numpy.typing import NDArray

from fffcpu.kernels._numba.compiling import compiled, compiled_inner, loads
from fffcpu.kernels._numba.settings import JIT
from fffcpu.system.pool import POOL

__all__ = [
    "JIT",
    "KernelTime",
    "inlined",
    "inner",
    "kernel",
    "launch",
    "launch_threads",
    "recording",
    "serial",
    "takes_pool",
    "writable",
]

Function = TypeVar("Function", bound=Callable[..., Any])

MIN_PARALLEL_WORK = 1 << 22
"""Multiply-adds below which a kernel runs on the caller's thread: waking TBB's pool costs more."""


def kernel(function: Function) -> Function:
    """Compile a function for one thread, which Python calls."""
    return compiled(function)


def inner(function: Function) -> Function:
    """Compile a function for kernels to call."""
    return compiled_inner(function)


def inlined(function: Function) -> Function:
    """Compile an inner function into each of its callers, for the most frequent calls."""
    return compiled_inner(function, forceinline=True)


if JIT:
    from fffcpu.kernels._numba.address import address, call
else:

    def address(kernel: Any, arguments: tuple[Any, ...]) -> Any:
        """Return the kernel itself."""
        return kernel

    def call(where: Any, arguments: tuple[Any, ...], start: int, stop: int) -> None:
        """Call a kernel."""
        where(*arguments, start, stop)


def _all_ranges(where: Any, arguments: tuple[Any, ...], items: int, ranges: int) -> None:
    for k in prange(ranges):
        call(where, arguments, items * k // ranges, items * (k + 1) // ranges)


_run_ranges: Any = compiled(_all_ranges, parallel=True)
"""Kernel launcher: runs a kernel's address over all items, in ranges that threads share."""


def _run_on_pool(kernel: Any, arguments: tuple[Any, ...], items: int, wait: bool = False) -> bool:
    """Run a kernel on the pool; return False if the pool is lost, or busy and we do not wait."""
    return POOL.run(_run_ranges, (address(kernel, arguments), arguments, items), wait)


def launch(kernel: Callable[..., Any], items: int, work: int, *arguments: Any) -> None:
    """Run a kernel over ``items`` rows or tasks, on the pool if that pays.

    Parameters
    ----------
    kernel : kernel
        Function called as ``kernel(*arguments, start, stop)``.
    items : int
        Number of items.
    work : int
        Approximate multiply-adds per item, on numbers that are in cache.
    """
    launcher = _launcher.get()
    if launcher is not None:
        launcher.launch(kernel, items, arguments)
    elif (
        items * work < MIN_PARALLEL_WORK * POOL.waking
        or POOL.threads == 1
        or not _run_on_pool(kernel, arguments, items)
    ):
        kernel(*arguments, 0, items)


class KernelTime(NamedTuple):
    """Record of a launch."""

    kernel: str
    """Name of the compiled function."""
    parallel: bool
    """Whether it ran on the pool."""
    seconds: float
    """Time from the call to the result."""
    source: str
    """Origin of the machine code: ``compiled``, ``cache`` (on disk) or ``memory``."""


class _Launcher(Protocol):
    """An object that can run launches instead of `launch`."""

    threads: int
    """What `launch_threads` returns."""

    def launch(
        self, kernel: Callable[..., Any], items: int, arguments: tuple[Any, ...]
    ) -> None: ...


class _Recorder:
    """Runs all launches on the caller's thread, or all on the pool, and records them."""

    threads = 2  # so that a warm-up, with few rows and with many, reaches the kernels of both

    def __init__(self, parallel: bool) -> None:
        self.parallel = parallel
        self.times: list[KernelTime] = []

    def launch(self, kernel: Callable[..., Any], items: int, arguments: tuple[Any, ...]) -> None:
        parallel = self.parallel and POOL.usable
        before, start = loads(kernel, _run_ranges), time.perf_counter()
        if parallel:
            _run_on_pool(kernel, arguments, items, wait=True)
        else:
            kernel(*arguments, 0, items)
        seconds, after = time.perf_counter() - start, loads(kernel, _run_ranges)
        compiled, cached = after.compiled > before.compiled, after.cached > before.cached
        source = "compiled" if compiled else "cache" if cached else "memory"
        self.times.append(KernelTime(kernel.__name__, parallel, seconds, source))


class _Serial:
    """Runs every launch on the caller's thread."""

    threads = 1

    def launch(self, kernel: Callable[..., Any], items: int, arguments: tuple[Any, ...]) -> None:
        kernel(*arguments, 0, items)


_launcher: ContextVar[_Launcher | None] = ContextVar("launcher", default=None)
"""Launcher of this thread, unless it is `launch` itself."""


@contextlib.contextmanager
def recording(*, parallel: bool) -> Iterator[list[KernelTime]]:
    """Context in which this thread's launches of any size all run serially, or all on the pool.

    Yields
    ------
    list of KernelTime
        Records, one more after each launch.
    """
    recorder = _Recorder(parallel)
    token = _launcher.set(recorder)
    try:
        yield recorder.times
    finally:
        _launcher.reset(token)


@contextlib.contextmanager
def serial() -> Iterator[None]:
    """Context in which this thread's launches of any size all run on this thread."""
    token = _launcher.set(_Serial())
    try:
        yield
    finally:
        _launcher.reset(token)


def takes_pool() -> bool:
    """Whether this thread's launches use the pool if it pays: not in the contexts above."""
    return _launcher.get() is None


def launch_threads() -> int:
    """Return the number of threads to choose a kernel for; a `recording` has two."""
    launcher = _launcher.get()
    return POOL.threads if launcher is None else launcher.threads


class _Alias:
    """An array's memory, exposed as writable."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array
        address, _ = array.__array_interface__["data"]
        self.__array_interface__ = {**array.__array_interface__, "data": (address, False)}


def writable(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array, or a writable alias of a read-only one, for a kernel that only reads it.

    Read-only is part of an array's type for Numba: without this, the first read-only input would
    compile each kernel a second time.
    """
    return array if array.flags.writeable else np.asarray(_Alias(array))
