"""Dense: a projection, ``y = x weights^T + bias``.

Shapes: B rows, I input width, O output width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fffcpu.checks import as_rows
from fffcpu.config import DenseConfig
from fffcpu.layers.layer import Module, product
from fffcpu.parameters import normal

__all__ = ["Dense", "DenseCache"]

Array = NDArray[Any]


class DenseCache(NamedTuple):
    """What `Dense.forward` keeps for `Dense.backward`."""

    x: Array
    """Input rows (B, I); the caller's own memory if no conversion was needed."""
    leading: tuple[int, ...]
    """Leading shape of the input, whose product is B."""


class Dense(Module[DenseConfig]):
    """Projection of rows.

    Parameters
    ----------
    input_dim : int
        Input width I.
    output_dim : int
        Output width O.
    bias : bool
        Whether there is a bias.
    dtype : {numpy.float32, numpy.float64}
        dtype of the parameters and outputs.
    rng : None, int or numpy.random.Generator
        Generator or seed of the initial values: ``weights`` (O, I) are normal with standard
        deviation 0.02, ``bias`` (O,) is 0.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type.
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        *,
        bias: bool = True,
        dtype: DTypeLike = np.float32,
        rng: Any = None,
    ) -> None:
        self._start(DenseConfig(input_dim, output_dim, bias, dtype=dtype), rng)

    def __call__(self, x: Any) -> Array:
        """Return the output (..., O) of an array_like of shape (..., I)."""
        return self.forward(x)[0]

    def forward(self, x: Any) -> tuple[Array, DenseCache]:
        """Run the layer and keep what `backward` needs, which is x itself."""
        rows, leading = as_rows(x, "x", self.config.input_dim, self._dtype)
        y = product(rows, self.params["weights"].T, self.params.get("bias"))
        return y.reshape(*leading, y.shape[1]), DenseCache(rows, leading)

    def backward(self, dy: Any, cache: DenseCache) -> tuple[Array, dict[str, Array]]:
        """Return ``dx`` of shape (..., I) and the gradients by name, from ``dy`` of (..., O)."""
        self._check_cache(cache, DenseCache, x=(self.config.input_dim,))
        upstream = self._upstream_rows(dy, cache.leading, self.config.output_dim)
        grads = {"weights": product(upstream.T, cache.x)}
        if self.config.bias:
            grads["bias"] = upstream.sum(axis=0)
        dx = product(upstream, self.params["weights"])
        return dx.reshape(*cache.leading, dx.shape[1]), grads

    def _initialise(self, std: float, rng: np.random.Generator) -> None:
        normal(self.params["weights"], std, rng)
        if self.config.bias:
            self.params["bias"][...] = 0
