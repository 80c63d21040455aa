"""Numba's settings, which stay the same while kernels compile.

Numba reads its environment again whenever it compiles anything, and not when it finds machine code
on disk. A variable that changed meanwhile would change what kernels do, or raise an error once the
pool has started, but only in processes that happen to compile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numba
from numba.core import config
from numba.core.compiler_lock import global_compiler_lock

__all__ = ["JIT", "held"]

JIT = not numba.config.DISABLE_JIT
"""False if ``NUMBA_DISABLE_JIT=1`` turns kernels into plain Python, for debugging."""


class _Anything(dict[str, str]):
    """An environment that every other one equals."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Context in which Numba reads no variable again: to it, the environment has not changed.

    Afterwards the caller's own functions see a change as Numba documents.
    """
    reloader: Any = config._env_reloader
    with global_compiler_lock:  # which every compilation needs
        before, reloader.old_environ = reloader.old_environ, _Anything()
        try:
            yield
        finally:
            reloader.old_environ = before
