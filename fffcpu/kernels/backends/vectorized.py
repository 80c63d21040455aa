"""Plain NumPy: the backend that is always available, and the definition of all backends' behaviour.

Shape symbols: B rows, I input width, O output width, T trees, N nodes in a tree, L levels, S sides
of a node; in the leaf layer G gates, K leaves, H leaf width. All arrays are C-contiguous and, apart
from ``nodes`` and ``leaves`` (int32), of one dtype, float32 or float64. A layer without a bias has
zeros in ``bias_in``. ``activation`` is a code of `fffcpu.config.Activation`. Functions write into
their first arguments and return nothing; ``x`` and ``dy`` may be read-only.

A node has S = 1 or 2 rows of output weights. With one, it adds ``act(logit) * weights_out``. With
two, one for each side (left first), it adds ``act(|logit|)`` times the row of the side to which the
row goes from there; the nodes of the last level have sides as well.

Functions of inference (`path_logits`, `path_infer`, `leaf_infer`) also take *narrow weights*; all
other arrays are then float32:

bfloat16
    Weights are uint16 arrays of bits, the upper halves of float32 numbers. The result has the same
    bits as with float32 arrays of the same numbers.
int8
    Weights are int8 arrays, and each node has one scale for its input weights and one for each row
    of its output weights: ``logit = scale_in * dot + bias``, and the output weights are multiplied
    by ``scale_out`` times the activation. In the leaf layer each neuron has both scales, of shape
    (K, H); gates are never narrow. With other weights the scales are None.

A backend without narrow weights raises ArgumentTypeError for them.

Rows are independent, to the bit: a row's products are summed along its own contiguous memory, so
its result does not depend on the rest of the batch. A BLAS matrix product does not guarantee this.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from fffcpu.config import Activation
from fffcpu.lowbit import from_bfloat16

__all__ = [
    "activate",
    "activate_gradient",
    "leaf_infer",
    "leaf_route",
    "path_backward",
    "path_choices",
    "path_forward",
    "path_infer",
    "path_logits",
]

Array = NDArray[Any]
Function = TypeVar("Function", bound=Callable[..., Any])

BLOCK_ELEMENTS = 1 << 18
"""Number of weights gathered at a time; they stay in cache, and memory stays small for any B."""


def _quiet(function: Function) -> Function:
    """Suppress a function's floating-point warnings: numbers that are not finite are permitted.

    ``np.errstate`` itself, as a decorator, would be one object for all threads in older NumPy.
    """

    @functools.wraps(function)
    def quiet(*arguments: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*arguments)

    return cast(Function, quiet)


@_quiet
def activate(s: Array, activation: int) -> Array:
    """Return the activation of every number; infinities and NaN always become NaN."""
    if activation == Activation.GELU:
        from scipy.special import ndtr

        result: Array = s * ndtr(s)
    else:
        result = np.maximum(s, 0) if activation == Activation.RELU else s.copy()
    result[~np.isfinite(s)] = np.nan
    return result


@_quiet
def activate_gradient(s: Array, activation: int) -> Array:
    """Return the derivative of `activate`; 0 at 0 for ReLU."""
    if activation == Activation.GELU:
        from scipy.special import ndtr

        density = np.exp(-0.5 * s * s) * s.dtype.type(1 / math.sqrt(2 * math.pi))
        result: Array = ndtr(s) + s * density
    elif activation == Activation.RELU:
        result = (s > 0).astype(s.dtype)
    else:
        result = np.ones_like(s)
    result[~np.isfinite(s)] = np.nan
    return result


def _blocks(rows: int, width: int) -> Iterator[slice]:
    """Split rows into slices of at most `BLOCK_ELEMENTS` elements."""
    step = max(1, BLOCK_ELEMENTS // width)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def _widened(gathered: Array) -> Array:
    """Return gathered weights as floats: narrow ones as float32, others unchanged."""
    if gathered.dtype == np.uint16:
        return from_bfloat16(gathered)
    return gathered.astype(np.float32) if gathered.dtype == np.int8 else gathered


def _dot(gathered: Array, x: Array) -> Array:
    """Return the dot product of each gathered row with its row of x; overwrites ``gathered``."""
    gathered = _widened(gathered)
    np.multiply(gathered, x, out=gathered)
    result: Array = np.add.reduce(gathered, axis=-1)
    return result


def _finished(products: Array, bias: Array, scale: Array | None, at: Any) -> Array:
    """Return logits from dot products: times the scale if weights are int8, plus the bias."""
    if scale is not None:
        products *= scale[at]
    products += bias[at]
    return products


def _scaled(active: Array, scale: Array | None, at: Any) -> Array:
    """Return activations, times the scales of the output weights if weights are int8."""
    return active if scale is None else active * scale[at]


def _active(logits: Array, sides: int, activation: int) -> Array:
    """Return the activations of the visited nodes: at two sides, of the logits' magnitudes."""
    return activate(np.abs(logits) if sides == 2 else logits, activation)


