"""Attention: every position takes from all others what it asks for.

Multi-head self-attention (arXiv 1706.03762, section 3.2) of each sequence by itself::

    qkv  = x weights_qkv^T                       queries, keys and values of all heads
    p    = softmax(q k^T / sqrt(W) + penalty)    (S, S) for each head
    y    = [p v of all heads] weights_out^T

with a penalty of -10000 for keys that are padding, so that their probability is 0. Neither
projection has a bias. The columns of qkv are those of one head after the other::

    head 0          head 1
    | q | k | v |   | q | k | v |   ...          W columns each

Shapes: B sequences of S positions, D width, A heads of width W = D / A.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fffcpu import kernels
from fffcpu.errors import ArgumentError, ShapeError
from fffcpu.fastbert_config import AttentionConfig
from fffcpu.inputs import as_real_array, as_rows
from fffcpu.layers.dropout import Dropout, DropoutCache
from fffcpu.layers.layer import Part
from fffcpu.parameters import generator, normal

__all__ = ["Attention", "AttentionCache"]

Array = NDArray[Any]

BLOCK_BYTES = 1 << 22
"""Sequences are taken through scores and softmax together as long as their scores fit into so many
bytes: a share of the caches."""

PENALTY = -10000.0
"""What is added to the scores of a key that is padding."""


class AttentionCache(NamedTuple):
    """What `Attention.forward` keeps for `Attention.backward`.

    That is ``5 D + A S`` numbers a position, x included; the probabilities, ``A S``, are the most
    for long sequences.
    """

    x: Array
    """Input rows (B S, D); the caller's own memory where no conversion was needed."""
    qkv: Array
    """Queries, keys and values (B S, 3 D)."""
    probabilities: Array
    """Probabilities of the keys for each query (B, A, S, S), before dropout."""
    context: Array
    """What the output projection takes (B S, D)."""
    dropped: tuple[DropoutCache, ...]
    """Dropout of the probabilities, for each block of sequences."""
    dropout: float
    """Its rate."""
    leading: tuple[int, int]
    """(B, S)."""


