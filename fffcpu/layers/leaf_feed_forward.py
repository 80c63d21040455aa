"""LeafFeedForward: a tree of gates over leaves that are small networks.

The layer of "Fast Feedforward Networks" (arXiv 2308.14711, algorithm 1). Inference follows one
path: right at a gate whose logit is at least 0, else left; the leaf reached computes the output.
Training mixes all leaves: a gate sends the share ``p = sigmoid(logit)`` right and ``1 - p`` left,
and a leaf's output is weighted by the share that reaches it. A loss on the gates' entropy (section
2.3, hardening) makes the two agree.

Shapes: B rows, I input width, O output width, G = 2**depth - 1 gates, K = G + 1 leaves, H leaf
width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fffcpu import kernels
from fffcpu.checks import as_real_array, check_flag, check_nonnegative, check_number
from fffcpu.config import LeafFeedForwardConfig, QuantizedLeafFeedForwardConfig
from fffcpu.errors import ShapeError, describe
from fffcpu.kernels.backends.vectorized import activate, activate_gradient
from fffcpu.kernels.weights import LeafWeights
from fffcpu.layers.layer import Layer, as_parameter, new_parameters, parameter_dtype
from fffcpu.layers.quantized import InferenceOnly, quantized_fields, round_weights, widen_weights
from fffcpu.parameters import Parameters, generator, uniform
from fffcpu.system.memory import check_memory
from fffcpu.tree import depth_of, level_start

__all__ = ["LeafCache", "LeafFeedForward", "QuantizedLeafFeedForward"]

Array = NDArray[Any]
Config = TypeVar("Config", bound=LeafFeedForwardConfig)

ENTROPY_CLIP = 1e-6
"""Distance from 0 and 1 that the entropy keeps probabilities at, as published."""


class LeafCache(NamedTuple):
    """What `LeafFeedForward.forward` keeps for `LeafFeedForward.backward` and for the trainer."""

    x: Array
    """Input rows (B, I); the caller's own memory if no conversion was needed."""
    leading: tuple[int, ...]
    """Leading shape of the input, whose product is B."""
    p: Array
    """Probability of going right (B, G), after the region leak and before rounding."""
    right: Array
    """Share sent right (B, G): ``p``, or 0 or 1 if hardened."""
    flips: Array | None
    """Mask of the choices that the region leak inverted (B, G)."""
    reach: Array
    """Share of each row that reaches each gate, then each leaf (B, G + K)."""
    logits: Array
    """Logits of the leaves' neurons (B, K, H)."""
    active: Array
    """Activations of the leaves' neurons (B, K, H), after dropout."""
    kept: Array | None
    """Factor of the dropout (B, K, H): 0 or 1 / (1 - dropout)."""
    hardened: bool
    """Whether choices were rounded."""
    entropies: Array
    """Mean entropy of each gate's choice over the batch (G,), in nats; 0 for an empty batch."""
    gate_usage: Array
    """Expected number of rows that reach each gate (G,)."""
    leaf_usage: Array
    """Expected number of rows that reach each leaf (K,)."""


class LeafLayer(Layer[Config]):
    """What LeafFeedForward and QuantizedLeafFeedForward share: inference with one leaf per row."""

    def _set_up(self, config: Config, params: Parameters) -> None:
        super()._set_up(config, params)
        self._weights = LeafWeights.of(params)

    def _compute(self, y: Array, rows: Array) -> None:
        kernels.choose(len(rows), leaves=len(self._weights.leaf_bias_in)).leaf_infer(
            y, rows, *self._weights, self._activation
        )

    def _few_rows(self) -> tuple[Callable[..., None], tuple[Any, ...]]:
        return kernels.choose().leaf_infer, (*self._weights, self._activation)

    def route(self, x: Any) -> Array:
        """Return the leaf that each row reaches.

        Parameters
        ----------
        x : array_like of shape (..., I)
            Real numbers in any layout.

        Returns
        -------
        int32 array of shape (...,)
            Leaf numbers, from 0 at the left to K - 1 at the right.
        """
        rows, leading = self._rows(x)
        leaves = np.empty(len(rows), np.int32)
        weights = self._weights
        backend = kernels.choose(len(rows), leaves=len(weights.leaf_bias_in))
        backend.leaf_route(leaves, rows, weights.gate_weights, weights.gate_bias)
        return leaves.reshape(leading)


