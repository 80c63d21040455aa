"""Compiles functions and keeps their machine code on disk, beyond Numba's public interface.

Numba's own cache checks only the file that defines a function, raises an error if no folder can be
written, and trusts the files there. Also, every compiled function of Numba has a wrapper for
Python, which functions that only compiled code calls do not need.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numba
from numba.core.caching import FunctionCache
from numba.core.registry import CPUDispatcher

__all__ = ["JIT", "Loads", "cache_folder", "compiled", "compiled_inner", "loads"]

_LOGGER = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., Any])

JIT = not numba.config.DISABLE_JIT
"""False if ``NUMBA_DISABLE_JIT=1`` turns kernels into plain Python, for debugging."""

PACKAGE = Path(__file__).parents[2]

FOUNDATIONS = ("checks.py", "config", "errors.py", "kernels", "lowbit.py", "system", "tree.py")
"""Modules and packages of fffcpu that kernels depend on: kernels, and all their imports."""


def sources() -> Iterator[Path]:
    """Yield the source files of `FOUNDATIONS`."""
    for name in FOUNDATIONS:
        path = PACKAGE / name
        yield from sorted(path.rglob("*.py")) if path.is_dir() else (path,)


@functools.cache
def fingerprint() -> str:
    """Return a hash of the sources that kernels depend on.

    Functions of other files are compiled into a kernel. So it must not be taken from the cache
    after one of those files has changed.
    """
    digest = hashlib.sha256()
    for path in sources():
        digest.update(path.read_bytes())
    return digest.hexdigest()


@functools.cache  # one warning per process, not one per kernel
def _warn_uncached() -> None:
    warnings.warn(
        "compiled kernels cannot be kept on disk, so every process compiles them again; "
        "set NUMBA_CACHE_DIR to a writable folder",
        RuntimeWarning,
        stacklevel=2,
    )


class _KernelCache(FunctionCache):  # type: ignore[misc]  # numba has no type information
    """Numba's cache on disk, whose failures here never make a call fail."""

    def __init__(self, function: Callable[..., Any], level: int) -> None:
        super().__init__(function)
        stamp = self._impl.locator.get_source_stamp()
        self._cache_file._source_stamp = (stamp, fingerprint())
        self._kernel = f"{function.__module__}.{function.__qualname__}"
        self._level = level  # of the log
        self._began = 0.0  # compiling

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            found = super().load_overload(sig, target_context)
            # Two processes that fill one cache may leave an entry that leads to the other's code.
            if found is not None and tuple(found.signature.args) == tuple(sig):
                _LOGGER.debug("read %s from %s", self._kernel, self.cache_path)
                return found
        except Exception:  # noqa: BLE001  # a damaged file raises anything; compiling mends it
            with contextlib.suppress(OSError):
                self.flush()  # saving reads the index again
        self._began = time.perf_counter()
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        seconds = time.perf_counter() - self._began
        _LOGGER.log(self._level, "compiled %s in %.2f s", self._kernel, seconds)
        try:
            super().save_overload(sig, data)
        except OSError:
            _warn_uncached()


def compiled(function: Function, **flags: Any) -> Function:
    """Return a function that is compiled at its first call and keeps its code on disk.

    ``flags`` are those of ``numba.njit``. No ``fastmath``: reassociation would give one row
    different bits in different kernels.
    """
    dispatcher = numba.njit(nogil=True, error_model="numpy", no_cfunc_wrapper=True, **flags)(
        function
    )
    if JIT:
        try:
            inner = flags.get("no_cpython_wrapper", False)
            dispatcher._cache = _KernelCache(function, logging.DEBUG if inner else logging.INFO)
        except RuntimeError:  # Numba found no folder it may write to
            _warn_uncached()
    return dispatcher  # type: ignore[no-any-return]


class _Inner(CPUDispatcher):  # type: ignore[misc]
    """A compiled function that Python can call only through another one made for that."""

    @functools.cached_property
    def _entry(self) -> Callable[..., Any]:
        inner = self
        return numba.njit(error_model="numpy")(lambda *arguments: inner(*arguments))  # type: ignore[no-any-return]

    def __call__(self, *arguments: Any) -> Any:
        return self._entry(*arguments)


def compiled_inner(function: Function) -> Function:
    """Like `compiled`, without the wrapper for calls from Python, a quarter of the compile time.

    A call from Python, in a test, still works.
    """
    dispatcher: Any = compiled(function, no_cpython_wrapper=True)
    if JIT:
        dispatcher.__class__ = _Inner
    return dispatcher  # type: ignore[no-any-return]


class Loads(NamedTuple):
    """Number of versions of functions that this process compiled, and that it read from disk."""

    compiled: int
    cached: int


def loads(*functions: Any) -> Loads:
    """Return the loads of compiled functions."""
    stats = [function.stats for function in functions]
    return Loads(
        sum(sum(one.cache_misses.values()) for one in stats),
        sum(sum(one.cache_hits.values()) for one in stats),
    )


def cache_folder(function: Any) -> str:
    """Return the folder on disk with the code of a compiled function."""
    path: str = function.stats.cache_path
    return path
