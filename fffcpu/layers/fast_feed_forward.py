"""FastFeedForward: trees in which every node is a neuron and a decision.

The layer of "Exponentially Faster Language Modelling" (arXiv 2311.10770, algorithm 1). A row walks
from the root of each tree to a leaf. At node n its logit is ``s = weights_in[n] . x + bias_in[n]``;
it goes right if ``s > 0``, else left. Every node on its path adds ``gelu(s) * weights_out[n]``.
So a row uses L of N = 2**L - 1 neurons, in inference and in training.

A node that sends a row left hardly adds anything, because GELU of a negative number is nearly 0.
*Two-sided* nodes, which the paper does not have, have output weights for each side, and add
``gelu(|s|) * weights_out[n, side]``. That takes as many products, and reads as many weights.

Shapes: B rows, I input width, O output width, T trees, N nodes in a tree, L = depth + 1 levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fffcpu import kernels
from fffcpu.checks import as_rows, check_flag, first_wrong
from fffcpu.config import FastFeedForwardConfig, QuantizedFastFeedForwardConfig
from fffcpu.errors import ArgumentError, ShapeError
from fffcpu.kernels.weights import PathWeights, no_bias
from fffcpu.layers.layer import Layer, as_parameter, new_parameters, parameter_dtype
from fffcpu.layers.quantized import InferenceOnly, quantized_fields, round_weights, widen_weights
from fffcpu.parameters import (
    Parameters,
    RowGradient,
    aligned_zeros,
    empty_output,
    generator,
    uniform,
)
from fffcpu.tree import depth_of

__all__ = ["FastFeedForward", "PathCache", "QuantizedFastFeedForward", "cmm"]

Array = NDArray[Any]
Config = TypeVar("Config", bound=FastFeedForwardConfig)


class PathCache(NamedTuple):
    """What `FastFeedForward.forward` keeps for `FastFeedForward.backward`."""

    x: Array
    """Input rows (B, I); the caller's own memory if no conversion was needed."""
    logits: Array
    """Logits of the visited nodes (B, T, L)."""
    nodes: Array
    """The visited nodes (B, T, L), int32."""
    leading: tuple[int, ...]
    """Leading shape of the input, whose product is B."""


class PathLayer(Layer[Config]):
    """What FastFeedForward and QuantizedFastFeedForward share: inference along paths."""

    def _set_up(self, config: Config, params: Parameters) -> None:
        super()._set_up(config, params)
        # Looked up once, because one row takes only microseconds.
        self._weights = PathWeights.of(params)
        self._arguments = (*self._weights, self._activation)

    def _compute(self, y: Array, rows: Array) -> None:
        kernels.choose(len(rows), self._weights.weights_in).path_infer(y, rows, *self._arguments)

    def _few_rows(self) -> tuple[Callable[..., None], tuple[Any, ...]]:
        return kernels.choose().path_infer, self._arguments

    def route(self, x: Any) -> Array:
        """Return the nodes that each row visits.

        Parameters
        ----------
        x : array_like of shape (..., I)
            Real numbers in any layout.

        Returns
        -------
        int32 array of shape (..., T, L)
            Node numbers in heap order, root first.
        """
        rows, leading = self._rows(x)
        weights = self._weights
        _, nodes = _paths(rows, weights.weights_in, weights.bias_in, weights.scale_in)
        return nodes.reshape(*leading, *nodes.shape[1:])


