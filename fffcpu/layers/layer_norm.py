"""LayerNorm: shifts and scales every row to mean 0 and variance 1, then applies scale and bias.

``y = (x - mean) / sqrt(variance + eps) * scale + bias``, with mean and variance of each row
(arXiv 1607.06450).

Shapes: B rows, D width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fffcpu import kernels
from fffcpu.checks import as_rows
from fffcpu.config import LayerNormConfig
from fffcpu.layers.layer import Module
from fffcpu.parameters import empty_output

__all__ = ["LayerNorm", "LayerNormCache"]

Array = NDArray[Any]


class LayerNormCache(NamedTuple):
    """What `LayerNorm.forward` keeps for `LayerNorm.backward`."""

    x: Array
    """Input rows (B, D); the caller's own memory if no conversion was needed."""
    moments: Array
    """Mean and 1 / sqrt(variance + eps) of each row (B, 2)."""
    leading: tuple[int, ...]
    """Leading shape of the input, whose product is B."""


class LayerNorm(Module[LayerNormConfig]):
    """Layer norm.

    Parameters
    ----------
    width : int
        Width D of a row.
    eps : float
        Number that is added to the variance.
    dtype : {numpy.float32, numpy.float64}
        dtype of the parameters and outputs. ``scale`` (D,) starts as 1, ``bias`` (D,) as 0.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type.
    """

    def __init__(self, width: int, eps: float = 1e-12, *, dtype: DTypeLike = np.float32) -> None:
        self._start(LayerNormConfig(width, eps, dtype=dtype), None)

    def __call__(self, x: Any) -> Array:
        """Return the output (..., D) of an array_like of shape (..., D)."""
        return self.forward(x)[0]

    def of_sum(self, x: Array, y: Array, shift: Array | None = None) -> Array:
        """Return the output for the sum ``y + shift + x``, for inference, written over ``y``.

        Parameters
        ----------
        x, y : arrays of shape (..., D)
            C-contiguous arrays of one shape and of the layer's dtype, such as a layer returns.
        shift : array of shape (D,), optional
        """
        width = self.config.width
        rows, sums = x.reshape(-1, width), y.reshape(-1, width)
        nothing = np.empty(0, self._dtype) if shift is None else shift
        scale, bias, eps = self.params["scale"], self.params["bias"], self.config.eps
        kernels.selection().encoder.add_layer_norm(sums, rows, nothing, scale, bias, eps)
        return y

    def forward(self, x: Any) -> tuple[Array, LayerNormCache]:
        """Run the layer and keep what `backward` needs: x itself and two numbers per row."""
        width = self.config.width
        rows, leading = as_rows(x, "x", width, self._dtype)
        y = empty_output(len(rows), width, self._dtype)
        moments = np.empty((len(rows), 2), self._dtype)
        scale, bias = self.params["scale"], self.params["bias"]
        kernels.selection().encoder.layer_norm(y, moments, rows, scale, bias, self.config.eps)
        return y.reshape(*leading, width), LayerNormCache(rows, moments, leading)

    def backward(self, dy: Any, cache: LayerNormCache) -> tuple[Array, dict[str, Array]]:
        """Return ``dx`` of shape (..., D) and the gradients by name, from ``dy`` of (..., D).

        Notes
        -----
        With ``n`` the normalized row and ``g = dy scale``:
        ``dx = (g - mean(g) - n mean(g n)) / sqrt(variance + eps)``, ``d scale = sum of dy n``,
        ``d bias = sum of dy`` (docs/mathematics.md derives them).
        """
        width = self.config.width
        self._check_cache(cache, LayerNormCache, x=(width,), moments=(2,))
        upstream = self._upstream_rows(dy, cache.leading, width)
        dx = empty_output(len(upstream), width, self._dtype)
        d_scale, d_bias = kernels.selection().encoder.layer_norm_backward(
            dx, upstream, cache.moments, cache.x, self.params["scale"]
        )
        return dx.reshape(*cache.leading, width), {"scale": d_scale, "bias": d_bias}

    def _initialise(self, std: float, rng: np.random.Generator) -> None:
        self.params["scale"][...] = 1
        self.params["bias"][...] = 0
