"""Attention: every position takes a weighted mean of the values of all positions.

Multi-head self-attention (arXiv 1706.03762, section 3.2) of each sequence separately::

    qkv  = x weights_qkv^T                       queries, keys and values of all heads
    p    = softmax(q k^T / sqrt(W) + penalty)    (S, S) for each head
    y    = [p v of all heads] weights_out^T

The penalty is -10000 for keys that are padding, so that their probability is 0. Both projections
may have a bias, or neither. The columns of qkv hold one head after the other::

    head 0          head 1
    | q | k | v |   | q | k | v |   ...          W columns each

Shapes: B sequences of S positions, D width, A heads of width W = D / A.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fffcpu import kernels
from fffcpu.checks import as_real_array, as_rows, check_elements, check_number
from fffcpu.config import AttentionConfig, QuantizedAttentionConfig
from fffcpu.errors import ShapeError
from fffcpu.layers.layer import Module, product
from fffcpu.layers.quantized import InferenceOnly, IntegerProducts, round_weights, widen_weights
from fffcpu.parameters import Parameters, empty_output, generator, normal
from fffcpu.system.memory import check_memory

__all__ = ["Attention", "AttentionCache", "Penalties", "QuantizedAttention", "penalties_of"]

Array = NDArray[Any]
Config = TypeVar("Config", bound=AttentionConfig)

PENALTY = -10000.0
"""Number that is added to the scores of a key that is padding."""


class AttentionCache(NamedTuple):
    """What `Attention.forward` keeps for `Attention.backward`.

    The cache holds ``5 D + A S`` numbers per position, including x. For long sequences the
    probabilities, ``A S``, are the largest part.
    """

    x: Array
    """Input rows (B S, D); the caller's own memory if no conversion was needed."""
    qkv: Array
    """Queries, keys and values (B S, 3 D)."""
    probabilities: Array
    """Probabilities of the keys for each query (B, A, S, S), before dropout."""
    context: Array
    """Input of the output projection (B S, D)."""
    kept: NDArray[np.bool_]
    """Which probabilities dropout kept (B, A, S, S); (0, A, S, S) if there was none."""
    dropout: float
    """Rate of the dropout."""
    leading: tuple[int, int]
    """Leading shape of the input, (B, S)."""


class Penalties(NamedTuple):
    """What an attention mask adds to scores; all layers of an encoder take the same."""

    numbers: Array
    """Penalties of each key (B, S); (0, S) if no key has one."""


def penalties_of(mask: Any, leading: tuple[int, int], dtype: DTypeLike) -> Penalties:
    """Return the penalties of a mask.

    Parameters
    ----------
    mask : array_like of shape (B, S), optional
        1 for positions to keep, 0 for padding.
    leading : (int, int)
        B and S.
    dtype : dtype
        dtype of the scores.

    Raises
    ------
    ArgumentTypeError, ShapeError, ArgumentError
        If ``mask`` is not such an array.
    """
    nothing = Penalties(np.empty((0, leading[1]), dtype))
    if mask is None:
        return nothing
    array = as_real_array(mask, "attention_mask")
    if array.shape != leading:
        raise ShapeError(
            f"argument 'attention_mask' must have shape {leading}, got shape {array.shape}"
        )
    kept = array == 1
    if kept.all():
        return nothing
    check_elements(array, "attention_mask", kept | (array == 0), "only 0 and 1")
    return Penalties(np.where(kept, 0, PENALTY).astype(dtype, order="C"))


