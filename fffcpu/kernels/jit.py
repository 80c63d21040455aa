"""How kernels are compiled, kept on disk and launched: flags, cache, serial or parallel.

Compilation is lazy: decorating compiles nothing, the first call of a kernel with new types does,
and leaves the machine code in Numba's cache for the next process. No ``fastmath``: reassociation
would give one row different bits in different kernels.

A kernel takes ``start`` and ``stop`` as its last arguments and does that range of rows, or of other
items. `launch` runs it over all of them: on the caller's thread, or a range on each thread of
`fffcpu.system.pool`. Kernels are made of parts, which only compiled code calls.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import time
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numba
import numpy as np
from numba import prange
from numba.core.caching import FunctionCache
from numba.core.registry import CPUDispatcher
from numpy.typing import NDArray

from fffcpu.system.pool import POOL

__all__ = [
    "JIT",
    "Launch",
    "kernel",
    "launch",
    "part",
    "rehearsal",
    "serial",
    "takes_pool",
    "writable",
]

Function = TypeVar("Function", bound=Callable[..., Any])

JIT = not numba.config.DISABLE_JIT
"""False where ``NUMBA_DISABLE_JIT=1`` turns kernels into plain Python, for debugging."""

MIN_PARALLEL_WORK = 1 << 22
"""Multiply-adds below which a kernel runs on the caller's thread: waking TBB's pool costs more."""


@functools.cache
def _fingerprint() -> str:
    """Return a hash of the package's sources.

    Numba looks only at the file a function stands in; a kernel has parts of other files compiled
    into it, and must not be taken from the cache when one of those has changed.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@functools.cache  # one warning a process, not one a kernel
def _warn_uncached() -> None:
    warnings.warn(
        "compiled kernels cannot be kept on disk, so each process compiles them anew; "
        "the environment variable NUMBA_CACHE_DIR may name a folder that can be written to",
        RuntimeWarning,
        stacklevel=2,
    )


