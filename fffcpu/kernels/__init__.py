"""Kernels, in modules that can stand in for each other, and the choice between them.

Every backend module has the functions in `FUNCTIONS`, with the signatures and the behaviour that
`fffcpu.kernels.vectorized` documents. ``pytest --kernel MODULE`` checks any module against the
oracle. `choose` picks one; the environment variable ``FFFCPU_BACKEND``, read at the first call,
forces one: the name of a module here (``vectorized``, ``rowwise``, ``cuda``) or the dotted name of
any other.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from types import ModuleType

from fffcpu.config import check_integer
from fffcpu.errors import ArgumentError

__all__ = [
    "BACKENDS",
    "EXTRA_BACKENDS",
    "FUNCTIONS",
    "choose",
    "get_num_threads",
    "load_backend",
    "set_num_threads",
]

BACKENDS = ("rowwise", "vectorized")
"""The backend modules here, the fastest first."""

EXTRA_BACKENDS = ("cuda",)
"""Those that need an extra, and are used only where they are named."""

FUNCTIONS = (
    "path_logits",
    "path_infer",
    "path_forward",
    "path_backward",
    "leaf_route",
    "leaf_infer",
)
"""What every backend module exports."""


def load_backend(name: str) -> ModuleType:
    """Import a backend module by its name here, or by a dotted name from anywhere.

    Raises
    ------
    ArgumentError
        If there is no such module, or it lacks one of `FUNCTIONS`.
    MissingExtraError
        If the module needs what an extra installs, or a GPU, and it is not there.
    """
    here = (*BACKENDS, *EXTRA_BACKENDS)
    known = ", ".join(repr(backend) for backend in here)
    expected = f"argument 'name' of a backend must be {known} or the dotted name of a module"
    if not all(part.isidentifier() for part in name.split(".")):
        raise ArgumentError(f"{expected}, got '{name}'")
    try:
        module = importlib.import_module(f"{__name__}.{name}" if name in here else name)
    except ModuleNotFoundError as error:
        raise ArgumentError(f"{expected}, got '{name}' ({error})") from error
    missing = [function for function in FUNCTIONS if not hasattr(module, function)]
    if missing:
        raise ArgumentError(f"{expected} that has {', '.join(missing)}, got '{name}'")
    return module


@functools.cache
def choose() -> ModuleType:
    """Return the backend module to use.

    That is the one ``FFFCPU_BACKEND`` names, else the row kernels, or plain NumPy where Numba is
    not installed.
    """
    forced = os.environ.get("FFFCPU_BACKEND")
    if forced:
        try:
            return load_backend(forced)
        except ArgumentError as error:
            raise ArgumentError(f"environment variable FFFCPU_BACKEND: {error}") from error
    return load_backend("rowwise" if importlib.util.find_spec("numba") else "vectorized")


def get_num_threads() -> int:
    """Return how many threads a kernel may use."""
    if not importlib.util.find_spec("numba"):
        return 1
    from fffcpu.kernels import jit

    return jit.threads()


def set_num_threads(threads: int) -> None:
    """Set how many threads a kernel may use, in this process, from now on.

    Results do not depend on it, to the bit. The default, and the most there can be, is Numba's:
    ``NUMBA_NUM_THREADS``, or the CPUs this process may run on.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If ``threads`` is not an integer from 1 to that number.
    """
    if not importlib.util.find_spec("numba"):
        check_integer("threads", threads, 1, 1)
        return
    from fffcpu.kernels import jit

    jit.set_threads(threads)
