"""DenseFeedForward: the layer that FFF replaces; it computes every neuron for every row.

``y = act(x weights_in^T + bias_in) weights_out``. The parameters are those of FastFeedForward
without the axis of trees: a FastFeedForward of depth 0 with ``width`` trees computes the same.
The layer serves as a baseline.

Shapes: B rows, I input width, O output width, W neurons.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fffcpu import kernels
from fffcpu.config import DenseFeedForwardConfig
from fffcpu.layers.layer import Layer, new_parameters
from fffcpu.parameters import Parameters, generator, uniform

__all__ = ["DenseFeedForward", "DenseFeedForwardCache"]

Array = NDArray[Any]


class DenseFeedForwardCache(NamedTuple):
    """What `DenseFeedForward.forward` keeps for `DenseFeedForward.backward`."""

    x: Array
    """Input rows (B, I)."""
    logits: Array
    """Logits of all neurons (B, W)."""
    leading: tuple[int, ...]
    """Leading shape of the input, whose product is B."""


class DenseFeedForward(Layer[DenseFeedForwardConfig]):
    """Dense feedforward layer with one hidden layer, computed by NumPy's matrix products.

    Parameters
    ----------
    input_dim : int
        Input width I.
    output_dim : int
        Output width O.
    width : int
        Number of neurons W.
    bias : bool
        Whether neurons have an input bias. There is no output bias.
    activation : {"gelu", "relu", "identity"}
        Activation of every neuron.
    dtype : {numpy.float32, numpy.float64}
        dtype of the parameters and outputs.
    rng : None, int or numpy.random.Generator
        Generator or seed of the initial values: ``weights_in`` and ``bias_in`` are uniform in
        ±1/sqrt(I), ``weights_out`` in ±1/sqrt(W).

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type.
    """

    config_type: ClassVar[type[DenseFeedForwardConfig]] = DenseFeedForwardConfig
    _reading = (("weights_in", "bias_in", -1),)
    _writing = ("weights_out",)

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        width: int,
        *,
        bias: bool = True,
        activation: str = "gelu",
        dtype: DTypeLike = np.float32,
        rng: Any = None,
    ) -> None:
        config = DenseFeedForwardConfig(
            input_dim, output_dim, width, bias=bias, activation=activation, dtype=dtype
        )
        self._set_up(config, _initial(config, generator(rng)))

    def _compute(self, y: Array, rows: Array) -> None:
        active = kernels.selection().encoder.activate(self._logits(rows), self._activation)
        np.matmul(active, self.params["weights_out"], out=y)

    def _logits(self, rows: Array) -> Array:
        logits: Array = rows @ self.params["weights_in"].T
        if self.config.bias:
            logits += self.params["bias_in"]
        return logits

    def forward(self, x: Any) -> tuple[Array, DenseFeedForwardCache]:
        """Run the layer and keep what `backward` needs."""
        rows, leading = self._rows(x)
        logits = self._logits(rows)
        active = kernels.selection().encoder.activate(logits, self._activation)
        y = active @ self.params["weights_out"]
        return y.reshape(*leading, y.shape[1]), DenseFeedForwardCache(rows, logits, leading)

    def backward(self, dy: Any, cache: DenseFeedForwardCache) -> tuple[Array, dict[str, Array]]:
        """Return ``dx`` of shape (..., I) and the gradients by name, from ``dy`` of (..., O)."""
        widths = {"x": (self.config.input_dim,), "logits": (self.config.width,)}
        self._check_cache(cache, DenseFeedForwardCache, **widths)
        upstream = self._upstream(dy, cache.leading)
        row_kernels = kernels.selection().encoder
        d_logits = upstream @ self.params["weights_out"].T
        row_kernels.backpropagate(d_logits, cache.logits, self._activation)
        grads = {"weights_in": d_logits.T @ cache.x}
        if self.config.bias:
            grads["bias_in"] = d_logits.sum(axis=0)
        grads["weights_out"] = row_kernels.activate(cache.logits, self._activation).T @ upstream
        dx = d_logits @ self.params["weights_in"]
        return dx.reshape(*cache.leading, dx.shape[1]), grads


def _initial(config: DenseFeedForwardConfig, rng: np.random.Generator) -> Parameters:
    """Return the initial values that the class describes."""
    params = new_parameters(config)
    for name, array in params.items():
        width = config.width if name == "weights_out" else config.input_dim
        uniform(array, 1 / math.sqrt(width), rng)
    return params