def _slopes(logits: Array, sides: int, activation: int) -> Array:
    """Return the derivatives of `_active`; at two sides 0 at 0."""
    if sides == 1:
        return activate_gradient(logits, activation)
    slopes: Array = activate_gradient(np.abs(logits), activation) * np.sign(logits)
    return slopes


def _taken(logits: Array, sides: int) -> Array:
    """Return which row of a node's output weights is used: 1 on the right at two sides, else 0."""
    return ((logits > 0) & (sides == 2)).astype(np.intp)


@_quiet
def path_logits(
    logits: Array,
    nodes: Array,
    x: Array,
    weights_in: Array,
    bias_in: Array,
    scale_in: Array | None,
) -> None:
    """Write the logits of the nodes that each row visits: conditional matrix multiplication.

    A row starts at node 0. It goes right if its logit is above 0, else (a tie, NaN) left.

    Parameters
    ----------
    logits : array of shape (B, T, L), written
    nodes : int32 array of shape (B, T, L), written
    x : array of shape (B, I)
    weights_in : array of shape (T, N, I)
    bias_in : array of shape (T, N)
    scale_in : array of shape (T, N), or None unless the weights are int8
    """
    levels = logits.shape[2]
    for tree, weights in enumerate(weights_in):
        for rows in _blocks(*x.shape):
            node = np.zeros(rows.stop - rows.start, np.int32)
            for level in range(levels):
                logit = _finished(_dot(weights[node], x[rows]), bias_in, scale_in, (tree, node))
                nodes[rows, tree, level] = node
                logits[rows, tree, level] = logit
                node = 2 * node + 1 + (logit > 0)


def _path_output(
    y: Array,
    logits: Array,
    nodes: Array,
    weights_out: Array,
    scale_out: Array | None,
    activation: int,
) -> None:
    """Write the sum of the visited nodes' output weights, times their activations, to y (B, O)."""
    _, trees, levels = nodes.shape
    sides = weights_out.shape[2]
    y[...] = 0
    for rows in _blocks(*y.shape):
        active = _active(logits[rows], sides, activation)
        for tree in range(trees):
            for level in range(levels):
                at = (tree, nodes[rows, tree, level], _taken(logits[rows, tree, level], sides))
                weight = _scaled(active[:, tree, level], scale_out, at)
                y[rows] += weight[:, np.newaxis] * _widened(weights_out[at])


@_quiet
def path_infer(
    y: Array,
    x: Array,
    weights_in: Array,
    bias_in: Array,
    weights_out: Array,
    scale_in: Array | None,
    scale_out: Array | None,
    activation: int,
) -> None:
    """Write the output of FastFeedForward: the sum of what the visited nodes add.

    Parameters
    ----------
    y : array of shape (B, O), written
        Output; it shares no memory with ``x``.
    x : array of shape (B, I)
    weights_in : array of shape (T, N, I)
    bias_in : array of shape (T, N)
    weights_out : array of shape (T, N, S, O)
    scale_in, scale_out : arrays of shapes (T, N) and (T, N, S), or None unless weights are int8
    activation : int
    """
    trees, count, _ = weights_in.shape
    shape = (len(x), trees, count.bit_length())
    logits, nodes = np.empty(shape, x.dtype), np.empty(shape, np.int32)
    path_logits(logits, nodes, x, weights_in, bias_in, scale_in)
    _path_output(y, logits, nodes, weights_out, scale_out, activation)