class LeafFeedForward(LeafLayer[LeafFeedForwardConfig]):
    """Fast feedforward layer with a small network in every leaf.

    Parameters
    ----------
    input_dim : int
        Input width I.
    output_dim : int
        Output width O.
    depth : int
        Depth of the tree, which has ``2**depth`` leaves. Depth 0 is a plain dense network.
    leaf_width : int
        Number of neurons H of each leaf.
    activation : {"relu", "gelu", "identity"}
        Activation of the leaves' neurons.
    dtype : {numpy.float32, numpy.float64}
        dtype of the parameters and outputs.
    rng : None, int or numpy.random.Generator
        Generator or seed of the initial values: parameters that act on the input are uniform in
        ±1/sqrt(I), those that act on a leaf's neurons in ±1/sqrt(H).

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type.

    Notes
    -----
    For a given row, ``layer(x)`` and ``route`` return the same bits for any batch, any order of
    its rows and any number of threads. A logit that is not finite makes the output of its own row
    NaN, and of no other. `forward` mixes leaves by matrix products and gives no such guarantee.

    Examples
    --------
    >>> import numpy as np
    >>> from fffcpu import LeafFeedForward
    >>> layer = LeafFeedForward(16, 4, depth=3, leaf_width=2, rng=0)
    >>> y, cache = layer.forward(np.ones((5, 16)))
    >>> y.shape, cache.entropies.shape
    ((5, 4), (7,))
    """

    config_type: ClassVar[type[LeafFeedForwardConfig]] = LeafFeedForwardConfig
    _reading = (
        ("gate_weights", "gate_bias", -1),
        ("leaf_weights_in", "leaf_bias_in", 1),
    )
    _writing = ("leaf_weights_out", "leaf_bias_out")

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        depth: int,
        leaf_width: int,
        *,
        activation: str = "relu",
        dtype: DTypeLike = np.float32,
        rng: Any = None,
    ) -> None:
        config = LeafFeedForwardConfig(
            input_dim, output_dim, depth, leaf_width, activation=activation, dtype=dtype
        )
        self._set_up(config, _initial(config, generator(rng)))

    @classmethod
    def from_arrays(
        cls,
        gate_weights: Any,
        gate_bias: Any,
        leaf_weights_in: Any,
        leaf_bias_in: Any,
        leaf_weights_out: Any,
        leaf_bias_out: Any,
        *,
        activation: str = "relu",
    ) -> Self:
        """Make a layer from arrays, which are copied.

        Parameters
        ----------
        gate_weights : array_like of shape (G, I)
            Weights of the gates in heap order; G must be ``2**depth - 1`` for some depth.
        gate_bias : array_like of shape (G,)
            Biases of the gates.
        leaf_weights_in : array_like of shape (K, I, H)
            Input weights of the leaves, from left to right.
        leaf_bias_in : array_like of shape (K, H)
            Input biases.
        leaf_weights_out : array_like of shape (K, H, O)
            Output weights.
        leaf_bias_out : array_like of shape (K, O)
            Output biases.
        activation : {"relu", "gelu", "identity"}
            Activation of the leaves' neurons.

        Returns
        -------
        LeafFeedForward
            The layer, in float32 if the arrays are no wider, else in float64.

        Raises
        ------
        ShapeError, TypeError
            If the arrays do not fit together, or do not hold real numbers.
        """
        arrays = {
            "gate_weights": as_parameter(gate_weights, "gate_weights", 2),
            "gate_bias": as_parameter(gate_bias, "gate_bias", 1),
            "leaf_weights_in": as_parameter(leaf_weights_in, "leaf_weights_in", 3),
            "leaf_bias_in": as_parameter(leaf_bias_in, "leaf_bias_in", 2),
            "leaf_weights_out": as_parameter(leaf_weights_out, "leaf_weights_out", 3),
            "leaf_bias_out": as_parameter(leaf_bias_out, "leaf_bias_out", 2),
        }
        leaves, input_dim, leaf_width = arrays["leaf_weights_in"].shape
        try:
            depth = depth_of(2 * leaves - 1)
        except ValueError:
            raise ShapeError(
                f"argument 'leaf_weights_in' must have 2**depth leaves on axis 0, got {leaves}"
            ) from None
        config = LeafFeedForwardConfig(
            input_dim,
            arrays["leaf_weights_out"].shape[2],
            depth,
            leaf_width,
            activation=activation,
            dtype=parameter_dtype(*arrays.values()),
        )
        return cls._from_checked(config, arrays)

    def forward(
        self,
        x: Any,
        region_leak: float = 0.0,
        dropout: float = 0.0,
        hardened: bool = False,
        rng: Any = None,
    ) -> tuple[Array, LeafCache]:
        """Mix all leaves, as training does.

        Parameters
        ----------
        x : array_like of shape (..., I)
            The input. It must not be changed before `backward`.
        region_leak : float
            Probability of inverting each gate's choice for a row, so that neighbouring leaves learn
            each other's regions (section 2.3).
        dropout : float
            Probability of dropping an activation of a leaf; the others are scaled up.
        hardened : bool
            Whether to round the choices, as inference does. They then pass no gradient to the
            gates, except through the hardening loss.
        rng : None, int or numpy.random.Generator
            Generator or seed of the region leak and the dropout.

        Returns
        -------
        y : array of shape (..., O)
            The mixture of the leaves' outputs.
        cache : LeafCache
            The cache that `backward` takes. ``entropies``, ``gate_usage`` and ``leaf_usage`` are
            public.

        Raises
        ------
        ValueError, TypeError
            If an argument is out of range or of the wrong type.
        """
        region_leak = check_number("region_leak", region_leak, 0, 1)
        dropout = check_number("dropout", dropout, 0, 1)
        hardened = check_flag("hardened", hardened)
        rng = generator(rng) if region_leak or dropout else None
        rows, leading = self._rows(x)
        self._check_memory(len(rows), arrays=3)

        p, right, flips = self._choices(rows, region_leak, hardened, rng)
        reach = _reach(right)
        mixture = reach[:, right.shape[1] :]
        logits, active, kept = self._neurons(rows, dropout, rng)

        weights_out = self.params["leaf_weights_out"].reshape(-1, self.config.output_dim)
        y = _weighted(active, mixture) @ weights_out + mixture @ self.params["leaf_bias_out"]
        usage = reach.sum(axis=0)
        cache = LeafCache(
            x=rows,
            leading=leading,
            p=p,
            right=right,
            flips=flips,
            reach=reach,
            logits=logits,
            active=active,
            kept=kept,
            hardened=hardened,
            entropies=_entropy(p).sum(axis=0) / max(1, len(rows)),
            gate_usage=usage[: right.shape[1]],
            leaf_usage=usage[right.shape[1] :],
        )
        return y.reshape(*leading, y.shape[1]), cache

    def _check_memory(self, rows: int, arrays: int) -> None:
        """Raise unless there is memory for ``arrays`` numbers per row and neuron of all leaves."""
        row = arrays * self.config.neurons * self.config.itemsize
        check_memory(
            rows * row,
            f"training a {self.config.kind} of {self.config.neurons:,} neurons on a batch of "
            f"{rows:,} rows, which mixes all leaves,",
            lambda available: f"the largest batch that fits has {available // row} rows",
        )

    def _choices(
        self, rows: Array, region_leak: float, hardened: bool, rng: np.random.Generator | None
    ) -> tuple[Array, Array, Array | None]:
        """Return p, right and flips of `LeafCache`."""
        from scipy.special import expit

        logits = rows @ self.params["gate_weights"].T + self.params["gate_bias"]
        p: Array = expit(logits)
        right = (logits >= 0).astype(p.dtype) if hardened else p
        if rng is None or not region_leak:
            return p, right, None
        flips = rng.random(p.shape) < region_leak
        return np.where(flips, 1 - p, p), np.where(flips, 1 - right, right), flips

    def _neurons(
        self, rows: Array, dropout: float, rng: np.random.Generator | None
    ) -> tuple[Array, Array, Array | None]:
        """Return logits, active and kept of `LeafCache`."""
        bias = self.params["leaf_bias_in"]
        logits = (rows @ self._side_by_side()).reshape(len(rows), *bias.shape) + bias
        active = activate(logits, self._activation)
        if rng is None or not dropout:
            return logits, active, None
        kept = (rng.random(active.shape) >= dropout).astype(active.dtype)
        if dropout < 1:
            kept /= 1 - dropout
        return logits, active * kept, kept

    def _side_by_side(self) -> Array:
        """Return the leaves' input weights as one matrix (I, K * H)."""
        return self.params["leaf_weights_in"].swapaxes(0, 1).reshape(self.config.input_dim, -1)

    def backward(
        self, dy: Any, cache: LeafCache, hardening: Any = 0.0
    ) -> tuple[Array, dict[str, Array]]:
        """Return the gradients of a loss plus the hardening loss.

        Parameters
        ----------
        dy : array_like of shape (..., O)
            Gradient of the loss with respect to the output.
        cache : LeafCache
            Cache that `forward` returned for the same rows.
        hardening : float or array_like of shape (...)
            Weight h of the hardening loss ``h * cache.entropies.sum()`` (section 2.3), or one
            weight per row if rows have weights.

        Returns
        -------
        dx : array of shape (..., I)
            Gradient with respect to the input.
        grads : dict of str to array
            Gradients with respect to the parameters, with their names and shapes.
        """
        gates, neurons = len(self.params["gate_bias"]), self.params["leaf_bias_in"].shape
        self._check_cache(
            cache,
            LeafCache,
            x=(self.config.input_dim,),
            p=(gates,),
            right=(gates,),
            reach=(gates + len(self.params["leaf_bias_in"]),),
            logits=neurons,
            active=neurons,
        )
        self._check_memory(len(cache.x), arrays=4)
        shares = _hardening(hardening, cache)
        upstream = self._upstream(dy, cache.leading)
        params = self.params
        mixture = cache.reach[:, cache.right.shape[1] :]

        # The leaves: weighted = mixture * active, y = weighted W_out + mixture b_out.
        weights_out = params["leaf_weights_out"].reshape(-1, self.config.output_dim)
        d_weighted = (upstream @ weights_out.T).reshape(cache.active.shape)
        d_mixture = (d_weighted * cache.active).sum(axis=2) + upstream @ params["leaf_bias_out"].T
        d_logits = d_weighted * mixture[:, :, np.newaxis]
        d_logits *= activate_gradient(cache.logits, self._activation)
        if cache.kept is not None:
            d_logits *= cache.kept
        weighted = _weighted(cache.active, mixture)
        d_flat = d_logits.reshape(weighted.shape)

        d_gates = self._gate_gradients(d_mixture, cache, shares)
        dx = d_flat @ self._side_by_side().T + d_gates @ params["gate_weights"]
        d_side_by_side = (cache.x.T @ d_flat).reshape(cache.x.shape[1], *cache.logits.shape[1:])
        grads = {
            "gate_weights": d_gates.T @ cache.x,
            "gate_bias": d_gates.sum(axis=0),
            "leaf_weights_in": np.ascontiguousarray(d_side_by_side.swapaxes(0, 1)),
            "leaf_bias_in": d_logits.sum(axis=0),
            "leaf_weights_out": (weighted.T @ upstream).reshape(params["leaf_weights_out"].shape),
            "leaf_bias_out": mixture.T @ upstream,
        }
        return dx.reshape(*cache.leading, dx.shape[1]), grads

    def usage(self, cache: LeafCache) -> dict[str, Array]:
        """Return the number of rows that reached each gate (G,) and leaf (K,), by parameter name.

        Rows that are sent both ways count with their shares, as in training's mixture.
        """
        self._check_cache(cache, LeafCache)
        return {
            name: cache.gate_usage if name.startswith("gate_") else cache.leaf_usage
            for name in self.params
        }

    def _gate_gradients(
        self, d_mixture: Array, cache: LeafCache, hardening: float | Array
    ) -> Array:
        """Return the gradient of the gates' logits (B, G); hardening is a number or (B, 1)."""
        d_p = np.zeros_like(cache.p) if cache.hardened else _reach_gradient(d_mixture, cache)
        if np.any(hardening):
            d_p += hardening / max(1, len(cache.p)) * _entropy_gradient(cache.p)
        if cache.flips is not None:
            d_p = np.where(cache.flips, -d_p, d_p)
        gradient: Array = d_p * cache.p * (1 - cache.p)
        return gradient

    def quantize(self, weights: str) -> QuantizedLeafFeedForward:
        """Return a layer for inference whose leaves have weights of a narrower type.

        Parameters
        ----------
        weights : {"bfloat16", "int8"}
            Type of ``leaf_weights_in`` and ``leaf_weights_out``: half or a quarter of the bytes of
            float32.

        Returns
        -------
        QuantizedLeafFeedForward
            The layer, with its own arrays. The other parameters and the output are float32. A
            float64 layer is rounded to float32 first. The gates of a float32 layer stay the same,
            and so do its routes.

        Raises
        ------
        ArgumentError
            If ``weights`` is another type, or if a weight is not finite and the type is int8.
        """
        config = QuantizedLeafFeedForwardConfig(**quantized_fields(self.config, weights))
        arrays, scales = dict(self.params), {}
        for name, axis in (("leaf_weights_in", 1), ("leaf_weights_out", 2)):
            arrays[name], scales[name] = round_weights(arrays[name], name, weights, axis)
        if weights == "int8":
            arrays["leaf_scale_in"] = scales["leaf_weights_in"]
            arrays["leaf_scale_out"] = scales["leaf_weights_out"]
        return QuantizedLeafFeedForward._from(config, arrays)


