"""Arrays of a layer that kernels take, by name and in the order of the kernels' arguments.

Kernels take arrays, not objects, so callers unpack these: ``path_infer(y, x, *weights, code)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["LeafWeights", "PathWeights", "no_bias"]

Array = NDArray[Any]


def _views(fields: tuple[str, ...], params: Mapping[str, Array]) -> dict[str, Any]:
    """Return a view of each parameter that a layer has, by name.

    Views stay writable, as compiled kernels require, even if a parameter is made read-only.
    """
    return {name: params[name][...] for name in fields if name in params}


class PathWeights(NamedTuple):
    """The arrays of a FastFeedForward: T trees of N nodes with S sides, 1 or 2."""

    weights_in: Array
    """Input weights (T, N, I)."""
    bias_in: Array
    """Biases (T, N); zeros for a layer without a bias."""
    weights_out: Array
    """Output weights (T, N, S, O)."""
    scale_in: Array | None = None
    """Scales of the input weights (T, N), or None unless they are int8."""
    scale_out: Array | None = None
    """Scales of the output weights (T, N, S), or None unless they are int8."""

    @classmethod
    def of(cls, params: Mapping[str, Array]) -> Self:
        """Return the arrays of a layer's parameters, whose axis S is missing if S is 1."""
        views = _views(cls._fields, params)
        shape = (*params["weights_in"].shape[:2], -1)
        views["weights_out"] = views["weights_out"].reshape(*shape, params["weights_out"].shape[-1])
        if "scale_out" in views:
            views["scale_out"] = views["scale_out"].reshape(shape)
        if "bias_in" not in views:
            views["bias_in"] = no_bias(params["weights_in"])
        return cls(**views)

    @property
    def trained(self) -> tuple[Array, Array, Array]:
        """The arrays that training uses: those without scales."""
        return self.weights_in, self.bias_in, self.weights_out


def no_bias(weights_in: Array) -> Array:
    """Return the biases that kernels take for a layer without a bias: zeros (T, N)."""
    dtype = weights_in.dtype if weights_in.dtype.kind == "f" else np.float32
    return np.zeros(weights_in.shape[:2], dtype)


class LeafWeights(NamedTuple):
    """The arrays of a LeafFeedForward: G gates, and K leaves of H neurons."""

    gate_weights: Array
    """Weights of the gates (G, I)."""
    gate_bias: Array
    """Biases of the gates (G,)."""
    leaf_weights_in: Array
    """Input weights of the leaves (K, I, H)."""
    leaf_bias_in: Array
    """Input biases (K, H)."""
    leaf_weights_out: Array
    """Output weights (K, H, O)."""
    leaf_bias_out: Array
    """Output biases (K, O)."""
    leaf_scale_in: Array | None = None
    """Scales of the input weights (K, H), or None unless they are int8."""
    leaf_scale_out: Array | None = None
    """Scales of the output weights (K, H), or None unless they are int8."""

    @classmethod
    def of(cls, params: Mapping[str, Array]) -> Self:
        """Return the arrays of a layer's parameters."""
        return cls(**_views(cls._fields, params))