class FastFeedForward(PathLayer[FastFeedForwardConfig]):
    """Fast feedforward layer with a neuron at every node.

    Parameters
    ----------
    input_dim : int
        Input width I.
    output_dim : int
        Output width O.
    depth : int
        Depth of each tree, which has ``2**(depth + 1) - 1`` neurons; a row uses ``depth + 1``.
    trees : int
        Number of independent trees T whose outputs are summed.
    bias : bool
        Whether neurons have an input bias. There is no output bias.
    two_sided : bool
        Whether each node has output weights for each side: ``weights_out`` (T, N, 2, O), left
        first. Such layers learn more with as many neurons (docs/mathematics.md); published layers
        are one-sided.
    activation : {"gelu", "relu", "identity"}
        Function of the logit of each visited node; GELU is the exact one.
    dtype : {numpy.float32, numpy.float64}
        dtype of the parameters and outputs.
    rng : None, int or numpy.random.Generator
        Generator or seed of the initial values: ``weights_in`` and ``bias_in`` are uniform in
        ±1/sqrt(I), ``weights_out`` in ±1/sqrt(L T).

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type.

    Notes
    -----
    For a given row, ``layer(x)`` and ``route`` return the same bits for any batch, any order of
    its rows and any number of threads. A logit that is not finite makes the output of its own row
    NaN, and of no other. Calls from many threads at once are safe while no thread changes the
    parameters.

    Examples
    --------
    >>> import numpy as np
    >>> from fffcpu import FastFeedForward
    >>> layer = FastFeedForward(16, 4, depth=3, rng=0)
    >>> layer(np.ones((2, 5, 16))).shape
    (2, 5, 4)
    >>> layer.config.active_neurons, layer.config.neurons
    (4, 15)
    """

    config_type: ClassVar[type[FastFeedForwardConfig]] = FastFeedForwardConfig
    _reading = (("weights_in", "bias_in", -1),)
    _writing = ("weights_out",)

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        depth: int,
        trees: int = 1,
        *,
        bias: bool = True,
        two_sided: bool = False,
        activation: str = "gelu",
        dtype: DTypeLike = np.float32,
        rng: Any = None,
    ) -> None:
        config = FastFeedForwardConfig(
            input_dim,
            output_dim,
            depth,
            trees,
            bias=bias,
            two_sided=two_sided,
            activation=activation,
            dtype=dtype,
        )
        self._set_up(config, _initial(config, generator(rng)))

    @classmethod
    def from_arrays(
        cls, weights_in: Any, weights_out: Any, bias_in: Any = None, *, activation: str = "gelu"
    ) -> Self:
        """Make a layer from arrays, which are copied.

        Parameters
        ----------
        weights_in : array_like of shape (T, N, I)
            Input weights in heap order; N must be ``2**(depth + 1) - 1`` for some depth.
        weights_out : array_like of shape (T, N, O) or (T, N, 2, O)
            Output weights; those of two-sided nodes have an axis for the sides, left first.
        bias_in : array_like of shape (T, N), optional
            Input biases.
        activation : {"gelu", "relu", "identity"}
            Activation of every node.

        Returns
        -------
        FastFeedForward
            The layer, in float32 if the arrays are no wider, else in float64.

        Raises
        ------
        ShapeError, TypeError
            If the arrays do not fit together, or do not hold real numbers.
        """
        arrays = {
            "weights_in": as_parameter(weights_in, "weights_in", 3),
            "weights_out": as_parameter(weights_out, "weights_out", 3, 4),
        }
        if bias_in is not None:
            arrays["bias_in"] = as_parameter(bias_in, "bias_in", 2)
        trees, count, input_dim = arrays["weights_in"].shape
        config = FastFeedForwardConfig(
            input_dim,
            arrays["weights_out"].shape[-1],
            _depth("weights_in", count),
            trees,
            bias=bias_in is not None,
            two_sided=arrays["weights_out"].ndim == 4,
            activation=activation,
            dtype=parameter_dtype(*arrays.values()),
        )
        return cls._from_checked(config, arrays)

    def forward(self, x: Any) -> tuple[Array, PathCache]:
        """Run the layer and keep what `backward` needs.

        Parameters
        ----------
        x : array_like of shape (..., I)
            The input. It must not be changed before `backward`.

        Returns
        -------
        y : array of shape (..., O)
            The output, with the same bits as ``layer(x)``.
        cache : PathCache
            The cache that `backward` takes.
        """
        rows, leading = self._rows(x)
        weights_in, _, weights_out = weights = self._weights.trained
        y = empty_output(len(rows), weights_out.shape[3], self._dtype)
        logits, nodes = _empty_paths(rows, weights_in)
        backend = kernels.choose(len(rows), self._weights.weights_in)
        backend.path_forward(y, logits, nodes, rows, *weights, self._activation)
        return y.reshape(*leading, y.shape[1]), PathCache(rows, logits, nodes, leading)

    def backward(
        self,
        dy: Any,
        cache: PathCache,
        row_sparse: bool = False,
        straight_through: bool = False,
    ) -> tuple[Array, dict[str, Any]]:
        """Return the gradients of a loss.

        Parameters
        ----------
        dy : array_like of shape (..., O)
            Gradient of the loss with respect to the output.
        cache : PathCache
            Cache that `forward` returned for the same rows.
        row_sparse : bool
            Whether to return only those rows of the gradients that belong to visited nodes.
        straight_through : bool
            Whether routes have a gradient: the derivative of a choice, which is ``s > 0``, is taken
            to be the normal density at s. Otherwise routes are held constant, and no node learns
            where to send rows.

        Returns
        -------
        dx : array of shape (..., I)
            Gradient with respect to the input.
        grads : dict of str to array, or to RowGradient
            Gradients with respect to the parameters, with their names and shapes; exactly 0 for
            nodes that no row visited. If ``row_sparse``, each is a `fffcpu.parameters.RowGradient`
            with the same bits: its cost does not depend on N, and optimizers then change only the
            rows of visited nodes.

        Notes
        -----
        With ``a = gelu(s)`` at each visited node: ``da = weights_out . dy``,
        ``ds = da gelu'(s)``, ``d weights_out += a dy``, ``d weights_in += ds x``,
        ``d bias_in += ds`` and ``dx += ds weights_in`` (docs/mathematics.md derives them). In
        two-sided layers ``a = gelu(|s|)`` and ``ds = da gelu'(|s|) sign(s)``, and weights_out is
        that of the side taken. The bits do not depend on the number of threads.

        ``straight_through`` adds a term to ds at each visited node (the straight-through estimator
        of arXiv 1308.3432). The term is the product of dy, the normal density at s, and a
        difference: the output of the right subtree for this row minus that of the left one, both
        along their hard routes. At two-sided nodes the node's own output on each side is included.
        So rows also descend from the children that they did not take, which makes
        ``depth * (depth + 1) / 2`` more visits per tree. The term is 0 if the output of the side
        not taken is not finite.
        """
        check_flag("row_sparse", row_sparse)
        check_flag("straight_through", straight_through)
        weights_in, _, weights_out = weights = self._weights.trained
        trees, count, width = weights_in.shape
        path = _path_shape(weights_in)
        self._check_cache(cache, PathCache, x=(width,), logits=path, nodes=path)
        if cache.nodes.size and not 0 <= cache.nodes.min() <= cache.nodes.max() < count:
            wrong = first_wrong(cache.nodes, (cache.nodes >= 0) & (cache.nodes < count))
            raise ArgumentError(
                f"argument 'cache' must hold nodes of this layer's trees, from 0 to {count - 1}, "
                f"got {wrong} of 'nodes'"
            )
        upstream = self._upstream(dy, cache.leading)
        dx = empty_output(len(cache.x), width, self._dtype)
        arrays = (cache.x, cache.logits, cache.nodes)
        x, logits, nodes = (np.ascontiguousarray(array) for array in arrays)
        backend = kernels.choose(len(x), weights_in)
        sides = weights_out.shape[2]
        # Without choices they have no gradients. At two sides the last level is a choice as well.
        chosen = path[1] if straight_through and path[1] + sides > 2 else 0
        d_logits = np.empty((len(x), path[0], chosen), self._dtype)
        if chosen:
            paths = (upstream, x, logits, nodes)
            backend.path_choices(d_logits, *paths, *weights, self._activation)
        if row_sparse:
            visited = _visited(nodes, count)
            places = np.empty(trees * count, np.int64)
            places[visited] = np.arange(len(visited))
        else:
            visited = places = np.arange(trees * count, dtype=np.int64)
        rows = (len(visited),)
        shapes = ((*rows, width), rows, (*rows, *weights_out.shape[2:]))
        if row_sparse or len(cache.x) * path[1] >= count:
            d_weights_in, d_bias_in, d_weights_out = aligned_zeros(shapes, self._dtype)
        else:  # rows visit only a few of the nodes, so most pages are never allocated
            d_weights_in, d_bias_in, d_weights_out = (np.zeros(s, self._dtype) for s in shapes)
        backend.path_backward(
            dx,
            d_weights_in,
            d_bias_in,
            d_weights_out,
            upstream,
            x,
            logits,
            nodes,
            d_logits,
            places,
            weights_in,
            weights_out,
            self._activation,
        )
        if sides == 1:
            d_weights_out = d_weights_out[:, 0]
        grads = {"weights_in": d_weights_in, "bias_in": d_bias_in, "weights_out": d_weights_out}
        return dx.reshape(*cache.leading, width), {
            name: RowGradient(visited, grads[name], param.shape)
            if row_sparse
            else grads[name].reshape(param.shape)
            for name, param in self.params.items()
        }

    def usage(self, cache: PathCache) -> dict[str, Array]:
        """Return the number of rows that visited each node, int64 (T, N), by parameter name."""
        trees, count = self.config.trees, self.config.neurons // self.config.trees
        self._check_cache(cache, PathCache, nodes=(trees, self.config.depth + 1))
        first = np.arange(trees, dtype=np.int64)[:, np.newaxis] * count
        visits = np.bincount((cache.nodes + first).reshape(-1), minlength=trees * count)
        return dict.fromkeys(self.params, visits.reshape(trees, count))

    def quantize(self, weights: str) -> QuantizedFastFeedForward:
        """Return a layer for inference with weights of a narrower type.

        Parameters
        ----------
        weights : {"bfloat16", "int8"}
            Type of ``weights_in`` and ``weights_out``: half or a quarter of the bytes of float32.

        Returns
        -------
        QuantizedFastFeedForward
            The layer, with its own arrays. The other parameters and the output are float32. A
            float64 layer is rounded to float32 first.

        Raises
        ------
        ArgumentError
            If ``weights`` is another type, or if a weight is not finite and the type is int8.

        Notes
        -----
        Rounding changes logits; if one was near 0, the row takes another route from that node on.
        docs/mathematics.md bounds the error, docs/benchmarks.md measures it for trained layers.
        """
        config = QuantizedFastFeedForwardConfig(**quantized_fields(self.config, weights))
        arrays, scales = dict(self.params), {}
        for name in ("weights_in", "weights_out"):
            arrays[name], scales[name] = round_weights(arrays[name], name, weights, -1)
        if weights == "int8":
            arrays["scale_in"], arrays["scale_out"] = scales["weights_in"], scales["weights_out"]
        return QuantizedFastFeedForward._from(config, arrays)