class QuantizedLeafFeedForward(InferenceOnly, LeafLayer[QuantizedLeafFeedForwardConfig]):
    """LeafFeedForward whose leaves have bfloat16 or int8 weights, for inference only.

    Made by `LeafFeedForward.quantize` or read from a file.

    Notes
    -----
    Input, output, gates and arithmetic are float32: kernels widen weights as they load them. The
    guarantees on the bits of LeafFeedForward hold here as well. With bfloat16 weights, the bits
    equal those of the layer that `dequantize` returns.

    ``params`` are those of LeafFeedForward. bfloat16 weights are uint16 arrays that hold the
    bits. int8 weights add ``leaf_scale_in`` and ``leaf_scale_out`` (K, H), the scales of each
    neuron's input and output weights.

    Examples
    --------
    >>> from fffcpu import LeafFeedForward
    >>> layer = LeafFeedForward(64, 64, depth=2, leaf_width=32, rng=0)
    >>> layer.nbytes, layer.quantize("int8").nbytes
    (67852, 19724)
    """

    config_type: ClassVar[type[QuantizedLeafFeedForwardConfig]] = QuantizedLeafFeedForwardConfig

    def dequantize(self) -> LeafFeedForward:
        """Return a float32 layer with the rounded weights, which can be trained further."""
        params = self.params
        return LeafFeedForward.from_arrays(
            params["gate_weights"],
            params["gate_bias"],
            widen_weights(params["leaf_weights_in"], params.get("leaf_scale_in"), 1),
            params["leaf_bias_in"],
            widen_weights(params["leaf_weights_out"], params.get("leaf_scale_out"), 2),
            params["leaf_bias_out"],
            activation=self.config.activation,
        )


