"""What layers with bfloat16 or int8 weights share: rounding of weights, and refusing to train.

They are defined next to the layers that they are made from. Arrays of QuantizedFastFeedForward and
QuantizedLeafFeedForward have the form that `fffcpu.kernels.backends.vectorized` takes. Dense
products take int8 weights in another order, which `IntegerProducts` keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Never

import numpy as np
from numpy.typing import NDArray

from fffcpu import kernels
from fffcpu.checks import check_weights
from fffcpu.config import LayerConfig
from fffcpu.errors import ArgumentError, ArgumentTypeError
from fffcpu.lowbit import from_bfloat16, from_int8, to_bfloat16, to_int8

__all__ = [
    "InferenceOnly",
    "IntegerProducts",
    "quantized_fields",
    "round_weights",
    "widen_weights",
]

Array = NDArray[Any]


class InferenceOnly:
    """A layer for inference only: methods that train or change it raise ArgumentTypeError."""

    def forward(self, x: Any, *_: Any, **__: Any) -> Never:
        """Raise ArgumentTypeError: train the float32 layer, which `dequantize` returns."""
        self._refuse("forward")

    def backward(self, dy: Any, *_: Any, **__: Any) -> Never:
        """Raise ArgumentTypeError: train the float32 layer, which `dequantize` returns."""
        self._refuse("backward")

    def absorb_input_scaling(self, mean: Any, scale: Any) -> Never:
        """Raise ArgumentTypeError: change the float layer before it is quantized."""
        self._refuse("absorb_input_scaling")

    def absorb_output_scaling(self, scale: Any) -> Never:
        """Raise ArgumentTypeError: change the float layer before it is quantized."""
        self._refuse("absorb_output_scaling")

    def _refuse(self, method: str) -> Never:
        name = type(self).__name__
        raise ArgumentTypeError(
            f"layer of '{method}' must be a float32 or float64 layer, got a {name}, which is for "
            "inference only; take the layer that it was quantized from, or its dequantize()"
        )


class IntegerProducts:
    """The matrices of a layer of dense products with int8 weights, as kernels take them.

    They are made at the first call, and take as many bytes as the weights. Weights that change
    afterwards are not seen.

    Parameters
    ----------
    params : mapping of str to array
        Parameters of the layer.
    transposed : str
        Name of weights that lie (I, O) instead of (O, I).
    """

    def __init__(self, params: Mapping[str, Array], transposed: str = "") -> None:
        self._params, self._transposed = params, transposed
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        """Return the matrix of ``weights_name``, ``scale_name`` and perhaps ``bias_name``."""
        if name not in self._made:
            weights = self._params[f"weights_{name}"]
            self._made[name] = kernels.selection().encoder.integer_matrix(
                weights.T if name == self._transposed else weights,
                self._params[f"scale_{name}"],
                self._params.get(f"bias_{name}"),
            )
        return self._made[name]


def quantized_fields(config: LayerConfig, weights: Any) -> dict[str, Any]:
    """Return the fields of the config of a layer with weights of a narrow type.

    Raises
    ------
    ArgumentError
        If ``weights`` is not such a type.
    """
    return config.to_dict() | {"weights": check_weights(weights), "dtype": "float32"}


def round_weights(array: Array, name: str, weights: str, axis: int) -> tuple[Array, Array]:
    """Return weights rounded to a narrow type, and for int8 the scale of each neuron.

    Parameters
    ----------
    array : float array
        The weights.
    name : str
        Name of the parameter in errors.
    weights : {"bfloat16", "int8"}
        The type to round to.
    axis : int
        The axis along which a neuron's weights lie.

    Raises
    ------
    ArgumentError
        If a weight is not finite and the type is int8.
    """
    if weights == "bfloat16":
        return to_bfloat16(array), np.empty(0)
    with np.errstate(over="ignore"):
        numbers = array.astype(np.float32, copy=False)
    wrong = numbers.size - np.count_nonzero(np.isfinite(numbers))
    if wrong:
        raise ArgumentError(
            f"parameter '{name}' must hold finite float32 numbers to become int8, "
            f"got {wrong} that are not"
        )
    return to_int8(numbers, axis)


def widen_weights(array: Array, scales: Array | None, axis: int) -> Array:
    """Return narrow weights as float32; int8 weights have ``scales``, along ``axis``."""
    return from_bfloat16(array) if scales is None else from_int8(array, scales, axis)
