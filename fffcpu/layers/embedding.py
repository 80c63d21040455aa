"""Embedding, and LearnedEmbedding: a vector for each token, plus one for its position.

The positions of Embedding are scaled sines and cosines:
``y[b, s] = words[id] + position_scale * table[s]``, where column 2c of the table is
``sin(s / 10000**(2c / D))`` and column 2c + 1 is the cosine of the same argument (arXiv 1706.03762,
section 3.5; the scale is from arXiv 2202.10447).

The published table is computed in float32, including position times frequency. This table is
computed the same way, also in float64 models. The products lose digits as positions grow, but a
more exact table would differ from the published one.

LearnedEmbedding is that of BERT (arXiv 1810.04805). Positions have vectors of their own, and so has
the type of a token: ``y[b, s] = words[id] + positions[s] + types[type]``.

Shapes: B sequences of S positions, V tokens, D width, P vectors of positions, K types.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fffcpu import kernels
from fffcpu.checks import as_real_array, check_indices
from fffcpu.config import EmbeddingConfig, LearnedEmbeddingConfig
from fffcpu.errors import ArgumentTypeError, ShapeError, describe
from fffcpu.layers.layer import Module
from fffcpu.parameters import normal

__all__ = ["Embedding", "EmbeddingCache", "LearnedEmbedding", "LearnedEmbeddingCache"]

Array = NDArray[Any]


class EmbeddingCache(NamedTuple):
    """What `Embedding.forward` keeps for `Embedding.backward`."""

    ids: NDArray[np.int64]
    """The tokens (B, S)."""


class LearnedEmbeddingCache(NamedTuple):
    """What `LearnedEmbedding.forward` keeps for `LearnedEmbedding.backward`."""

    ids: NDArray[np.int64]
    """The tokens (B, S)."""
    types: NDArray[np.int64]
    """Their types (B, S); (0, 0) if all are of type 0."""


Config = TypeVar("Config", EmbeddingConfig, LearnedEmbeddingConfig)


class _TokenEmbedding(Module[Config]):
    """What both embeddings share: tokens, and the gradient of their vectors."""

    def as_tokens(self, ids: Any) -> NDArray[np.int64]:
        """Return tokens as an array, after checking that they exist.

        Parameters
        ----------
        ids : array_like of integers of shape (B, S)
            The tokens, S at most ``config.positions``.

        Returns
        -------
        int64 array of shape (B, S)
            The tokens, C-contiguous.

        Raises
        ------
        ShapeError, ArgumentTypeError, ArgumentError
            If ``ids`` is not such an array.
        """
        array = as_real_array(ids, "input_ids")
        longest = self.config.positions
        if array.ndim != 2 or not 1 <= array.shape[1] <= longest:
            raise ShapeError(
                "argument 'input_ids' must have shape (batch, sequence), with a sequence of 1 to "
                f"{longest} positions, got shape {array.shape}"
            )
        check_indices(array, "input_ids", self.config.vocabulary)
        return np.ascontiguousarray(array, np.int64)

    def _check_kind(self, cache: Any, kind: type) -> None:
        """Raise unless a cache is of the class that forward returns."""
        if not isinstance(cache, kind):
            raise ArgumentTypeError(
                f"argument 'cache' must be the {kind.__name__} that forward of this layer "
                f"returned, got {describe(cache)}"
            )

    def _word_gradient(
        self, ids: NDArray[np.int64], upstream: Array, d_words: Array | None
    ) -> Array:
        """Return the gradient of the words (V, D), given that of the rows (B S, D)."""
        if d_words is None:
            d_words = np.zeros_like(self.params["words"])
        tokens = self.as_tokens(ids).reshape(-1)
        looked_up = tokens != self.config.padding_id
        if not looked_up.all():
            tokens, upstream = tokens[looked_up], upstream[looked_up]
        kernels.selection().encoder.add_rows(d_words, tokens, upstream)
        return d_words

    def _start_words(self, std: float, rng: np.random.Generator) -> None:
        """Write the initial vectors of tokens."""
        normal(self.params["words"], std, rng)
        self.params["words"][self.config.padding_id] = 0


class Embedding(_TokenEmbedding[EmbeddingConfig]):
    """Token vectors and positions.

    Parameters
    ----------
    vocabulary : int
        Number of tokens V.
    width : int
        Width D, an even number.
    positions : int
        Length of the longest sequence.
    padding_id : int
        The token that pads sequences. Lookups of it add nothing to the gradient of its vector.
    dtype : {numpy.float32, numpy.float64}
        dtype of the parameters and outputs.
    rng : None, int or numpy.random.Generator
        Generator or seed of the initial values: ``words`` (V, D) are normal with standard
        deviation 0.02, the vector of the padding is 0; ``position_scale`` (1,) is 1/sqrt(D).

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type.
    """

    def __init__(
        self,
        vocabulary: int,
        width: int,
        positions: int,
        padding_id: int = 0,
        *,
        dtype: DTypeLike = np.float32,
        rng: Any = None,
    ) -> None:
        self._start(EmbeddingConfig(vocabulary, width, positions, padding_id, dtype=dtype), rng)

    def __call__(self, ids: Any) -> Array:
        """Return the vectors (B, S, D) of tokens, an array_like of integers of shape (B, S)."""
        return self.forward(ids)[0]

    def forward(self, ids: Any) -> tuple[Array, EmbeddingCache]:
        """Run the layer and keep the tokens, which `backward` needs.

        Raises
        ------
        ValueError, TypeError
            If ``ids`` are not integers from 0 to V - 1 of shape (B, S), with S from 1 to the
            number of positions.
        """
        tokens = self.as_tokens(ids)
        y: Array = self.params["words"][tokens]
        y += self.params["position_scale"] * self.positions(tokens.shape[1])
        return y, EmbeddingCache(tokens)

    def backward(
        self, dy: Any, cache: EmbeddingCache, d_words: Array | None = None
    ) -> dict[str, Array]:
        """Return the gradients by name.

        Parameters
        ----------
        dy : array_like of shape (B, S, D)
            Gradient of the loss with respect to the output.
        cache : EmbeddingCache
            Cache that `forward` returned.
        d_words : array of shape (V, D), optional
            Gradient of the words to add to, in place: that of a decoder with the same weights.
            Zeros by default.
        """
        self._check_kind(cache, EmbeddingCache)
        config = self.config
        upstream = self._upstream_rows(dy, cache.ids.shape, config.width)
        d_words = self._word_gradient(cache.ids, upstream, d_words)
        length = cache.ids.shape[1]
        d_positions = upstream.reshape(-1, length, config.width).sum(axis=0)
        d_scale = np.vdot(d_positions, self.positions(length)).astype(self._dtype)
        return {"words": d_words, "position_scale": d_scale.reshape(1)}

    def positions(self, length: int) -> Array:
        """Return the first rows of the table, in the dtype of the layer."""
        # Made for the next power of two: a config may name more positions than memory holds.
        rows = min(self.config.positions, 1 << (length - 1).bit_length())
        table = _sinusoids(rows, self.config.width)
        return table[:length].astype(self._dtype, copy=False)

    def _initialise(self, std: float, rng: np.random.Generator) -> None:
        self._start_words(std, rng)
        self.params["position_scale"][...] = 1 / math.sqrt(self.config.width)


class LearnedEmbedding(_TokenEmbedding[LearnedEmbeddingConfig]):
    """Vectors of tokens, of positions and of types.

    Parameters
    ----------
    vocabulary : int
        Number of tokens V.
    width : int
        Width D.
    positions : int
        Length P of the longest sequence.
    types : int
        Number of types K of a token.
    padding_id : int
        The token that pads sequences. Lookups of it add nothing to the gradient of its vector.
    dtype : {numpy.float32, numpy.float64}
        dtype of the parameters and outputs.
    rng : None, int or numpy.random.Generator
        Generator or seed of the initial values: ``words`` (V, D), ``positions`` (P, D) and
        ``types`` (K, D) are normal with standard deviation 0.02, the vector of the padding is 0.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type.
    """

    def __init__(
        self,
        vocabulary: int,
        width: int,
        positions: int,
        types: int = 2,
        padding_id: int = 0,
        *,
        dtype: DTypeLike = np.float32,
        rng: Any = None,
    ) -> None:
        config = LearnedEmbeddingConfig(
            vocabulary, width, positions, types, padding_id, dtype=dtype
        )
        self._start(config, rng)

    def __call__(self, ids: Any, types: Any = None) -> Array:
        """Return the vectors (B, S, D) of tokens; the arguments are those of `forward`."""
        return self.forward(ids, types)[0]

    def forward(self, ids: Any, types: Any = None) -> tuple[Array, LearnedEmbeddingCache]:
        """Run the layer and keep what `backward` needs.

        Parameters
        ----------
        ids : array_like of integers of shape (B, S)
            The tokens, S from 1 to P.
        types : array_like of integers of shape (B, S), optional
            Their types, from 0 to K - 1; 0 by default.

        Raises
        ------
        ValueError, TypeError
            If an argument is not such an array.
        """
        tokens = self.as_tokens(ids)
        kinds = self._as_types(types, tokens.shape)
        y: Array = self.params["words"][tokens]
        y += self.params["positions"][: tokens.shape[1]]
        y += self.params["types"][kinds] if kinds.size else self.params["types"][0]
        return y, LearnedEmbeddingCache(tokens, kinds)

    def backward(
        self, dy: Any, cache: LearnedEmbeddingCache, d_words: Array | None = None
    ) -> dict[str, Array]:
        """Return the gradients by name; the arguments are those of `Embedding.backward`."""
        self._check_kind(cache, LearnedEmbeddingCache)
        width, (batch, length) = self.config.width, cache.ids.shape
        upstream = self._upstream_rows(dy, (batch, length), width)
        d_words = self._word_gradient(cache.ids, upstream, d_words)
        d_positions, d_types = (np.zeros_like(self.params[n]) for n in ("positions", "types"))
        d_positions[:length] = upstream.reshape(batch, length, width).sum(axis=0)
        if cache.types.size:
            for kind in range(self.config.types):
                d_types[kind] = upstream[cache.types.reshape(-1) == kind].sum(axis=0)
        else:
            d_types[0] = d_positions.sum(axis=0)
        return {"words": d_words, "positions": d_positions, "types": d_types}

    def _as_types(self, types: Any, shape: tuple[int, ...]) -> NDArray[np.int64]:
        """Return the types of tokens, after a check; (0, 0) for None."""
        if types is None:
            return np.empty((0, 0), np.int64)
        array = as_real_array(types, "token_type_ids")
        if array.shape != shape:
            raise ShapeError(
                f"argument 'token_type_ids' must have shape {shape}, got shape {array.shape}"
            )
        check_indices(array, "token_type_ids", self.config.types)
        return np.ascontiguousarray(array, np.int64)

    def _initialise(self, std: float, rng: np.random.Generator) -> None:
        self._start_words(std, rng)
        for name in ("positions", "types"):
            normal(self.params[name], std, rng)


@functools.lru_cache(maxsize=8)
def _sinusoids(positions: int, width: int) -> NDArray[np.float32]:
    """Return the table (positions, D), read-only; each function is rounded to float32."""
    exponents = np.arange(0, width, 2, dtype=np.float32) * np.float32(-math.log(10000.0) / width)
    frequencies = np.exp(exponents.astype(np.float64)).astype(np.float32)
    angles = np.arange(positions, dtype=np.float32)[:, np.newaxis] * frequencies
    table = np.empty((positions, width), np.float32)
    table[:, 0::2] = np.sin(angles.astype(np.float64))
    table[:, 1::2] = np.cos(angles.astype(np.float64))
    table.flags.writeable = False
    return table
