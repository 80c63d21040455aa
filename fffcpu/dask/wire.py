"""Arrays in messages: whole, or only the rows that are not the same as before.

A batch visits some of a layer's nodes. The gradients of the others are 0, and where an optimizer
touches visited nodes only, their parameters stay what they were. Such rows are left out::

    array (..., W)        rows    values (R, W)
    | 0 0 0 0 0 0 0 |
    | 3 1 0 2 0 0 1 |       1     | 3 1 0 2 0 0 1 |
    | 0 0 0 0 0 0 0 |

Rows are compared by their bits, so that what arrives has the bits of what was sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.parameters import RowGradient
from fffcpu.training.trainer import StepResult

__all__ = ["Message", "SomeRows", "apply_changes", "changes", "pack_step", "unpack_step"]

Array = NDArray[Any]


class Message:
    """Content of a message. It is pickled as a whole, so that what is shared in it stays shared."""

    def __init__(self, content: Any) -> None:
        self.content = content


class SomeRows(NamedTuple):
    """Rows of an array of zeros, or of the array that it was before."""

    shape: tuple[int, ...]
    rows: NDArray[np.int64]
    """Numbers of the rows, over all axes but the last."""
    values: Array
    """(R, W)."""


def _rows_of(array: Array) -> Array:
    """Return an array as rows (R, W), without a copy where that is possible."""
    return array.reshape(-1, array.shape[-1] if array.ndim else 1)


def _select(array: Array, others: Array | None) -> Array | SomeRows:
    """Return an array, or those of its rows whose bits are not those of other rows, or of zeros."""
    if array.size == 0:
        return array
    rows = _rows_of(np.ascontiguousarray(array))
    bits = rows.view(np.uint8)
    differs = bits if others is None else bits != _rows_of(others).view(np.uint8)
    found = np.flatnonzero(differs.any(axis=1))
    if 2 * len(found) > len(rows):  # as good as all of them, with their numbers
        return array
    return SomeRows(array.shape, found, rows[found])


def _whole(packed: Array | SomeRows) -> Array:
    """Return the array of rows among zeros."""
    if not isinstance(packed, SomeRows):
        return packed
    array = np.zeros(packed.shape, packed.values.dtype)
    _rows_of(array)[packed.rows] = packed.values
    return array


# --- Gradients -----------------------------------------------------------------------------------


def pack_step(result: StepResult) -> StepResult:
    """Return the result of a step with arrays as they are sent."""
    grads = {
        name: grad if isinstance(grad, RowGradient) else _select(grad, None)
        for name, grad in result.grads.items()
    }
    return result._replace(grads=grads, usage=_each(_select, result.usage, None))


def unpack_step(result: StepResult) -> StepResult:
    """Return the result of a step that `pack_step` packed."""
    grads = {
        name: grad if isinstance(grad, RowGradient) else _whole(grad)
        for name, grad in result.grads.items()
    }
    return result._replace(grads=grads, usage=_each(_whole, result.usage))


def _each(function: Any, arrays: Mapping[str, Any], *arguments: Any) -> dict[str, Any]:
    """Return a function's values; names that share an array share its value."""
    values: dict[int, Any] = {}
    for array in arrays.values():
        if id(array) not in values:
            values[id(array)] = function(array, *arguments)
    return {name: values[id(array)] for name, array in arrays.items()}


# --- Parameters ----------------------------------------------------------------------------------


def changes(params: Mapping[str, Array], sent: Mapping[str, Array]) -> dict[str, Array | SomeRows]:
    """Return what is new in parameters, and note it in the copy of those that were sent.

    Parameters
    ----------
    params : mapping of str to array
        The parameters.
    sent : mapping of str to array
        C-contiguous copies of what the receivers have; changed.
    """
    found = {}
    for name, array in params.items():
        new = _select(array, sent[name])
        found[name] = new
        _put(sent[name], new)
    return found


def apply_changes(params: Mapping[str, Array], new: Mapping[str, Array | SomeRows]) -> None:
    """Change parameters to what `changes` found."""
    for name, values in new.items():
        _put(params[name], values)


def _put(array: Array, new: Array | SomeRows) -> None:
    if isinstance(new, SomeRows):
        _rows_of(array)[new.rows] = new.values
    else:
        array[...] = new
