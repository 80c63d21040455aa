"""Encoders timed side by side: batches of random tokens, all of one length.

A call has a shape, a number of texts and of their tokens; figures are microseconds per token.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.benchmarking.timing import Contender, Timing, alternate, cycling
from fffcpu.errors import ArgumentError

__all__ = ["Shape", "time_encoders"]

Array = NDArray[Any]
Encoder = Callable[[Array, Array], object]
"""Maps tokens (B, S) and the attention mask, all of it 1, to hidden states."""

BATCHES = 4
"""Number of batches that the calls take in turn."""


class Shape(NamedTuple):
    """The shape of a call."""

    texts: int
    tokens: int
    """Number of tokens per text."""

    @classmethod
    def parse(cls, text: str) -> Shape:
        """Return the shape that a text such as ``"8x128"`` names."""
        found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
        if found is None:
            raise ArgumentError(
                f"argument 'shape' must be texts x tokens, such as '8x128', got '{text}'"
            )
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.texts}x{self.tokens}"


def time_encoders(
    encoders: Mapping[str, Encoder],
    shape: Shape,
    vocabulary: int,
    repeats: int = 7,
    seconds: float = 0.1,
) -> list[Timing]:
    """Time encoders in alternation, on the same batches of random tokens.

    Parameters
    ----------
    encoders : mapping of str to callable
        The encoders by name.
    shape : Shape
        Shape of the calls.
    vocabulary : int
        Tokens are below this number.
    repeats, seconds
        As for `alternate`.

    Returns
    -------
    list of Timing
        A timing for each encoder. Its rows are tokens.
    """
    batches = random_tokens(shape, vocabulary)
    masks = [np.ones(shape, np.int64)]
    contenders = [
        Contender(name, cycling(run, batches, masks), shape.texts * shape.tokens)
        for name, run in encoders.items()
    ]
    return alternate(contenders, repeats, seconds)


def random_tokens(shape: Shape, vocabulary: int) -> Sequence[Array]:
    """Return some batches of random tokens."""
    rng = np.random.default_rng(0)
    return list(rng.integers(0, vocabulary, (BATCHES, *shape)))
