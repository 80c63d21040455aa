"""Error classes, with one grammar for all messages: the argument, what it must be, what it is.

Messages read ``argument 'depth' must be an integer from 0 to 29, got -1``. Almost every class
derives from ValueError or TypeError. The others derive from ImportError (a missing extra),
MemoryError (too little memory) or RuntimeError (a wrong output, or a cluster). So callers need
these names only to distinguish the cases.
"""

from __future__ import annotations

import importlib
import reprlib
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import numpy as np

__all__ = [
    "ArgumentError",
    "ArgumentTypeError",
    "CheckpointError",
    "ClusterError",
    "DataError",
    "MissingExtraError",
    "NotEnoughMemoryError",
    "ShapeError",
    "WrongOutputError",
]


class ArgumentError(ValueError):
    """An argument of the right type has an impossible value."""


class ShapeError(ArgumentError):
    """An array has the wrong shape."""


class ArgumentTypeError(TypeError):
    """An argument has the wrong type."""


class CheckpointError(ValueError):
    """A file or a mapping of arrays is not the expected model."""


class DataError(ValueError):
    """A file does not hold the expected table of data.

    Messages name the location: ``file 'a.csv', line 7, column 3 ('age'): must be a number, got
    'x'``.
    """


class MissingExtraError(ImportError):
    """An optional dependency is not installed."""


class NotEnoughMemoryError(MemoryError):
    """Something needs more memory than this process can get; nothing of it was taken."""


class ClusterError(RuntimeError):
    """A cluster cannot continue a training run: no worker is left, or one has another fffcpu."""


class WrongOutputError(RuntimeError):
    """A result that is to be timed is wrong."""


_MOST_NAMES = 8

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def list_names(names: Iterable[object]) -> str:
    """Return names in quotes, at most a line of them."""
    quoted = [repr(name) for name in names]
    more = len(quoted) - _MOST_NAMES
    if more > 0:
        quoted[_MOST_NAMES:] = [f"and {more} more"]
    return ", ".join(quoted)


def describe(value: Any) -> str:
    """Return a short description of a value for error messages.

    Arrays are described by shape and dtype, long values are cut.
    """
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(shape, tuple) and dtype is not None and not isinstance(value, np.generic):
        return f"an array of shape {shape} and dtype {dtype}"
    text = _SHORT.repr(value)
    if isinstance(value, (int, float, str, bool, type(None))):
        return text
    return f"{text} ({type(value).__name__})"


def require_extra(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or raise an error that shows how to install it.

    Parameters
    ----------
    module : str
        Name of the module to import.
    extra : str
        The extra of fffcpu that installs it.

    Raises
    ------
    MissingExtraError
        If the module is not installed; the message contains the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"module '{error.name}' is not installed; "
            f"install it with: pip install 'fffcpu[{extra}]'"
        ) from error
