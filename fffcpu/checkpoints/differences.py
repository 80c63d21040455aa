"""Differences between a mapping of arrays and what a config requires, as the text of one error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.config import ArraysConfig
from fffcpu.errors import CheckpointError
from fffcpu.lowbit import numpy_dtype

__all__ = ["check_arrays", "list_differences"]

_LONGEST_TEXT = 80
_MOST_DIFFERENCES = 20


def list_differences(expected: Mapping[str, str], came: Mapping[str, str]) -> str:
    """Return in one line how two mappings from names to descriptions differ.

    Parameters
    ----------
    expected, came : mapping of str to str
        Name and description, such as ``"float32 (7, 4)"``, of each array.

    Returns
    -------
    str
        All names that are missing, unexpected or different, separated by semicolons; empty if there
        are none. A long text is cut, because names and sizes may come from a hostile file.
    """
    lines = [f"missing {_quote(name)}" for name in expected if name not in came]
    lines += [f"unexpected {_quote(name)}" for name in came if name not in expected]
    lines += [
        f"{_quote(name)} must be {_cut(text)}, got {_cut(came[name])}"
        for name, text in expected.items()
        if name in came and came[name] != text
    ]
    more = len(lines) - _MOST_DIFFERENCES
    if more > 0:
        lines[_MOST_DIFFERENCES:] = [f"and {more} more"]
    return "; ".join(lines)


def check_arrays(config: ArraysConfig, arrays: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Return arrays in the config's order, after checking names, shapes and dtypes.

    Parameters
    ----------
    config : ArraysConfig
        Config of a layer or a model.
    arrays : mapping of str to array
        The arrays, not copied.

    Raises
    ------
    CheckpointError
        If the arrays do not have ``config.shapes()`` and ``config.dtypes()``; the message lists
        all differences.
    """
    given = {name: np.asarray(array) for name, array in arrays.items()}
    came = {name: f"{array.dtype.name} {array.shape}" for name, array in given.items()}
    types = {name: numpy_dtype(dtype).name for name, dtype in config.dtypes().items()}
    expected = {name: f"{types[name]} {shape}" for name, shape in config.shapes().items()}
    differences = list_differences(expected, came)
    if differences:
        raise CheckpointError(f"the arrays do not fit {config}: {differences}")
    return {name: given[name] for name in expected}


def _quote(name: Any) -> str:
    """Return a name in quotes, without control characters."""
    return _cut(repr(name))


def _cut(text: str) -> str:
    """Return a text of bounded length."""
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 3] + "..."