def _hardening(hardening: Any, cache: LeafCache) -> float | Array:
    """Return the weight of the hardening loss: a number, or one per row (B, 1)."""
    if np.ndim(hardening) == 0:
        return check_number("hardening", hardening, 0)
    weights = as_real_array(hardening, "hardening")
    if weights.shape != cache.leading:
        raise ShapeError(
            f"argument 'hardening' must be a number or an array of shape {cache.leading}, one for "
            f"each row, got {describe(weights)}"
        )
    check_nonnegative(weights, "hardening")
    return weights.reshape(-1, 1).astype(cache.p.dtype)


def _weighted(active: Array, mixture: Array) -> Array:
    """Return each leaf's activations times its share (B, K * H)."""
    rows, leaves, width = active.shape
    weighted: Array = (active * mixture[:, :, np.newaxis]).reshape(rows, leaves * width)
    return weighted


def _levels(gates: int) -> list[slice]:
    """Return the gates of each level, root first; the children are the next level's nodes."""
    return [
        slice(level_start(level), level_start(level + 1)) for level in range(gates.bit_length())
    ]


def _reach(right: Array) -> Array:
    """Return the share of each row that reaches each node (B, G + K)."""
    rows, gates = right.shape
    reach = np.empty((rows, 2 * gates + 1), right.dtype)
    reach[:, 0] = 1
    for level in _levels(gates):
        sent_right = reach[:, level] * right[:, level]
        children = reach[:, 2 * level.start + 1 : 2 * level.stop + 1]
        children[:, 0::2] = reach[:, level] - sent_right
        children[:, 1::2] = sent_right
    return reach


