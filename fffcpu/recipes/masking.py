"""Masking: the choice of the tokens that a masked language model has to guess.

As in "Cramming" (arXiv 2212.14034, section 4.2), after BERT (arXiv 1810.04805): in each sequence,
exactly ``round(share * S)`` positions are to be guessed. There, the model sees the mask token in
80% of the cases, a random token in 10%, and the token itself in the rest::

    tokens      the   cat   sat   on    the   mat
    input_ids   the  [MASK] sat   on    rose  mat
    labels      -100  cat   -100  -100  the   -100
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.checks import IGNORED_LABEL, check_integer, check_number
from fffcpu.errors import ShapeError, describe

__all__ = ["mask_tokens"]

MASKED, REPLACED = 0.8, 0.1
"""Shares of the positions to guess that become the mask token, and a random token."""


def mask_tokens(
    tokens: NDArray[Any],
    rng: np.random.Generator,
    *,
    mask_id: int,
    vocabulary: int,
    share: float = 0.25,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose the positions to guess, and hide their tokens.

    Parameters
    ----------
    tokens : array of integers of shape (B, S)
        Sequences without padding.
    rng : numpy.random.Generator
        Random generator for the choice.
    mask_id : int
        The mask token.
    vocabulary : int
        Random tokens are below this.
    share : float
        Share of each sequence to guess, from 0 to 1.

    Returns
    -------
    input_ids : int64 array of shape (B, S)
        The tokens that the model sees.
    labels : int64 array of shape (B, S)
        The tokens to guess, and -100 elsewhere.

    Raises
    ------
    ArgumentError, ArgumentTypeError, ShapeError
        If an argument is out of range or has another shape.
    """
    if tokens.ndim != 2 or tokens.dtype.kind not in "iu":
        raise ShapeError(
            f"argument 'tokens' must be integers of shape (B, S), got {describe(tokens)}"
        )
    check_integer("vocabulary", vocabulary, 1)
    check_integer("mask_id", mask_id, 0, vocabulary - 1)
    check_number("share", share, 0.0, 1.0)
    batch, length = tokens.shape
    count = round(share * length)
    # The first `count` positions of a random order are a random choice without repetition.
    chosen = rng.random((batch, length)).argsort(axis=1)[:, :count]
    rows = np.arange(batch)[:, np.newaxis]
    input_ids = tokens.astype(np.int64)
    labels = np.full((batch, length), IGNORED_LABEL)
    labels[rows, chosen] = input_ids[rows, chosen]
    kinds = rng.random((batch, count))
    random_tokens = rng.integers(0, vocabulary, (batch, count))
    seen = np.where(kinds < MASKED, mask_id, input_ids[rows, chosen])
    replaced = (kinds >= MASKED) & (kinds < MASKED + REPLACED)
    input_ids[rows, chosen] = np.where(replaced, random_tokens, seen)
    return input_ids, labels
