"""Layers in operators of ONNX, with the depth of trees unrolled.

A row descends level by level, in all trees together. Within a level, the nodes of all trees lie
one after the other, and a row is at ``node = tree * places + place`` of each tree::

    level 0      places 1     tree 0 | tree 1 | ...
    level 1      places 2     0 1    | 2 3    | ...           right = logit > 0
    level 2      places 4     0 1 2 3| 4 5 6 7| ...           node = 2 node + right

So each level has tables of its own. From a level with few places all nodes are computed, by one
matrix product, and a mask picks those on the path. From other levels the rows of the table are
gathered (``Gather`` on axis 0).

Narrow weights stay narrow in the file; what is gathered of them is widened. With int8 weights,
dot products and activations are multiplied by scales, as the kernels do.

Shapes: B rows, I input width, O output width, T trees, P places; in the leaf layer K leaves of
width H.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.config import Activation
from fffcpu.errors import ArgumentTypeError, describe
from fffcpu.kernels.elementwise import normal_tail
from fffcpu.layers import (
    DenseFeedForward,
    FastFeedForward,
    LeafFeedForward,
    QuantizedDenseFeedForward,
    QuantizedFastFeedForward,
    QuantizedLeafFeedForward,
)
from fffcpu.onnx.graph import Graph
from fffcpu.tree import level_start

__all__ = ["add_dense", "add_layer"]

Array = NDArray[Any]
Params = Mapping[str, Array]

WHOLE = 8
"""Most places of a level that is computed as a whole. The matrix product is then no slower than
gathering the weights, which takes memory for B T I numbers as well."""

FARTHEST = 40.0
"""Magnitude of a logit from which GELU is 0 or the logit, to the last digit of float64."""


def add_layer(graph: Graph, x: str, layer: Any) -> str:
    """Add a layer of any class to a graph.

    Parameters
    ----------
    graph : Graph
        The graph.
    x : str
        Rows (B, I) of the layer's dtype.
    layer : layer
        The layer.

    Returns
    -------
    str
        The output (B, O).

    Raises
    ------
    ArgumentTypeError
        If the layer has another class.
    """
    if isinstance(layer, FastFeedForward | QuantizedFastFeedForward):
        return _add_paths(graph, x, layer)
    if isinstance(layer, LeafFeedForward | QuantizedLeafFeedForward):
        return _add_leaves(graph, x, layer)
    if isinstance(layer, QuantizedDenseFeedForward):
        layer = layer.dequantize()  # rows stay float32
    if isinstance(layer, DenseFeedForward):
        return add_dense(graph, x, layer.params, layer.config.activation)
    raise ArgumentTypeError(
        "argument 'model' must have a FastFeedForward, a LeafFeedForward or a DenseFeedForward, "
        f"got {describe(layer)}"
    )


def add_dense(graph: Graph, x: str, params: Params, activation: str) -> str:
    """Add a dense layer, by the names of `fffcpu.DenseFeedForward`, and return its output."""
    logits = graph.add("MatMul", x, graph.constant(params["weights_in"].T, "weights_in"))
    if "bias_in" in params:
        logits = graph.add("Add", logits, graph.constant(params["bias_in"], "bias_in"))
    active = activated(graph, logits, activation, params["weights_in"].dtype)
    return graph.add("MatMul", active, graph.constant(params["weights_out"], "weights_out"))


class _Level(NamedTuple):
    """The node of a level that each row is at, in each tree."""

    graph: Graph
    node: str | Array
    """Number of the node among those of all trees (B, T); an array (T,) at the root."""
    trees: int
    places: int
    """Nodes of the level in a tree, P."""
    dtype: np.dtype[Any]
    """Type of the numbers."""

    @property
    def is_whole(self) -> bool:
        """Whether all nodes of the level are computed."""
        return self.places <= WHOLE

    def gather(self, table: str) -> str:
        """Return the rows (B, T, ...) of a table (T P, ...)."""
        return self.graph.add("Gather", table, self.node, axis=0)

    def pick(self, values: str) -> str:
        """Return the values (B, T) of the row's nodes, of those of all nodes (B, T P)."""
        if self.places == 1:
            return values
        apart = self.graph.add("Reshape", values, np.array([0, self.trees, self.places]))
        own = self.graph.add("Where", self.mask(), apart, self._zero)
        return self.graph.add("ReduceSum", own, np.array([2]), keepdims=0)

    def spread(self, values: str) -> str:
        """Return values (B, T) at the place of the row's nodes, 0 at the others (B, T P)."""
        if self.places == 1:
            return values
        apart = self.graph.add("Unsqueeze", values, np.array([2]))
        own = self.graph.add("Where", self.mask(), apart, self._zero)
        return self.graph.add("Reshape", own, np.array([0, self.trees * self.places]))

    def mask(self) -> str:
        """Return which nodes (B, T, P) are those of the row."""
        node = self.graph.add("Unsqueeze", self.node, np.array([2]))
        nodes = np.arange(self.trees * self.places).reshape(1, self.trees, self.places)
        return self.graph.add("Equal", node, nodes)

    def below(self, right: str) -> str:
        """Return the nodes on the next level (B, T), from the choices (B, T)."""
        node, number = self.node, self.graph.cast(right, np.int64)
        doubled = self.graph.add("Add", node, node) if isinstance(node, str) else 2 * node
        return self.graph.add("Add", doubled, number)

    @property
    def _zero(self) -> Array:
        return np.zeros((), self.dtype)