class QuantizedFastFeedForward(InferenceOnly, PathLayer[QuantizedFastFeedForwardConfig]):
    """FastFeedForward with bfloat16 or int8 weights, for inference only.

    Made by `FastFeedForward.quantize` or read from a file.

    Notes
    -----
    Input, output and arithmetic are float32: kernels widen weights as they load them. The
    guarantees on the bits of FastFeedForward hold here as well. With bfloat16 weights, the bits
    equal those of the layer that `dequantize` returns.

    ``params`` are ``weights_in``, ``bias_in`` and ``weights_out``, as in FastFeedForward.
    bfloat16 weights are uint16 arrays that hold the bits. int8 weights add ``scale_in`` (T, N) and
    ``scale_out`` (T, N), or (T, N, 2) if two-sided: the scales of each row of weights.

    Examples
    --------
    >>> import numpy as np
    >>> from fffcpu import FastFeedForward
    >>> layer = FastFeedForward(64, 64, depth=5, rng=0)
    >>> small = layer.quantize("int8")
    >>> small.config.weights, small(np.ones((2, 64))).shape
    ('int8', (2, 64))
    >>> layer.nbytes, small.nbytes
    (32508, 8820)
    """

    config_type: ClassVar[type[QuantizedFastFeedForwardConfig]] = QuantizedFastFeedForwardConfig

    def dequantize(self) -> FastFeedForward:
        """Return a float32 layer with the rounded weights, which can be trained further."""
        params = self.params
        return FastFeedForward.from_arrays(
            widen_weights(params["weights_in"], params.get("scale_in"), -1),
            widen_weights(params["weights_out"], params.get("scale_out"), -1),
            params.get("bias_in"),
            activation=self.config.activation,
        )