class _Projected(Module[Config]):
    """Base of Attention, whatever the type of its weights."""

    def __call__(self, x: Any, mask: Any = None) -> Array:
        """Run the layer.

        Parameters
        ----------
        x : array_like of shape (B, S, D)
            Real numbers in any layout.
        mask : array_like of shape (B, S) or Penalties, optional
            1 for positions to keep, 0 for padding; or what `penalties_of` made of them.

        Returns
        -------
        array of shape (B, S, D)
            The output; rows of padding positions have no meaning.

        Raises
        ------
        ValueError, TypeError
            If an argument is not such an array.
        """
        rows, leading = self._sequences(x)
        _, *shape = self._shape(leading)
        nowhere, kept = np.empty((0, *shape), self._dtype), np.empty((0, *shape), np.bool_)
        qkv, context = self._project(rows, "qkv"), np.empty_like(rows)
        self._attend(context, nowhere, qkv, mask, kept, 0.0, leading)
        y = self._project(context, "out")
        return y.reshape(*leading, self.config.width)

    def _project(self, rows: Array, name: str) -> Array:
        """Return rows after the projection ``"qkv"`` or ``"out"``."""
        raise NotImplementedError

    def _attend(
        self,
        context: Array,
        probabilities: Array,
        qkv: Array,
        mask: Any,
        kept: NDArray[np.bool_],
        dropout: float,
        leading: tuple[int, int],
    ) -> None:
        """Write the context, and the probabilities if their array is not empty."""
        penalties = self._penalties(mask, leading)
        if len(context):
            kernels.selection().encoder.attention(
                context, probabilities, qkv, penalties, kept, _share(dropout)
            )

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
        """Return the penalties added to the scores of each key (B, S); (0, S) without a mask."""
        if isinstance(mask, Penalties):
            return mask.numbers
        return penalties_of(mask, leading, self._dtype).numbers

    def _shape(self, leading: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return (B, A, S, S)."""
        batch, length = leading
        return batch, self.config.heads, length, length


class Attention(_Projected[AttentionConfig]):
    """Multi-head self-attention.

    Parameters
    ----------
    width : int
        Width D of a position.
    heads : int
        Number of heads A, which divides D.
    bias : bool
        Whether both projections have a bias.
    dtype : {numpy.float32, numpy.float64}
        dtype of the parameters and outputs.
    rng : None, int or numpy.random.Generator
        Generator or seed of the initial values: ``weights_qkv`` (3 D, D) and ``weights_out``
        (D, D) are normal with standard deviation 0.02; ``bias_qkv`` (3 D,) and ``bias_out`` (D,)
        are 0.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type.

    Notes
    -----
    Inference holds qkv and the scores of a few positions at a time (without compiled kernels,
    those of one sequence). The cache of `forward` holds all probabilities, ``B A S S`` numbers,
    and with dropout as many bytes. `backward` allocates ``3 D`` numbers per position.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        bias: bool = False,
        dtype: DTypeLike = np.float32,
        rng: Any = None,
    ) -> None:
        self._start(AttentionConfig(width, heads, bias=bias, dtype=dtype), rng)

    def forward(
        self, x: Any, mask: Any = None, dropout: float = 0.0, rng: Any = None
    ) -> tuple[Array, AttentionCache]:
        """Run the layer and keep what `backward` needs.

        Parameters
        ----------
        x : array_like of shape (B, S, D)
            The input. It must not be changed before `backward`.
        mask : array_like of shape (B, S), optional
            1 for positions to keep, 0 for padding.
        dropout : float
            Probability of dropping each attention probability of a query and a key.
        rng : None, int or numpy.random.Generator
            Generator or seed of the dropout.

        Returns
        -------
        y : array of shape (B, S, D)
        cache : AttentionCache
            The cache that `backward` takes.
        """
        rows, leading = self._sequences(x)
        shape = self._shape(leading)
        check_memory(
            math.prod(shape) * self.config.itemsize,
            f"the attention of {shape[0]} sequences of {shape[2]} positions",
        )
        qkv = self._project(rows, "qkv")
        kept = self._kept(leading, dropout, rng)
        probabilities = np.empty(shape, self._dtype)
        context = np.empty_like(rows)
        self._attend(context, probabilities, qkv, mask, kept, dropout, leading)
        y = self._project(context, "out")
        cache = AttentionCache(rows, qkv, probabilities, context, kept, dropout, leading)
        return y.reshape(*leading, self.config.width), cache

    def backward(self, dy: Any, cache: AttentionCache) -> tuple[Array, dict[str, Array]]:
        """Return ``dx`` of shape (B, S, D) and the gradients by name, from ``dy`` of (B, S, D).

        Notes
        -----
        With ``c`` the context of a head and ``dc`` its gradient: ``dv = p^T dc``,
        ``dp = dc v^T``, ``ds = p (dp - sum of p dp) / sqrt(W)`` for each query, ``dq = ds k`` and
        ``dk = ds^T q`` (docs/mathematics.md derives them).
        """
        width = self.config.width
        rows = {"x": (width,), "qkv": (3 * width,), "context": (width,)}
        self._check_cache(cache, AttentionCache, **rows)
        shape = self._shape(cache.leading)
        if cache.probabilities.shape != shape or cache.kept.shape not in (shape, (0, *shape[1:])):
            raise ShapeError("argument 'cache' must be one that forward of this layer returned")
        upstream = self._upstream_rows(dy, cache.leading, width)
        d_context = product(upstream, self.params["weights_out"])
        d_qkv = np.empty_like(cache.qkv)
        if len(d_qkv):
            kernels.selection().encoder.attention_backward(
                d_qkv, d_context, cache.probabilities, cache.qkv, cache.kept, _share(cache.dropout)
            )
        grads = {
            "weights_qkv": product(d_qkv.T, cache.x),
            "weights_out": product(upstream.T, cache.context),
        }
        if self.config.bias:
            sums = {"bias_qkv": d_qkv.sum(axis=0), "bias_out": upstream.sum(axis=0)}
            grads = {name: (grads | sums)[name] for name in self.params}
        dx = product(d_qkv, self.params["weights_qkv"])
        return dx.reshape(*cache.leading, width), grads

    def quantize(self, weights: str) -> QuantizedAttention:
        """Return an attention for inference with int8 weights, whose products are of integers.

        Parameters
        ----------
        weights : {"int8"}
            Type of the weights. Those of each column of a projection have one scale.

        Raises
        ------
        ArgumentError
            If ``weights`` is not such a type, or a weight is not finite in float32.
        """
        fields = dataclasses.asdict(self.config) | {"weights": weights, "dtype": "float32"}
        config, arrays = QuantizedAttentionConfig(**fields), dict(self.params)
        for name in ("qkv", "out"):
            own = f"weights_{name}"
            arrays[own], arrays[f"scale_{name}"] = round_weights(arrays[own], own, weights, 1)
        return QuantizedAttention._from(config, arrays)

    def _project(self, rows: Array, name: str) -> Array:
        """Return rows after the projection ``"qkv"`` or ``"out"``."""
        return product(rows, self.params[f"weights_{name}"].T, self.params.get(f"bias_{name}"))

    def _kept(self, leading: tuple[int, int], dropout: float, rng: Any) -> NDArray[np.bool_]:
        """Draw which probabilities dropout keeps; (0, A, S, S) without dropout."""
        shape = self._shape(leading)
        if not check_number("dropout", dropout, 0.0, 1.0):
            return np.empty((0, *shape[1:]), np.bool_)
        rng, kept = generator(rng), np.empty(shape, np.bool_)
        for own in kept:  # one sequence at a time: random numbers take four times the memory
            np.greater_equal(rng.random(own.shape, np.float32), dropout, out=own)
        return kept

    def _initialise(self, std: float, rng: np.random.Generator) -> None:
        for name, array in self.params.items():
            if name.startswith("bias"):
                array[...] = 0
            else:
                normal(array, std, rng)


