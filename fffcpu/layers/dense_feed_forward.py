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
from fffcpu.config import DenseFeedForwardConfig, QuantizedDenseFeedForwardConfig
from fffcpu.layers.layer import Layer, new_parameters, product
from fffcpu.layers.quantized import (
    InferenceOnly,
    IntegerProducts,
    quantized_fields,
    round_weights,
    widen_weights,
)
from fffcpu.parameters import Parameters, generator, uniform

__all__ = ["DenseFeedForward", "DenseFeedForwardCache", "QuantizedDenseFeedForward"]

Array = NDArray[Any]

MOST_NUMBERS = 1 << 22
"""Activations that inference holds at a time, unless those of `LEAST_ROWS` rows are more."""
LEAST_ROWS = 1024


class DenseFeedForwardCache(NamedTuple):
    """What `DenseFeedForward.forward` keeps for `DenseFeedForward.backward`."""

    x: Array
    """Input rows (B, I)."""
    logits: Array
    """Logits of all neurons (B, W)."""
    leading: tuple[int, ...]
    """Leading shape of the input, whose product is B."""


class DenseFeedForward(Layer[DenseFeedForwardConfig]):
    """Dense feedforward layer: one hidden layer, all of whose neurons are computed.

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

    def _set_up(self, config: DenseFeedForwardConfig, params: Parameters) -> None:
        super()._set_up(config, params)
        # Looked up once, because one row takes only microseconds.
        bias = params.get("bias_in")
        self._arguments = params["weights_in"], bias, self._activation, params["weights_out"]
        self._step = inference_rows(config.width)

    def _compute(self, y: Array, rows: Array) -> None:
        hidden_layer = kernels.selection().encoder.hidden_layer
        for start in range(0, len(rows), self._step):
            own = slice(start, start + self._step)
            hidden_layer(y[own], rows[own], *self._arguments)

    def forward(self, x: Any) -> tuple[Array, DenseFeedForwardCache]:
        """Run the layer and keep what `backward` needs."""
        rows, leading = self._rows(x)
        weights_in, bias_in, *_ = self._arguments
        logits = product(rows, weights_in.T, bias_in)
        active = kernels.selection().encoder.activate(logits, self._activation)
        y = product(active, self.params["weights_out"])
        return y.reshape(*leading, y.shape[1]), DenseFeedForwardCache(rows, logits, leading)

    def backward(self, dy: Any, cache: DenseFeedForwardCache) -> tuple[Array, dict[str, Array]]:
        """Return ``dx`` of shape (..., I) and the gradients by name, from ``dy`` of (..., O)."""
        widths = {"x": (self.config.input_dim,), "logits": (self.config.width,)}
        self._check_cache(cache, DenseFeedForwardCache, **widths)
        upstream = self._upstream(dy, cache.leading)
        row_kernels = kernels.selection().encoder
        d_logits = product(upstream, self.params["weights_out"].T)
        row_kernels.backpropagate(d_logits, cache.logits, self._activation)
        grads = {"weights_in": product(d_logits.T, cache.x)}
        if self.config.bias:
            grads["bias_in"] = d_logits.sum(axis=0)
        active = row_kernels.activate(cache.logits, self._activation)
        grads["weights_out"] = product(active.T, upstream)
        dx = product(d_logits, self.params["weights_in"])
        return dx.reshape(*cache.leading, dx.shape[1]), grads

    def quantize(self, weights: str) -> QuantizedDenseFeedForward:
        """Return a layer for inference with int8 weights, whose products are of integers.

        Parameters
        ----------
        weights : {"int8"}
            Type of the weights. A neuron's input weights have one scale, and so have the weights
            of a column of the output.

        Raises
        ------
        ArgumentError
            If ``weights`` is not such a type, or a weight is not finite in float32.

        Notes
        -----
        Rows are rounded to int8 as well, each with its own scale. docs/mathematics.md bounds the
        error.
        """
        config = QuantizedDenseFeedForwardConfig(**quantized_fields(self.config, weights))
        arrays = dict(self.params)
        for name, axis in (("in", 1), ("out", 0)):
            own = f"weights_{name}"
            arrays[own], arrays[f"scale_{name}"] = round_weights(arrays[own], own, weights, axis)
        return QuantizedDenseFeedForward._from(config, arrays)


class QuantizedDenseFeedForward(InferenceOnly, Layer[QuantizedDenseFeedForwardConfig]):
    """DenseFeedForward with int8 weights, for inference only.

    Made by `DenseFeedForward.quantize` or read from a file.

    Notes
    -----
    Each row is rounded to int8 with a scale of its own, before both products. Their sums are exact
    integers, so a row has the same bits in any batch, on any number of threads and any CPU.

    ``params`` are ``weights_in``, ``bias_in`` and ``weights_out``, as in DenseFeedForward, and the
    scales ``scale_in`` (W,) of the neurons and ``scale_out`` (O,) of the columns.

    Examples
    --------
    >>> import numpy as np
    >>> from fffcpu import DenseFeedForward
    >>> layer = DenseFeedForward(64, 64, width=128, rng=0)
    >>> small = layer.quantize("int8")
    >>> small.config.weights, small(np.ones((2, 64))).shape
    ('int8', (2, 64))
    >>> layer.nbytes, small.nbytes
    (66048, 17664)
    """

    config_type: ClassVar[type[QuantizedDenseFeedForwardConfig]] = QuantizedDenseFeedForwardConfig

    def _set_up(self, config: QuantizedDenseFeedForwardConfig, params: Parameters) -> None:
        super()._set_up(config, params)
        self._matrices = IntegerProducts(params, transposed="out")

    def _compute(self, y: Array, rows: Array) -> None:
        first, second = self._matrices["in"], self._matrices["out"]
        kernels.selection().encoder.feed_forward(y, rows, first, self._activation, second)

    def dequantize(self) -> DenseFeedForward:
        """Return a float32 layer with the rounded weights, which can be trained further."""
        fields = self.config.to_dict()
        del fields["weights"]
        arrays = {name: self.params[name] for name in self.params if "scale" not in name}
        for name, axis in (("in", 1), ("out", 0)):
            own = f"weights_{name}"
            arrays[own] = widen_weights(arrays[own], self.params[f"scale_{name}"], axis)
        return DenseFeedForward._from(DenseFeedForwardConfig(**fields), arrays)


def inference_rows(width: int) -> int:
    """Return the number of rows whose activations inference holds at a time."""
    return max(LEAST_ROWS, MOST_NUMBERS // width)


def _initial(config: DenseFeedForwardConfig, rng: np.random.Generator) -> Parameters:
    """Return the initial values that the class describes."""
    params = new_parameters(config)
    for name, array in params.items():
        width = config.width if name == "weights_out" else config.input_dim
        uniform(array, 1 / math.sqrt(width), rng)
    return params