def cmm(x: Any, weights_in: Any, bias_in: Any = None) -> tuple[Array, Array]:
    """Conditional matrix multiplication (CMM): logits of the nodes each row visits.

    This is the first half of FastFeedForward (arXiv 2311.10770, section 2.2): of the N products
    of a row with ``weights_in``, only the L on its path are computed.

    Parameters
    ----------
    x : array_like of shape (..., I)
        Real numbers in any layout.
    weights_in : array_like of shape (T, N, I)
        Weights in heap order.
    bias_in : array_like of shape (T, N), optional
        Biases.

    Returns
    -------
    logits : array of shape (..., T, L)
        The logits, float32 if weights and biases are no wider, else float64.
    nodes : int32 array of shape (..., T, L)
        Node numbers, root first.

    Raises
    ------
    ShapeError, TypeError
        If the arrays do not fit together, or do not hold real numbers.
    """
    weights = as_parameter(weights_in, "weights_in", 3)
    bias = None if bias_in is None else as_parameter(bias_in, "bias_in", 2)
    _depth("weights_in", weights.shape[1])
    if bias is not None and bias.shape != weights.shape[:2]:
        raise ShapeError(
            f"argument 'bias_in' must have shape {weights.shape[:2]} to match weights_in, "
            f"got shape {bias.shape}"
        )
    dtype = np.dtype(parameter_dtype(weights, bias))
    weights = np.ascontiguousarray(weights, dtype)
    bias = no_bias(weights) if bias is None else np.ascontiguousarray(bias, dtype)
    rows, leading = as_rows(x, "x", weights.shape[2], dtype)
    logits, nodes = _paths(rows, weights, bias, None)
    return logits.reshape(*leading, *logits.shape[1:]), nodes.reshape(*leading, *nodes.shape[1:])


