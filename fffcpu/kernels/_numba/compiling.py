"""Compiles functions, beyond Numba's public interface.

Every compiled function of Numba has a wrapper for Python, which functions that only compiled code
calls do not need. And Numba reads its environment again whenever it compiles (`settings`).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from numba.core.registry import CPUDispatcher

from fffcpu.kernels._numba.cache import KernelCache
from fffcpu.kernels._numba.settings import JIT, held

__all__ = ["Loads", "cache_folder", "compiled", "compiled_inner", "loads"]

Function = TypeVar("Function", bound=Callable[..., Any])


class _Compiled(CPUDispatcher):  # type: ignore[misc]  # numba has no type information
    """A compiled function, whatever the environment has become since Numba was imported."""

    def compile(self, sig: Any) -> Any:
        with held():
            return super().compile(sig)


class _Inner(_Compiled):
    """A compiled function that Python can call only through another one made for that."""

    @functools.cached_property
    def _entry(self) -> Callable[..., Any]:
        inner = self
        return _dispatcher(_Compiled, lambda *arguments: inner(*arguments))

    def __call__(self, *arguments: Any) -> Any:
        return self._entry(*arguments)


def _dispatcher(kind: type[_Compiled], function: Callable[..., Any], **flags: Any) -> _Compiled:
    """Return what ``numba.njit`` would, which returns the plain function if JIT is off by now."""
    options = {"nopython": True, "boundscheck": None, "error_model": "numpy", **flags}
    return kind(py_func=function, locals={}, targetoptions=options)


def _kept(kind: type[_Compiled], function: Function, **flags: Any) -> Function:
    """Return a function that is compiled at its first call and keeps its code on disk."""
    if not JIT:
        return function
    dispatcher = _dispatcher(kind, function, nogil=True, no_cfunc_wrapper=True, **flags)
    # Inner functions are many, and compiled as part of a kernel.
    dispatcher._cache = KernelCache(function, logging.DEBUG if kind is _Inner else logging.INFO)
    return dispatcher


def compiled(function: Function, **flags: Any) -> Function:
    """Return a function that is compiled at its first call and keeps its code on disk.

    ``flags`` are those of ``numba.njit``. No ``fastmath``: reassociation would give one row
    different bits in different kernels.
    """
    return _kept(_Compiled, function, **flags)


def compiled_inner(function: Function, **flags: Any) -> Function:
    """Like `compiled`, without the wrapper for calls from Python, a quarter of the compile time.

    A call from Python, in a test, still works.
    """
    return _kept(_Inner, function, no_cpython_wrapper=True, **flags)


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


def cache_folder(function: Any) -> str | None:
    """Return the folder on disk with the code of a compiled function, or None if it has none."""
    path: str | None = function.stats.cache_path
    return path
