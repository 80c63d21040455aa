"""Texts of several lengths in one array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["padded"]


def padded(
    rows: Sequence[Sequence[int]], padding_id: int
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Fill rows of tokens up to the longest, of at least one row.

    Parameters
    ----------
    rows : sequence of sequences of int
        B rows.
    padding_id : int
        The token that fills them up.

    Returns
    -------
    input_ids : int array of shape (B, S)
    attention_mask : bool array of shape (B, S)
        Which are no padding.
    """
    lengths = np.array([len(row) for row in rows])
    real = np.arange(lengths.max()) < lengths[:, np.newaxis]
    ids = np.full(real.shape, padding_id, np.intp)
    ids[real] = np.concatenate(rows)
    return ids, real