def _visited(nodes: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """Return the nodes on the paths (B, T, L), as tree * N + node in ascending order.

    The last node of a path determines it: the path visits all nodes above, and no others.
    """
    trees, levels = nodes.shape[1:]
    found = []
    for tree in range(trees):
        level = np.unique(nodes[:, tree, -1]).astype(np.int64)
        for _ in range(levels):
            found.append(level + tree * count)
            level = (level - 1) >> 1
            level = level[np.append(True, level[1:] != level[:-1])] if len(level) else level
    return np.sort(np.concatenate(found))


def _depth(name: str, count: int) -> int:
    """Return the depth of a tree of ``count`` nodes; raise ShapeError for argument ``name``."""
    try:
        return depth_of(count)
    except ValueError:
        raise ShapeError(
            f"argument '{name}' must have 2**(depth + 1) - 1 nodes on axis 1, got {count}"
        ) from None


def _path_shape(weights_in: Array) -> tuple[int, int]:
    """Return (T, L)."""
    return len(weights_in), weights_in.shape[1].bit_length()


def _empty_paths(rows: Array, weights_in: Array) -> tuple[Array, Array]:
    """Return uninitialized logits and nodes of shape (B, T, L)."""
    shape = (len(rows), *_path_shape(weights_in))
    return np.empty(shape, rows.dtype), np.empty(shape, np.int32)


def _paths(
    rows: Array, weights_in: Array, bias_in: Array, scale_in: Array | None
) -> tuple[Array, Array]:
    """Return logits and nodes of shape (B, T, L)."""
    logits, nodes = _empty_paths(rows, weights_in)
    backend = kernels.choose(len(rows), weights_in)
    backend.path_logits(logits, nodes, rows, weights_in, bias_in, scale_in)
    return logits, nodes


def _initial(config: FastFeedForwardConfig, rng: np.random.Generator) -> Parameters:
    """Return the initial values that the class describes."""
    params = new_parameters(config)
    bounds = {
        "weights_in": 1 / math.sqrt(config.input_dim),
        "bias_in": 1 / math.sqrt(config.input_dim),
        "weights_out": 1 / math.sqrt(config.trees * (config.depth + 1)),
    }
    for name, array in params.items():
        uniform(array, bounds[name], rng)
    return params
