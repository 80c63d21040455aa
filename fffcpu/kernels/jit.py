"""How kernels are compiled, kept on disk and spread over threads: flags, cache and pool.

Compilation is lazy: decorating compiles nothing, the first call of a kernel with new types does,
and leaves the machine code in Numba's cache for the next process. No ``fastmath``: reassociation
would give one row different bits in different kernels.

A kernel comes as a pair: the serial one takes ``start`` and ``stop`` and does that range of rows;
the parallel one takes the number of ranges and runs the serial one on each by ``prange``. `launch`
decides which of the two runs.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import os
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
from numba import prange
from numba.core.caching import FunctionCache
from numpy.typing import NDArray

from fffcpu.config import check_integer

__all__ = [
    "JIT",
    "kernel",
    "launch",
    "parallel_kernel",
    "prange",
    "set_threads",
    "threads",
    "writable",
]

Function = TypeVar("Function", bound=Callable[..., Any])

JIT = not numba.config.DISABLE_JIT
"""False where ``NUMBA_DISABLE_JIT=1`` turns kernels into plain Python, for debugging."""

CGROUP = Path("/sys/fs/cgroup")
"""Where Linux tells how much CPU a container may use."""

MIN_PARALLEL_WORK = 1 << 22
"""Multiply-adds below which a kernel runs on the caller's thread: waking the pool costs more."""


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
    dispatcher = numba.njit(nogil=True, error_model="numpy", **flags)(function)
    if JIT:
        try:
            dispatcher._cache = _KernelCache(function)
        except RuntimeError:  # Numba found no folder it may write to
            _warn_uncached()
    return dispatcher  # type: ignore[no-any-return]


def kernel(function: Function) -> Function:
    """Compile a function for one thread."""
    return _compile(function)


def parallel_kernel(function: Function) -> Function:
    """Compile a function whose ``prange`` loops run on the pool."""
    return _compile(function, parallel=True)


def _cpu_quota() -> float:
    """Return how many CPUs the process's control group may use; infinity if there is no limit."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (CGROUP / "cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        quota, period = (
            (CGROUP / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
        )
        return math.inf if int(quota) < 0 else int(quota) / int(period)
    return math.inf


def default_threads() -> int:
    """Return Numba's number of threads, lowered to the control group's CPUs unless it was set."""
    most = int(numba.config.NUMBA_NUM_THREADS)
    if "NUMBA_NUM_THREADS" in os.environ:
        return most
    return max(1, min(most, math.ceil(min(most, _cpu_quota()))))


class _Pool:
    """Numba's thread pool as kernels use it: one call at a time, the others run serially.

    A call that finds the pool busy has nothing to gain from it, and Numba's ``workqueue`` layer
    would end the process. Results have the same bits either way.
    """

    def __init__(self) -> None:
        self.threads = default_threads()
        self.started = False
        self.usable = True
        self.lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        self.lock = threading.Lock()
        try:
            layer = numba.threading_layer()
        except ValueError:  # no parallel kernel has run yet, so there is no pool to lose
            return
        # GNU OpenMP ends a forked child that uses the pool of its parent.
        self.usable = layer != "omp"

    def _start(self) -> None:
        """Start Numba's pool, with idle threads that sleep.

        GNU OpenMP's would spin, and take the cores from the caller's matrix products. It reads the
        variable once, when it is loaded; nobody else need see it.
        """
        if "OMP_WAIT_POLICY" in os.environ:
            numba.get_num_threads()
        else:
            os.environ["OMP_WAIT_POLICY"] = "passive"
            try:
                numba.get_num_threads()
            finally:
                del os.environ["OMP_WAIT_POLICY"]
        self.started = True

    def run(self, parallel: Callable[..., Any], arguments: tuple[Any, ...]) -> bool:
        """Run a parallel kernel, or return False if the pool is not to be had."""
        if not self.usable or not self.lock.acquire(blocking=False):
            return False
        try:
            if not self.started:
                self._start()
            callers = numba.get_num_threads()
            numba.set_num_threads(self.threads)
            try:
                parallel(*arguments, self.threads)
            finally:
                numba.set_num_threads(callers)
        finally:
            self.lock.release()
        return True


_pool = _Pool()


def threads() -> int:
    """Return how many threads a kernel may use."""
    return _pool.threads


def set_threads(number: int) -> None:
    """Set how many threads a kernel may use; see `fffcpu.set_num_threads`."""
    most = int(numba.config.NUMBA_NUM_THREADS)
    _pool.threads = check_integer("threads", number, 1, most)


def launch(
    serial: Callable[..., Any],
    parallel: Callable[..., Any],
    items: int,
    work: int,
    *arguments: Any,
) -> None:
    """Run a kernel over ``items`` rows or tasks, on the pool if that pays.

    Parameters
    ----------
    serial : kernel
        Called as ``serial(*arguments, start, stop)``.
    parallel : parallel kernel
        Called as ``parallel(*arguments, items, ranges)``.
    items : int
        How many items there are.
    work : int
        Multiply-adds of an item, roughly.
    """
    if (
        items * work < MIN_PARALLEL_WORK
        or _pool.threads == 1
        or not _pool.run(parallel, (*arguments, items))
    ):
        serial(*arguments, 0, items)


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