def _root(graph: Graph, config: Any, trees: int) -> _Level:
    return _Level(graph, np.arange(trees), trees, 1, np.dtype(config.dtype))


def _next(level: _Level, right: str) -> _Level:
    return level._replace(node=level.below(right), places=2 * level.places)


def _add_paths(graph: Graph, x: str, layer: FastFeedForward | QuantizedFastFeedForward) -> str:
    """Add a FastFeedForward: on each level the logits of the visited nodes, and their outputs."""
    config = layer.config
    level, y = _root(graph, config, config.trees), ""
    for number in range(config.depth + 1):
        own = _tables(layer.params, number)
        logits = _add_logits(level, x, own)
        used = level
        if number < config.depth or config.two_sided:
            level = _next(level, graph.add("Greater", logits, np.zeros((), level.dtype)))
        if config.two_sided:
            # Output rows of a node, left first, lie as its children on the next level do.
            used, logits = level, graph.add("Abs", logits)
        active = activated(graph, logits, config.activation, level.dtype)
        part = _add_outputs(used, active, own)
        y = graph.add("Add", y, part) if y else part
    return y


def _tables(params: Params, number: int) -> dict[str, Array]:
    """Return the parameters of a level: matrices (T P, ...) and vectors (T P,)."""
    nodes = slice(level_start(number), level_start(number + 1))
    return {
        name: array[:, nodes].reshape(-1, *(array.shape[-1:] if "weights" in name else ()))
        for name, array in params.items()
    }


def _add_logits(level: _Level, x: str, own: Params) -> str:
    """Return the logits (B, T) of the nodes that rows are at."""
    graph, weights = level.graph, own["weights_in"]
    vectors = [
        (operator, graph.constant(own[name], name))
        for operator, name in (("Mul", "scale_in"), ("Add", "bias_in"))
        if name in own
    ]
    if level.is_whole:
        logits = graph.add(
            "MatMul", x, _widened(graph, _table(graph, weights.T, "weights_in"), weights)
        )
        for operator, vector in vectors:
            logits = graph.add(operator, logits, vector)
        return level.pick(logits)
    rows = _widened(graph, level.gather(_table(graph, weights, "weights_in")), weights)
    logits = _dot(level, rows, x)
    for operator, vector in vectors:
        logits = graph.add(operator, logits, level.gather(vector))
    return logits


def _dot(level: _Level, rows: str, x: str) -> str:
    """Return the products (B, T) of gathered rows (B, T, I) with those of x (B, I)."""
    graph = level.graph
    if level.trees == 1:  # faster than matrix products with one row and one column
        product = graph.add("Mul", rows, graph.add("Unsqueeze", x, np.array([1])))
        return graph.add("ReduceSum", product, np.array([2]), keepdims=0)
    product = graph.add("MatMul", rows, graph.add("Unsqueeze", x, np.array([2])))
    return graph.add("Squeeze", product, np.array([2]))


def _add_outputs(level: _Level, active: str, own: Params) -> str:
    """Return the sum (B, O) of the output rows of the nodes, times their activations (B, T)."""
    graph, weights = level.graph, own["weights_out"]
    table = _table(graph, weights, "weights_out")
    scale = graph.constant(own["scale_out"], "scale_out") if "scale_out" in own else ""
    if level.is_whole:
        spread = level.spread(active)
        if scale:
            spread = graph.add("Mul", spread, scale)
        return graph.add("MatMul", spread, _widened(graph, table, weights))
    if scale:
        active = graph.add("Mul", active, level.gather(scale))
    rows = _widened(graph, level.gather(table), weights)
    product = graph.add("MatMul", graph.add("Unsqueeze", active, np.array([1])), rows)
    return graph.add("Squeeze", product, np.array([1]))


def _add_leaves(graph: Graph, x: str, layer: LeafFeedForward | QuantizedLeafFeedForward) -> str:
    """Add a LeafFeedForward: gates level by level, then the leaf that each row has reached."""
    config, params = layer.config, layer.params
    level = _root(graph, config, 1)
    for number in range(config.depth):
        gates = slice(level_start(number), level_start(number + 1))
        own = {"weights_in": params["gate_weights"][gates], "bias_in": params["gate_bias"][gates]}
        with graph.within("gate"):
            logits = _add_logits(level, x, own)
        level = _next(level, graph.add("GreaterOrEqual", logits, np.zeros((), level.dtype)))
    add = _add_all_leaves if level.is_whole else _add_own_leaf
    return add(level, x, params, config.activation)