class _KernelCache(FunctionCache):  # type: ignore[misc]  # numba has no type information
    """Numba's cache on disk, which here never makes a call fail."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        stamp = self._impl.locator.get_source_stamp()
        self._cache_file._source_stamp = (stamp, _fingerprint())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            found = super().load_overload(sig, target_context)
            # Two processes that fill one cache may leave an entry that leads to the other's code.
            return found if found is None or tuple(found.signature.args) == tuple(sig) else None
        except Exception:  # noqa: BLE001  # a damaged file raises anything; compiling mends it
            with contextlib.suppress(OSError):
                self.flush()  # saving reads the index again
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError:
            _warn_uncached()


def _compile(function: Function, **flags: Any) -> Function:
    dispatcher = numba.njit(nogil=True, error_model="numpy", no_cfunc_wrapper=True, **flags)(
        function
    )
    if JIT:
        try:
            dispatcher._cache = _KernelCache(function)
        except RuntimeError:  # Numba found no folder it may write to
            _warn_uncached()
    return dispatcher  # type: ignore[no-any-return]


def kernel(function: Function) -> Function:
    """Compile a function for one thread, that Python calls."""
    return _compile(function)


class _Part(CPUDispatcher):  # type: ignore[misc]
    """A compiled function that Python cannot call, except by way of another one made for that."""

    @functools.cached_property
    def _entry(self) -> Callable[..., Any]:
        part = self
        return numba.njit(error_model="numpy")(lambda *arguments: part(*arguments))  # type: ignore[no-any-return]

    def __call__(self, *arguments: Any) -> Any:
        return self._entry(*arguments)


def part(function: Function) -> Function:
    """Compile a function for kernels to call; without what calls from Python need, a quarter less.

    A call from Python, in a test, still works.
    """
    dispatcher: Any = _compile(function, no_cpython_wrapper=True)
    if JIT:
        dispatcher.__class__ = _Part
    return dispatcher  # type: ignore[no-any-return]


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


_run_ranges: Any = _compile(_all_ranges, parallel=True)
"""Runs the kernel at an address over all items, cut into ranges that threads share."""


def _run_on_pool(kernel: Any, arguments: tuple[Any, ...], items: int, wait: bool = False) -> bool:
    """Run a kernel on the pool; return False if the pool is lost or, unless we wait, busy."""
    return POOL.run(_run_ranges, (address(kernel, arguments), arguments, items), wait)


def launch(kernel: Callable[..., Any], items: int, work: int, *arguments: Any) -> None:
    """Run a kernel over ``items`` rows or tasks, on the pool if that pays.

    Parameters
    ----------
    kernel : kernel
        Called as ``kernel(*arguments, start, stop)``.
    items : int
        How many items there are.
    work : int
        Multiply-adds of an item, roughly, on numbers that are at hand.
    """
    instead = _instead.get()
    if instead is not None:
        instead.launch(kernel, items, arguments)
    elif (
        items * work < MIN_PARALLEL_WORK * POOL.waking
        or POOL.threads == 1
        or not _run_on_pool(kernel, arguments, items)
    ):
        kernel(*arguments, 0, items)


class Launch(NamedTuple):
    """What a rehearsed launch did."""

    kernel: str
    """Name of the compiled function."""
    parallel: bool
    """Whether it ran on the pool."""
    seconds: float
    """How long it took, from the call to the result."""
    source: str
    """Where the machine code came from: ``compiled``, ``cache`` (on disk) or ``memory``."""


class _Rehearsal:
    """Runs every launch on the caller's thread, or every one on the pool; notes what came of it."""

    def __init__(self, parallel: bool) -> None:
        self.parallel = parallel
        self.launches: list[Launch] = []

    def launch(self, kernel: Callable[..., Any], items: int, arguments: tuple[Any, ...]) -> None:
        parallel = self.parallel and POOL.usable
        before, start = _loads(kernel), time.perf_counter()
        if parallel:
            _run_on_pool(kernel, arguments, items, wait=True)
        else:
            kernel(*arguments, 0, items)
        seconds, after = time.perf_counter() - start, _loads(kernel)
        compiled, cached = after.compiled > before.compiled, after.cached > before.cached
        source = "compiled" if compiled else "cache" if cached else "memory"
        self.launches.append(Launch(kernel.__name__, parallel, seconds, source))


class _Loads(NamedTuple):
    """How many versions of a kernel were compiled in this process, and how many read from disk."""

    compiled: int
    cached: int


def _loads(kernel: Any) -> _Loads:
    """Count those of the kernel and of the loop that shares it among threads."""
    stats = [function.stats for function in (kernel, _run_ranges)]
    return _Loads(
        sum(sum(one.cache_misses.values()) for one in stats),
        sum(sum(one.cache_hits.values()) for one in stats),
    )


class _Serial:
    """Runs every launch on the caller's thread."""

    def launch(self, kernel: Callable[..., Any], items: int, arguments: tuple[Any, ...]) -> None:
        kernel(*arguments, 0, items)


_instead: ContextVar[_Rehearsal | _Serial | None] = ContextVar("instead", default=None)
"""What launches go to, instead of where it pays."""


@contextlib.contextmanager
def rehearsal(*, parallel: bool) -> Iterator[list[Launch]]:
    """Context in which this thread's launches all run serially, or all on the pool, however small.

    Yields
    ------
    list of Launch
        Grows with each launch.
    """
    rehearsed = _Rehearsal(parallel)
    token = _instead.set(rehearsed)
    try:
        yield rehearsed.launches
    finally:
        _instead.reset(token)


@contextlib.contextmanager
def serial() -> Iterator[None]:
    """Context in which this thread's launches all run on it, however large."""
    token = _instead.set(_Serial())
    try:
        yield
    finally:
        _instead.reset(token)


def takes_pool() -> bool:
    """Whether this thread's launches go to the pool where it pays: not in the contexts above."""
    return _instead.get() is None


class _Alias:
    """An array's memory, offered as writable."""

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
