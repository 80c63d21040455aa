"""Texts of several lengths in arrays: padded, in batches of texts of about the same length.

Texts are sorted by length and computed in batches of up to `TOKENS` tokens. No text is shorter than
its batch's longest by more than one part in `PADDING`, so at most that part of a batch is padding::

    texts   7 3 8 3 4        their lengths
    batches [8 7] [4] [3 3]  where PADDING is 8
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "PADDING",
    "TOKENS",
    "Row",
    "batches_by_length",
    "compute_batches",
    "compute_by_length",
    "padded",
]

Row: TypeAlias = Sequence[int] | NDArray[np.integer[Any]]
"""The tokens of a text."""

TOKENS = 2048
"""Largest number of tokens per batch, padding included, unless a single text has more."""

PADDING = 8
"""At most one part in `PADDING` of a batch is padding."""


def padded(rows: Sequence[Row], padding_id: int) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Pad rows of tokens to the length of the longest; at least one row.

    Parameters
    ----------
    rows : sequence of sequences or arrays of int
        B rows.
    padding_id : int
        The token to pad with.

    Returns
    -------
    input_ids : int array of shape (B, S)
    attention_mask : bool array of shape (B, S)
        True for tokens, False for padding.
    """
    lengths = np.array([len(row) for row in rows])
    real = np.arange(lengths.max()) < lengths[:, np.newaxis]
    ids = np.full(real.shape, padding_id, np.intp)
    ids[real] = np.concatenate(rows)
    return ids, real


def batches_by_length(
    lengths: Sequence[int], padding: int = PADDING, tokens: int = TOKENS
) -> Iterator[list[int]]:
    """Yield the numbers of the rows of each batch of about one length, the longest first.

    Parameters
    ----------
    lengths : sequence of int
        Tokens of each row.
    padding : int
        One part in ``padding`` of a batch may be padding; 0 allows none.
    tokens : int
        Largest number of tokens per batch, padding included, unless a single row has more.
    """
    batch: list[int] = []
    longest = 0
    for k in sorted(range(len(lengths)), key=lambda k: -lengths[k]):
        allowed = longest // padding if padding else 0
        if batch and ((len(batch) + 1) * longest > tokens or longest - lengths[k] > allowed):
            yield batch
            batch = []
        if not batch:
            longest = lengths[k]
        batch.append(k)
    if batch:
        yield batch


def compute_by_length(
    rows: Sequence[Row],
    padding_id: int,
    compute: Callable[[NDArray[np.intp], NDArray[np.bool_]], Iterable[Any]],
    padding: int = PADDING,
) -> list[Any]:
    """Return a result for each row of tokens, computed in batches of about one length.

    Parameters
    ----------
    rows, padding_id
        As for `padded`, but there may be no row.
    padding
        As for `batches_by_length`.
    compute : callable
        Function of the arrays that `padded` returns; it returns a result for each row.
    """
    results: list[Any] = [None] * len(rows)
    compute_batches(
        results, batches_by_length(list(map(len, rows)), padding), rows, padding_id, compute
    )
    return results


def compute_batches(
    results: list[Any],
    batches: Iterable[list[int]],
    rows: Sequence[Row],
    padding_id: int,
    compute: Callable[[NDArray[np.intp], NDArray[np.bool_]], Iterable[Any]],
) -> None:
    """Write the results of the rows of some batches, which hold their numbers.

    The other parameters are those of `compute_by_length`.
    """
    for numbers in batches:
        ids, real = padded([rows[k] for k in numbers], padding_id)
        for k, result in zip(numbers, compute(ids, real), strict=True):
            results[k] = result