def _add_all_leaves(level: _Level, x: str, params: Params, activation: str) -> str:
    """Compute all leaves, as a dense layer of K H neurons, and keep those of the row's leaf."""
    graph, weights_in, weights_out = level.graph, *_leaf_weights(params)
    leaves, inputs, width = weights_in.shape
    table = _table(graph, weights_in.swapaxes(0, 1).reshape(inputs, -1), "leaf_weights_in")
    logits = graph.add("MatMul", x, _widened(graph, table, weights_in))
    active = _add_neurons(
        level, logits, params, activation, lambda array, name: graph.constant(array.ravel(), name)
    )
    bias = graph.constant(params["leaf_bias_out"], "leaf_bias_out")
    if leaves > 1:
        apart = graph.add("Reshape", active, np.array([0, leaves, width]))
        mask = graph.add("Transpose", level.mask(), perm=[0, 2, 1])
        own = graph.add("Where", mask, apart, np.zeros((), level.dtype))
        active = graph.add("Reshape", own, np.array([0, leaves * width]))
        bias = graph.add("Squeeze", level.gather(bias), np.array([1]))
    table = _table(graph, weights_out.reshape(leaves * width, -1), "leaf_weights_out")
    y = graph.add("MatMul", active, _widened(graph, table, weights_out))
    return graph.add("Add", y, bias)


def _add_own_leaf(level: _Level, x: str, params: Params, activation: str) -> str:
    """Gather the leaf that each row has reached, and compute it."""
    graph, weights_in, weights_out = level.graph, *_leaf_weights(params)

    def gathered(array: Array, name: str) -> str:
        rows = level.gather(_table(graph, array, name))
        return _widened(graph, rows, array)

    matrix = graph.add("Squeeze", gathered(weights_in, "leaf_weights_in"), np.array([1]))
    logits = graph.add("MatMul", graph.add("Unsqueeze", x, np.array([1])), matrix)
    active = _add_neurons(level, logits, params, activation, gathered)
    matrix = graph.add("Squeeze", gathered(weights_out, "leaf_weights_out"), np.array([1]))
    bias = gathered(params["leaf_bias_out"], "leaf_bias_out")
    y = graph.add("Add", graph.add("MatMul", active, matrix), bias)
    return graph.add("Squeeze", y, np.array([1]))


def _leaf_weights(params: Params) -> tuple[Array, Array]:
    """Return the weights of the leaves: (K, I, H) and (K, H, O)."""
    return params["leaf_weights_in"], params["leaf_weights_out"]


def _add_neurons(
    level: _Level,
    logits: str,
    params: Params,
    activation: str,
    vectors: Callable[[Array, str], str],
) -> str:
    """Return the activations of leaves' neurons; ``vectors`` adds an array (K, H) for them."""
    graph = level.graph

    def applied(operator: str, value: str, name: str) -> str:
        return graph.add(operator, value, vectors(params[name], name)) if name in params else value

    logits = applied("Mul", logits, "leaf_scale_in")
    logits = applied("Add", logits, "leaf_bias_in")
    active = activated(graph, logits, activation, level.dtype)
    return applied("Mul", active, "leaf_scale_out")


def _table(graph: Graph, weights: Array, name: str) -> str:
    """Add weights of any type, as they are."""
    return graph.constant(weights, name, bfloat16=weights.dtype == np.uint16)


def _widened(graph: Graph, values: str, weights: Array) -> str:
    """Return values of the type of some weights as floats: narrow ones as float32."""
    return values if weights.dtype.kind == "f" else graph.cast(values, np.float32)


def activated(graph: Graph, logits: str, activation: str, dtype: np.dtype[Any]) -> str:
    """Return the activations of logits, of the type ``dtype``."""
    kind = Activation.parse(activation)
    if kind is Activation.IDENTITY:
        return logits
    if kind is Activation.RELU:
        return graph.add("Relu", logits)
    if dtype == np.float32:
        return graph.add("Gelu", logits)
    return _gelu_of_doubles(graph, logits)


def _gelu_of_doubles(graph: Graph, logits: str) -> str:
    """Return GELU in float64, by an exponential and a fraction of polynomials, as kernels do.

    ``Gelu`` stands for the error function, which onnxruntime has for float32 alone.
    """
    coefficients = np.array(normal_tail())
    powers = np.arange(coefficients.shape[1] - 1, -1, -1, dtype=np.float64)
    a = graph.add("Min", graph.add("Abs", logits), np.array(FARTHEST))
    apart = graph.add("Pow", graph.add("Unsqueeze", a, np.array([-1])), powers)
    both = graph.add("MatMul", apart, coefficients.T)
    g, h = (graph.add("Gather", both, np.array(place), axis=-1) for place in range(2))
    slope = graph.add("Mul", graph.add("Mul", a, np.array(math.sqrt(2.0 * math.pi))), g)
    tail = graph.add("Div", g, graph.add("Add", slope, h))
    bell = graph.add("Exp", graph.add("Mul", graph.add("Mul", a, a), np.array(-0.5)))
    lost = graph.add("Mul", a, graph.add("Mul", tail, bell))
    return graph.add("Sub", graph.add("Relu", logits), lost)