def _reach_gradient(d_mixture: Array, cache: LeafCache) -> Array:
    """Return the gradient of ``right`` (B, G), given that of the leaves' shares (B, K).

    Bottom up: a gate passes ``1 - right`` and ``right`` of its share to its children, so
    ``d_right = reach (d_child_right - d_child_left)`` and
    ``d_reach = (1 - right) d_child_left + right d_child_right``.
    """
    gates = cache.right.shape[1]
    d_right = np.empty_like(cache.right)
    d_reach = d_mixture
    for level in reversed(_levels(gates)):
        d_left_child, d_right_child = d_reach[:, 0::2], d_reach[:, 1::2]
        right = cache.right[:, level]
        d_right[:, level] = cache.reach[:, level] * (d_right_child - d_left_child)
        d_reach = (1 - right) * d_left_child + right * d_right_child
    return d_right


def _entropy(p: Array) -> Array:
    """Return the entropy of a choice with probability p, in nats."""
    p = np.clip(p, ENTROPY_CLIP, 1 - ENTROPY_CLIP)
    entropy: Array = -p * np.log(p) - (1 - p) * np.log(1 - p)
    return entropy


def _entropy_gradient(p: Array) -> Array:
    """Return the derivative of `_entropy`; 0 where p was clipped."""
    inside = (p >= ENTROPY_CLIP) & (p <= 1 - ENTROPY_CLIP)
    safe = np.where(inside, p, p.dtype.type(0.5))
    gradient: Array = np.log((1 - safe) / safe)
    return gradient


def _initial(config: LeafFeedForwardConfig, rng: np.random.Generator) -> Parameters:
    """Return the initial values that the class describes."""
    params = new_parameters(config)
    for name, array in params.items():
        width = config.leaf_width if name.endswith("_out") else config.input_dim
        uniform(array, 1 / math.sqrt(width), rng)
    return params