@_quiet
def path_forward(
    y: Array,
    logits: Array,
    nodes: Array,
    x: Array,
    weights_in: Array,
    bias_in: Array,
    weights_out: Array,
    activation: int,
) -> None:
    """Like `path_infer` without scales, but keep what `path_backward` needs.

    Parameters
    ----------
    y : array of shape (B, O), written
    logits : array of shape (B, T, L), written
    nodes : int32 array of shape (B, T, L), written
    x, weights_in, bias_in, weights_out, activation
        Same as for `path_infer`.
    """
    path_logits(logits, nodes, x, weights_in, bias_in, None)
    _path_output(y, logits, nodes, weights_out, None, activation)


@_quiet
def path_choices(
    d_logits: Array,
    dy: Array,
    x: Array,
    logits: Array,
    nodes: Array,
    weights_in: Array,
    bias_in: Array,
    weights_out: Array,
    activation: int,
) -> None:
    """Write the gradients of FastFeedForward's logits due to choices, straight through.

    The value of a choice is the output of the right subtree less that of the left one; at two sides
    with that of the node itself, whose weights differ. One of the two is what the row got from that
    node on. The other is what it would have got if it had gone the other way at that node only. If
    the other is not finite, the value is 0.

    Parameters
    ----------
    d_logits : array of shape (B, T, L), written
        Products of ``dy``, that value and the normal density at the logit; with one side 0 at the
        last level, which has no choice.
    dy : array of shape (B, O)
        Upstream gradient.
    x : array of shape (B, I)
    logits, nodes : arrays of shape (B, T, L)
        Arrays that `path_forward` wrote.
    weights_in : array of shape (T, N, I)
    bias_in : array of shape (T, N)
    weights_out : array of shape (T, N, S, O)
    activation : int
    """
    _, trees, levels = nodes.shape
    sides = weights_out.shape[2]
    for rows in _blocks(len(x), max(x.shape[1], dy.shape[1])):
        for tree in range(trees):
            active = _active(logits[rows, tree], sides, activation)
            taken = np.zeros(len(active), x.dtype)
            for level in reversed(range(levels)):
                node, right = nodes[rows, tree, level], logits[rows, tree, level] > 0
                side = _taken(logits[rows, tree, level], sides)
                other = np.zeros(len(active), x.dtype)
                aside = 2 * node + 2 - right
                for _ in range(level + 1, levels):
                    products = _dot(weights_in[tree, aside], x[rows])
                    logit = _finished(products, bias_in, None, (tree, aside))
                    share = _dot(weights_out[tree, aside, _taken(logit, sides)], dy[rows])
                    other += _active(logit, sides, activation) * share
                    aside = 2 * aside + 1 + (logit > 0)
                own = np.zeros(len(active), x.dtype)
                if level or sides == 2:  # the value of the only side of a root is not needed
                    own = active[:, level] * _dot(weights_out[tree, node, side], dy[rows])
                if sides == 2:
                    taken += own
                    other += active[:, level] * _dot(weights_out[tree, node, 1 - side], dy[rows])
                better = np.where(np.isfinite(other), taken - other, 0 * taken)
                d_logits[rows, tree, level] = np.where(right, better, -better)
                if sides == 1:
                    taken += own
        density = np.exp(np.square(logits[rows]) * x.dtype.type(-0.5))
        density *= x.dtype.type(1 / math.sqrt(2 * math.pi))
        d_logits[rows] *= density