class QuantizedAttention(InferenceOnly, _Projected[QuantizedAttentionConfig]):
    """Attention with int8 weights, for inference only; `Attention.quantize` makes it.

    Notes
    -----
    Rows are rounded to int8 before both projections, each with a scale of its own. Scores and
    contexts are float32.

    ``params`` are those of Attention, and the scales ``scale_qkv`` (3 D,) and ``scale_out`` (D,).
    """

    def _set_up(self, config: QuantizedAttentionConfig, params: Parameters) -> None:
        super()._set_up(config, params)
        self._matrices = IntegerProducts(params)

    def _project(self, rows: Array, name: str) -> Array:
        """Return rows after the projection ``"qkv"`` or ``"out"``."""
        y = empty_output(len(rows), len(self.params[f"scale_{name}"]), self._dtype)
        kernels.selection().encoder.project(y, rows, self._matrices[name])
        return y

    def dequantize(self) -> Attention:
        """Return a float32 attention with the rounded weights, which can be trained further."""
        fields = dataclasses.asdict(self.config)
        del fields["weights"]
        arrays = {name: self.params[name] for name in self.params if "scale" not in name}
        for name in ("qkv", "out"):
            own = f"weights_{name}"
            arrays[own] = widen_weights(arrays[own], self.params[f"scale_{name}"], 1)
        return Attention._from(AttentionConfig(**fields), arrays)


def _share(dropout: float) -> float:
    """Return the factor by which kept probabilities are multiplied."""
    return 1 / (1 - dropout) if dropout < 1.0 else 0.0
