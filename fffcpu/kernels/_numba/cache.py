"""Machine code on disk, which any user who can read it may use.

Numba's own cache checks only the file that defines a function, and with some versions only the time
of its last change. It passes over a folder that it cannot write, though another user has filled it.
It raises an error if no folder can be written, and trusts the files there.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, NullCache

__all__ = ["FOUNDATIONS", "KernelCache", "fingerprint", "sources"]

_LOGGER = logging.getLogger(__name__)

COMPILING = "compiling %s"
"""Message of the log when a kernel is not on disk. The command line waits for it, by these words,
because it imports no kernels."""

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


def _stamp(function: Callable[..., Any], locator: Any) -> tuple[Any, str]:
    """Return what makes a function's code on disk valid: contents of sources, never their times."""
    try:
        own: Any = hashlib.sha256(Path(inspect.getfile(function)).read_bytes()).hexdigest()
    except OSError:  # a notebook's cell or a file in an archive, which Numba knows how to read
        own = locator.get_source_stamp()
    return own, fingerprint()


class _Writable:
    """Mixin of Numba's locators of folders: one that can be written."""

    writes = True

    def ensure_cache_path(self) -> None:
        folder = self.get_cache_path()  # type: ignore[attr-defined]
        if folder.startswith("~") and not folder.startswith(numba.config.CACHE_DIR or os.sep):
            raise OSError("the home folder is unknown")  # a folder named "~" would be made here
        super().ensure_cache_path()  # type: ignore[misc]


class _Readable:
    """Mixin of Numba's locators of folders: one that can be read, and perhaps not written."""

    writes = False

    def ensure_cache_path(self) -> None:
        os.scandir(self.get_cache_path()).close()  # type: ignore[attr-defined]


@functools.cache
def _kinds() -> tuple[type, ...]:
    """Return Numba's kinds of folders in its order, each one to write, then to read."""
    return tuple(
        type(kind.__name__, (access, kind), {})
        for kind in CompileResultCacheImpl._locator_classes
        for access in (_Writable, _Readable)
    )


class _Folder(FunctionCache):  # type: ignore[misc]  # numba has no type information
    """A function's code in one folder, whose failures never make a load fail.

    Raises
    ------
    RuntimeError
        If there is no folder of this kind for the function.
    """

    def __init__(self, function: Callable[..., Any], kind: type) -> None:
        self._impl_class = type("_Impl", (CompileResultCacheImpl,), {"_locator_classes": [kind]})
        super().__init__(function)
        locator = self._impl.locator
        self.writes = getattr(locator, "writes", True)  # false only of those that we made
        self._cache_file._source_stamp = _stamp(function, locator)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            found = super().load_overload(sig, target_context)
            # Two processes that fill one cache may leave an entry that leads to the other's code.
            return found if found is None or tuple(found.signature.args) == tuple(sig) else None
        except Exception:  # noqa: BLE001  # a damaged file raises anything; compiling mends it
            if self.writes:
                with contextlib.suppress(OSError):
                    self.flush()  # saving reads the index again
            return None


class KernelCache(NullCache):  # type: ignore[misc]
    """A function's code in the folders of this process; nothing about it makes a call fail.

    Code is read from every folder up to the first that can be written, which keeps new code. So a
    warm cache of another user is read, whether or not this process has a folder of its own.

    Parameters
    ----------
    function : callable
        The function.
    level : int
        Level of the log for its compilation.
    """

    def __init__(self, function: Callable[..., Any], level: int) -> None:
        self._kernel = f"{function.__module__}.{function.__qualname__}"
        self._level = level
        self._began = 0.0  # compiling
        self.folders: list[_Folder] = []
        self._refusal = _refusal(function)
        for kind in _kinds():
            with contextlib.suppress(RuntimeError):  # no folder of this kind
                self.folders.append(_Folder(function, kind))
                if self.folders[-1].writes:
                    break

    @property
    def cache_path(self) -> str | None:
        """The folder that keeps new code, else the first that is read; None without any."""
        ordered = sorted(self.folders, key=lambda folder: not folder.writes)
        return ordered[0].cache_path if ordered else None

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the code for a signature from the first folder that has it, or None."""
        for folder in self.folders:
            code = folder.load_overload(sig, target_context)
            if code is not None:
                _LOGGER.debug("read %s from %s", self._kernel, folder.cache_path)
                return code
        self._began = time.perf_counter()
        _LOGGER.debug(COMPILING, self._kernel)
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep new code, or warn that it cannot be kept."""
        seconds = time.perf_counter() - self._began
        _LOGGER.log(self._level, "compiled %s in %.2f s", self._kernel, seconds)
        if not self.folders or not self.folders[-1].writes:
            _warn_uncached(self._refusal)
            return
        try:
            self.folders[-1].save_overload(sig, data)
        except OSError as error:
            _warn_uncached(f"{error.strerror}; set NUMBA_CACHE_DIR to another writable folder")


def _refusal(function: Callable[..., Any]) -> str:
    """Return what to say, and what to do, if no folder can be written for a function."""
    file, named = inspect.getfile(function), numba.config.CACHE_DIR
    if file.startswith("<"):
        return f"kernel '{function.__name__}' is not defined in a file; move it to a module"
    if not named:
        return (
            "NUMBA_CACHE_DIR is not set, and this user can write neither next to the sources nor "
            "to a home folder; set NUMBA_CACHE_DIR to a writable folder"
        )
    return (
        f"NUMBA_CACHE_DIR is set to '{named}', which this user cannot write; make it writable, or "
        "run 'fffcpu warmup' as a user who can write it, on this model of processor, with "
        "--training if this process trains"
    )


@functools.cache  # one warning per process, not one per kernel
def _warn_uncached(reason: str) -> None:
    warnings.warn(
        f"compiled kernels cannot be kept on disk, so every process compiles them again: {reason}",
        RuntimeWarning,
        stacklevel=2,
    )
