"""Kernels, in interchangeable backend modules, and the choice between them.

Every backend module has the functions in `FUNCTIONS`, with the signatures and the behaviour that
`fffcpu.kernels.backends.vectorized` documents. ``pytest --kernel MODULE`` checks any module against
the oracle. `choose` picks one. The environment variable ``FFFCPU_BACKEND`` overrides the choice; it
is read at the first call. Its value is the name of a module here (``grouped``, ``rowwise``,
``vectorized``, ``cuda``) or the dotted name of any other.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from numpy.typing import NDArray

from fffcpu.errors import ArgumentError
from fffcpu.kernels.crossover import FEWEST_ROWS, groups_leaves, groups_paths
from fffcpu.system.compiler import has_numba
from fffcpu.system.threads import get_num_threads

__all__ = [
    "BACKENDS",
    "EXTRA_BACKENDS",
    "FUNCTIONS",
    "Selection",
    "backend_for_many",
    "choose",
    "load_backend",
    "selection",
]

_LOGGER = logging.getLogger(__name__)

BACKENDS = ("grouped", "rowwise", "vectorized")
"""The backend modules in this package."""

EXTRA_BACKENDS = ("cuda",)
"""Backends that need an extra, and are used only if they are named."""

FUNCTIONS = (
    "path_logits",
    "path_infer",
    "path_forward",
    "path_choices",
    "path_backward",
    "leaf_route",
    "leaf_infer",
)
"""Functions that every backend module exports."""


def load_backend(name: str) -> ModuleType:
    """Import a backend module by its name here, or by a dotted name from anywhere.

    Raises
    ------
    ArgumentError
        If there is no such module, or it lacks one of `FUNCTIONS`.
    MissingExtraError
        If the module needs an extra or a GPU that is missing.
    """
    here = (*BACKENDS, *EXTRA_BACKENDS)
    known = ", ".join(repr(backend) for backend in here)
    expected = f"argument 'name' of a backend must be {known} or the dotted name of a module"
    if not all(part.isidentifier() for part in name.split(".")):
        raise ArgumentError(f"{expected}, got '{name}'")
    try:
        module = importlib.import_module(f"{__name__}.backends.{name}" if name in here else name)
    except ModuleNotFoundError as error:
        raise ArgumentError(f"{expected}, got '{name}' ({error}{_hint(name, error)})") from error
    missing = [function for function in FUNCTIONS if not hasattr(module, function)]
    if missing:
        raise ArgumentError(f"{expected} that has {', '.join(missing)}, got '{name}'")
    return module


def _hint(name: str, error: ModuleNotFoundError) -> str:
    """Return how Python finds a backend that is in the current folder; nothing if it is not."""
    own = f"{name}.".startswith(f"{error.name}.")  # not a module that the backend imports
    path = Path(*name.split("."))
    if not own or not any(
        file.is_file() for file in (path.with_suffix(".py"), path / "__init__.py")
    ):
        return ""
    return "; Python searches the current folder if the variable PYTHONPATH is '.'"


class Selection(NamedTuple):
    """The modules that this process computes with."""

    few: ModuleType
    """Backend module for few rows."""
    many: ModuleType
    """Backend module for many rows."""
    encoder: ModuleType
    """Row operations of encoders: `fffcpu.kernels.encoder.fused`, or ``vectorized`` next to it."""
    adam: ModuleType | None
    """`fffcpu.kernels.adam`, or None if nothing compiles."""

    @property
    def compiles(self) -> bool:
        """Whether calls of kernels compile anything."""
        return self.adam is not None


@functools.cache
def selection() -> Selection:
    """Decide, at the first call, what this process computes with.

    Only this function checks whether anything compiles, and reads ``FFFCPU_BACKEND``.

    Raises
    ------
    ArgumentError, MissingExtraError
        If ``FFFCPU_BACKEND`` names no backend, or one that cannot run here.
    """
    forced = os.environ.get("FFFCPU_BACKEND")
    numba = has_numba()
    few, many = _forced(forced) if forced else _backends(numba)
    chosen = _with_rows(few, many, compiles=numba and forced != "vectorized")
    # Without compiled kernels nobody asked for Numba, so the number of threads is not looked up.
    computing = f"compiled, {get_num_threads()} threads" if chosen.compiles else "not compiled"
    reason = f"FFFCPU_BACKEND={forced}" if forced else "Numba" if numba else "without Numba"
    names = few.__name__, many.__name__
    _LOGGER.info("backends %s for few rows and %s for many (%s), %s", *names, reason, computing)
    return chosen


def _with_rows(few: ModuleType, many: ModuleType, *, compiles: bool) -> Selection:
    """Return the selection with these backends and the row operations that go with them."""
    from fffcpu.kernels.encoder import vectorized

    if not compiles:
        return Selection(few, many, vectorized, None)
    from fffcpu.kernels.jit import JIT

    if not JIT:
        return Selection(few, many, vectorized, None)
    from fffcpu.kernels import adam
    from fffcpu.kernels.encoder import fused

    return Selection(few, many, fused, adam)


def _forced(name: str) -> tuple[ModuleType, ModuleType]:
    """Return the backend module that ``FFFCPU_BACKEND`` names, for few rows and for many."""
    try:
        module = load_backend(name)
    except ArgumentError as error:
        raise ArgumentError(f"environment variable FFFCPU_BACKEND: {error}") from error
    return module, module


def _backends(numba: bool) -> tuple[ModuleType, ModuleType]:
    """Return the backend modules for few rows and for many, with Numba or without."""
    names = ("rowwise", "grouped") if numba else ("vectorized", "vectorized")
    few, many = map(load_backend, names)
    return few, many


def choose(rows: int = 1, weights_in: NDArray[Any] | None = None, leaves: int = 0) -> ModuleType:
    """Return the backend module to use.

    That is the one that ``FFFCPU_BACKEND`` names, or plain NumPy if Numba is not installed.
    Otherwise it is the row kernels, or the grouped ones, which give the same bits, where
    measurements show that they are faster (docs/kernels.md).

    Parameters
    ----------
    rows : int
        Number of rows of the batch.
    weights_in : array of shape (T, N, I), optional
        Input weights of a FastFeedForward.
    leaves : int
        Number of leaves K of a LeafFeedForward; 0 for FastFeedForward.
    """
    chosen = selection()
    if rows < FEWEST_ROWS or chosen.few is chosen.many:
        return chosen.few  # at once, since a single row takes only microseconds
    if _always_many.get():
        return chosen.many
    if leaves:
        return chosen.many if groups_leaves(rows, leaves) else chosen.few
    if weights_in is None:
        return chosen.few
    grouped = groups_paths(rows, get_num_threads(), *weights_in.shape)
    return chosen.many if grouped else chosen.few


_always_many: ContextVar[bool] = ContextVar("always_many", default=False)


@contextlib.contextmanager
def backend_for_many() -> Iterator[None]:
    """Context in which calls of `FEWEST_ROWS` rows or more take the backend for many rows.

    A warm-up reaches its kernels so, whatever the layer and the number of threads.
    """
    token = _always_many.set(True)
    try:
        yield
    finally:
        _always_many.reset(token)