class Attention(Part[AttentionConfig]):
    """Multi-head self-attention.

    Parameters
    ----------
    width : int
        Width D of a position.
    heads : int
        Number of heads A, which divides D.
    dtype : {numpy.float32, numpy.float64}
        Of parameters and outputs.
    rng : None, int or numpy.random.Generator
        For the initial values: ``weights_qkv`` (3 D, D) and ``weights_out`` (D, D) are normal with
        standard deviation 0.02.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong kind.

    Notes
    -----
    Inference holds qkv, and scores of a few sequences at a time: at most 4 MiB, or one sequence.
    `forward` keeps the probabilities of all, ``B A S S`` numbers, in its cache, and as many bytes
    if there is dropout; `backward` takes another 4 MiB, or one sequence, and ``3 D`` numbers a
    position.
    """

    def __init__(
        self, width: int, heads: int, *, dtype: DTypeLike = np.float32, rng: Any = None
    ) -> None:
        self._start(AttentionConfig(width, heads, dtype=dtype), rng)

    def __call__(self, x: Any, mask: Any = None) -> Array:
        """Run the layer.

        Parameters
        ----------
        x : array_like of shape (B, S, D)
            Real numbers in any layout.
        mask : array_like of shape (B, S), optional
            1 for positions to keep, 0 for padding.

        Returns
        -------
        array of shape (B, S, D)
            The output; that of padding has no meaning.

        Raises
        ------
        ValueError, TypeError
            If an argument is not such an array.
        """
        rows, leading = self._sequences(x)
        penalties = self._penalties(mask, leading)
        queries, keys, values = self._split(rows @ self.params["weights_qkv"].T, leading)
        context = np.empty_like(rows)
        mixed = self._by_head(context, leading)
        for block in self._blocks(leading):
            p = self._probabilities(None, queries[block], keys[block], penalties[block])
            np.matmul(p, values[block], out=mixed[block])
        y: Array = context @ self.params["weights_out"].T
        return y.reshape(*leading, self.config.width)

    def forward(
        self, x: Any, mask: Any = None, dropout: float = 0.0, rng: Any = None
    ) -> tuple[Array, AttentionCache]:
        """Run the layer and keep what `backward` needs.

        Parameters
        ----------
        x : array_like of shape (B, S, D)
            Not to be changed before `backward`.
        mask : array_like of shape (B, S), optional
            1 for positions to keep, 0 for padding.
        dropout : float
            Probability with which a probability is dropped, a key for a query.
        rng : None, int or numpy.random.Generator
            For the dropout.

        Returns
        -------
        y : array of shape (B, S, D)
        cache : AttentionCache
            For `backward`.
        """
        rows, leading = self._sequences(x)
        penalties = self._penalties(mask, leading)
        drop, rng = Dropout(dropout), generator(rng) if dropout else None
        qkv = rows @ self.params["weights_qkv"].T
        queries, keys, values = self._split(qkv, leading)
        batch, length = leading
        probabilities = np.empty((batch, self.config.heads, length, length), self._dtype)
        context = np.empty_like(rows)
        mixed, dropped = self._by_head(context, leading), []
        for block in self._blocks(leading):
            p = probabilities[block]
            self._probabilities(p, queries[block], keys[block], penalties[block])
            weights, drop_cache = drop.forward(p, rng)
            np.matmul(weights, values[block], out=mixed[block])
            dropped.append(drop_cache)
        y = context @ self.params["weights_out"].T
        cache = AttentionCache(rows, qkv, probabilities, context, tuple(dropped), dropout, leading)
        return y.reshape(*leading, self.config.width), cache

    def backward(self, dy: Any, cache: AttentionCache) -> tuple[Array, dict[str, Array]]:
        """Return ``dx`` of shape (B, S, D) and the gradients by name, from ``dy`` of (B, S, D).

        Notes
        -----
        With ``c`` the context of a head and ``dc`` its gradient: ``dv = p^T dc``,
        ``dp = dc v^T``, ``ds = p (dp - sum of p dp) / sqrt(W)`` for each query, ``dq = ds k`` and
        ``dk = ds^T q`` (docs/mathematics.md derives them).
        """
        width, heads = self.config.width, self.config.heads
        rows = {"x": (width,), "qkv": (3 * width,), "context": (width,)}
        self._check_cache(cache, AttentionCache, **rows)
        batch, length = cache.leading
        if cache.probabilities.shape != (batch, heads, length, length):
            raise ShapeError("argument 'cache' must be one that forward of this layer returned")
        upstream = self._upstream_rows(dy, cache.leading, width)
        d_context = upstream @ self.params["weights_out"]
        d_qkv = np.empty_like(cache.qkv)
        d_mixed = self._by_head(d_context, cache.leading)
        gradients = self._split(d_qkv, cache.leading)
        parts = self._split(cache.qkv, cache.leading)
        drop = Dropout(cache.dropout)
        for block, dropped in zip(self._blocks(cache.leading), cache.dropped, strict=True):
            _backpropagate(
                [gradient[block] for gradient in gradients],
                d_mixed[block],
                cache.probabilities[block],
                [part[block] for part in parts],
                drop,
                dropped,
            )
        grads = {"weights_qkv": d_qkv.T @ cache.x, "weights_out": upstream.T @ cache.context}
        dx: Array = d_qkv @ self.params["weights_qkv"]
        return dx.reshape(*cache.leading, width), grads

    def _sequences(self, x: Any) -> tuple[Array, tuple[int, int]]:
        """Return input as rows (B S, D), and (B, S)."""
        rows, leading = as_rows(x, "x", self.config.width, self._dtype)
        if len(leading) != 2:
            raise ShapeError(
                f"argument 'x' must have shape (batch, sequence, {self.config.width}), "
                f"got shape {(*leading, self.config.width)}"
            )
        return rows, (leading[0], leading[1])

    def _penalties(self, mask: Any, leading: tuple[int, int]) -> Array:
        """Return what is added to the scores of each key (B, S); (0, S) without a mask."""
        if mask is None:
            return np.empty((0, leading[1]), self._dtype)
        array = as_real_array(mask, "attention_mask")
        if array.shape != leading:
            raise ShapeError(
                f"argument 'attention_mask' must have shape {leading}, got shape {array.shape}"
            )
        if not ((array == 0) | (array == 1)).all():
            raise ArgumentError("argument 'attention_mask' must hold only 0 and 1, got others")
        return np.where(array == 1, 0, PENALTY).astype(self._dtype)

    def _split(self, qkv: Array, leading: tuple[int, int]) -> tuple[Array, Array, Array]:
        """Return views (B, A, S, W) of the queries, keys and values."""
        split = qkv.reshape(*leading, self.config.heads, 3, self.config.head_width)
        queries, keys, values = split.transpose(3, 0, 2, 1, 4)
        return queries, keys, values

    def _by_head(self, rows: Array, leading: tuple[int, int]) -> Array:
        """Return a view (B, A, S, W) of rows (B S, D)."""
        split = rows.reshape(*leading, self.config.heads, self.config.head_width)
        return split.transpose(0, 2, 1, 3)

    def _blocks(self, leading: tuple[int, int]) -> Iterator[slice]:
        """Cut the sequences into blocks whose scores fit into `BLOCK_BYTES`."""
        batch, length = leading
        step = BLOCK_BYTES // max(1, self.config.heads * length**2 * self._dtype.itemsize)
        for start in range(0, batch, max(1, step)):
            yield slice(start, min(start + max(1, step), batch))

    def _probabilities(
        self, out: Array | None, queries: Array, keys: Array, penalties: Array
    ) -> Array:
        """Return the probabilities (b, A, S, S) of a block of sequences, in ``out`` if given."""
        scores = np.matmul(queries, keys.swapaxes(2, 3), out=out)
        heads, length = scores.shape[1:3]
        rows, scale = scores.reshape(-1, length), 1 / math.sqrt(queries.shape[3])
        kernels.choose_rows().softmax(rows, penalties, scale, heads * length)
        return scores

    def _initialise(self, std: float, rng: np.random.Generator) -> None:
        for array in self.params.values():
            normal(array, std, rng)


def _backpropagate(
    gradients: Sequence[Array],
    d_mixed: Array,
    probabilities: Array,
    parts: Sequence[Array],
    drop: Dropout,
    dropped: DropoutCache,
) -> None:
    """Write the gradients of queries, keys and values of some sequences, each (b, A, S, W)."""
    d_queries, d_keys, d_values = gradients
    queries, keys, values = parts
    weights = drop.backward(probabilities, dropped)  # drops the same, forwards and backwards
    np.matmul(weights.swapaxes(2, 3), d_mixed, out=d_values)
    d_scores = drop.backward(d_mixed @ values.swapaxes(2, 3), dropped)
    length, scale = d_scores.shape[3], 1 / math.sqrt(queries.shape[3])
    kernels.choose_rows().softmax_backward(
        d_scores.reshape(-1, length), probabilities.reshape(-1, length), scale
    )
    np.matmul(d_scores, keys, out=d_queries)
    np.matmul(d_scores.swapaxes(2, 3), queries, out=d_keys)