@_quiet
def path_backward(
    dx: Array,
    d_weights_in: Array,
    d_bias_in: Array,
    d_weights_out: Array,
    dy: Array,
    x: Array,
    logits: Array,
    nodes: Array,
    d_logits: Array,
    places: Array,
    weights_in: Array,
    weights_out: Array,
    activation: int,
) -> None:
    """Write gradients of FastFeedForward at visited nodes; routes are fixed except for d_logits.

    Parameters
    ----------
    dx : array of shape (B, I), written
    d_weights_in : array of shape (R, I), zeros, written where a node was visited
        Gradient with R rows, for all nodes or only for visited ones.
    d_bias_in : array of shape (R,), zeros, written where a node was visited
        Gradient, also written if the layer has no bias.
    d_weights_out : array of shape (R, S, O), zeros, written where a node was visited
    dy : array of shape (B, O)
        Upstream gradient.
    x : array of shape (B, I)
    logits, nodes : arrays of shape (B, T, L)
        Arrays that `path_forward` wrote.
    d_logits : array of shape (B, T, L), or (B, T, 0) for none
        Terms that are added to the gradients of the visited logits, such as those of
        `path_choices`.
    places : int64 array of shape (T * N,)
        Row of the gradients for each node, ``places[t * N + n]``; each row belongs to one node.
        Entries of nodes without a visit are not read.
    weights_in : array of shape (T, N, I)
    weights_out : array of shape (T, N, S, O)
    activation : int
    """
    _, trees, levels = nodes.shape
    _, count, sides, _ = weights_out.shape
    dx[...] = 0
    for rows in _blocks(len(x), max(x.shape[1], dy.shape[1])):
        active = _active(logits[rows], sides, activation)
        slope = _slopes(logits[rows], sides, activation)
        for tree in range(trees):
            for level in range(levels):
                node = nodes[rows, tree, level]
                side = _taken(logits[rows, tree, level], sides)
                delta = slope[:, tree, level] * _dot(weights_out[tree, node, side], dy[rows])
                if d_logits.shape[2]:
                    delta += d_logits[rows, tree, level]
                dx[rows] += delta[:, np.newaxis] * weights_in[tree, node]
                place = places[tree * count + node]
                np.add.at(d_weights_in, place, delta[:, np.newaxis] * x[rows])
                np.add.at(d_bias_in, place, delta)
                shares = active[:, tree, level, np.newaxis] * dy[rows]
                np.add.at(d_weights_out, (place, side), shares)


@_quiet
def leaf_route(leaves: Array, x: Array, gate_weights: Array, gate_bias: Array) -> None:
    """Write the leaf that each row reaches in LeafFeedForward.

    At each gate a row goes right if its logit is at least 0 (ties included), else (also for NaN)
    left.

    Parameters
    ----------
    leaves : int32 array of shape (B,), written
    x : array of shape (B, I)
    gate_weights : array of shape (G, I)
    gate_bias : array of shape (G,)
    """
    for rows in _blocks(*x.shape):
        leaves[rows], _ = _descend_gates(x[rows], gate_weights, gate_bias)


def _descend_gates(x: Array, gate_weights: Array, gate_bias: Array) -> tuple[Array, Array]:
    """Return the leaf that each row reaches, and whether every logit on its path was finite."""
    node = np.zeros(len(x), np.int32)
    finite = np.ones(len(x), np.bool_)
    gates = len(gate_bias)
    for _ in range(gates.bit_length()):
        logit = _dot(gate_weights[node], x) + gate_bias[node]
        finite &= np.isfinite(logit)
        node = 2 * node + 1 + (logit >= 0)
    return node - gates, finite


@_quiet
def leaf_infer(
    y: Array,
    x: Array,
    gate_weights: Array,
    gate_bias: Array,
    leaf_weights_in: Array,
    leaf_bias_in: Array,
    leaf_weights_out: Array,
    leaf_bias_out: Array,
    leaf_scale_in: Array | None,
    leaf_scale_out: Array | None,
    activation: int,
) -> None:
    """Write the output of LeafFeedForward at inference: that of the one leaf each row reaches.

    Parameters
    ----------
    y : array of shape (B, O), written
        Output; it shares no memory with ``x``.
    x : array of shape (B, I)
    gate_weights : array of shape (G, I)
    gate_bias : array of shape (G,)
    leaf_weights_in : array of shape (K, I, H)
    leaf_bias_in : array of shape (K, H)
    leaf_weights_out : array of shape (K, H, O)
    leaf_bias_out : array of shape (K, O)
    leaf_scale_in, leaf_scale_out : arrays of shape (K, H), or None unless the weights are int8
    activation : int
    """
    _, width, hidden = leaf_weights_in.shape
    for rows in _blocks(len(x), max(width, hidden, y.shape[1])):
        leaf, finite = _descend_gates(x[rows], gate_weights, gate_bias)
        logits = np.zeros((len(leaf), hidden), x.dtype)
        output = np.zeros_like(y[rows])
        for column in range(width):
            logits += x[rows, column, np.newaxis] * _widened(leaf_weights_in[leaf, column])
        active = activate(_finished(logits, leaf_bias_in, leaf_scale_in, leaf), activation)
        active[~finite] = np.nan
        active = _scaled(active, leaf_scale_out, leaf)
        for neuron in range(hidden):
            output += active[:, neuron, np.newaxis] * _widened(leaf_weights_out[leaf, neuron])
        y[rows] = output + leaf_bias_out[leaf]
