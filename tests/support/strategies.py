"""Hypothesis strategies: layers and rows, described by shape and drawn from a seed.

Numbers come from NumPy's generator, so that a failing example shrinks to a small shape and not to a
page of digits. ``kind`` is "normal", or "integer": small integers, whose dot products are exact in
any order, so that ties are common and every backend must route exactly alike.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from fffcpu.config import Activation

ACTIVATIONS = ("gelu", "relu", "identity")
DTYPES = (np.float32, np.float64)


def numbers(rng, shape, kind, dtype):
    """Random numbers of a kind."""
    if kind == "integer":
        return rng.integers(-2, 3, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


class PathProblem(NamedTuple):
    """Parameters, rows and upstream gradient of a FastFeedForward layer."""

    x: np.ndarray  # (B, I)
    weights_in: np.ndarray  # (T, N, I)
    bias_in: np.ndarray  # (T, N)
    weights_out: np.ndarray  # (T, N, O)
    dy: np.ndarray  # (B, O)
    activation: str
    kind: str
    scale_in: np.ndarray | None = None  # (T, N), of int8 weights
    scale_out: np.ndarray | None = None  # (T, N)

    @property
    def code(self):
        return int(Activation.parse(self.activation))

    @property
    def bias(self):
        """Bias as the oracle and `from_arrays` take it: None for zeros."""
        return self.bias_in if self.bias_in.any() else None


@st.composite
def path_problems(draw, max_rows=12, kinds=("normal", "integer"), dtypes=DTYPES, biased=None):
    """FastFeedForward problems of every small shape: depth 0, no rows, widths off the lanes."""
    rows = draw(st.integers(0, max_rows))
    width_in, width_out = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    trees, depth = draw(st.integers(1, 3)), draw(st.integers(0, 4))
    bias = draw(st.booleans()) if biased is None else biased
    dtype, kind = draw(st.sampled_from(dtypes)), draw(st.sampled_from(kinds))
    activation = draw(st.sampled_from(ACTIVATIONS))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    nodes = 2 ** (depth + 1) - 1
    return PathProblem(
        numbers(rng, (rows, width_in), kind, dtype),
        numbers(rng, (trees, nodes, width_in), kind, dtype),
        numbers(rng, (trees, nodes), kind, dtype) * dtype(bias),
        numbers(rng, (trees, nodes, width_out), kind, dtype),
        numbers(rng, (rows, width_out), kind, dtype),
        activation,
        kind,
    )


class LeafProblem(NamedTuple):
    """Parameters, rows and upstream gradient of a LeafFeedForward layer."""

    x: np.ndarray  # (B, I)
    params: dict  # name -> array, in the order of from_arrays
    dy: np.ndarray  # (B, O)
    activation: str
    kind: str

    @property
    def code(self):
        return int(Activation.parse(self.activation))


@st.composite
def leaf_problems(draw, max_rows=12, kinds=("normal", "integer"), dtypes=DTYPES, max_width=40):
    """LeafFeedForward problems of every small shape."""
    rows = draw(st.integers(0, max_rows))
    width_in, width_out = draw(st.integers(1, max_width)), draw(st.integers(1, max_width))
    depth, hidden = draw(st.integers(0, 4)), draw(st.integers(1, 20))
    dtype, kind = draw(st.sampled_from(dtypes)), draw(st.sampled_from(kinds))
    activation = draw(st.sampled_from(ACTIVATIONS))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    leaves = 2**depth
    shapes = {
        "gate_weights": (leaves - 1, width_in),
        "gate_bias": (leaves - 1,),
        "leaf_weights_in": (leaves, width_in, hidden),
        "leaf_bias_in": (leaves, hidden),
        "leaf_weights_out": (leaves, hidden, width_out),
        "leaf_bias_out": (leaves, width_out),
    }
    return LeafProblem(
        numbers(rng, (rows, width_in), kind, dtype),
        {name: numbers(rng, shape, kind, dtype) for name, shape in shapes.items()},
        numbers(rng, (rows, width_out), kind, dtype),
        activation,
        kind,
    )


# --- Narrow weights, and the same problem with the widened numbers --------------------------------


def _draw_type(draw, weights):
    return draw(st.sampled_from(["bfloat16", "int8"])) if weights is None else weights


def _narrow(rng, array, weights, axis):
    """Return narrow weights made of an array, the widened numbers, and scales without the axis.

    Integers stay what they are, with scales that are powers of 2, so that sums stay exact.
    """
    if weights == "bfloat16":
        bits = (np.ascontiguousarray(array).view(np.uint32) >> 16).astype(np.uint16)
        wide = (bits.astype(np.uint32) << 16).view(np.float32)
        return bits, wide, np.ones_like(array).max(axis=axis, initial=0)
    exact = bool((array == np.rint(array)).all())
    shape = array.max(axis=axis, initial=0).shape
    scales = 2.0 ** rng.integers(-2, 2, shape) if exact else rng.uniform(0.01, 0.1, shape)
    scales = scales.astype(np.float32)
    narrow = (array if exact else np.clip(np.rint(40 * array), -127, 127)).astype(np.int8)
    # In float64: float32 would round the product.
    return narrow, narrow * np.expand_dims(scales.astype(np.float64), axis), scales


@st.composite
def narrow_path_problems(draw, weights=None):
    """Pairs of FastFeedForward problems: narrow weights as kernels take them, and widened ones.

    The widened numbers are float32 for bfloat16, and float64 for int8.
    """
    weights = _draw_type(draw, weights)
    problem = draw(path_problems(dtypes=(np.float32,)))
    rng = np.random.default_rng(len(problem.x))
    w_in, wide_in, scale_in = _narrow(rng, problem.weights_in, weights, 2)
    w_out, wide_out, scale_out = _narrow(rng, problem.weights_out, weights, 2)
    wide = problem._replace(weights_in=wide_in, weights_out=wide_out)
    narrow = problem._replace(weights_in=w_in, weights_out=w_out)
    if weights == "int8":
        narrow = narrow._replace(scale_in=scale_in, scale_out=scale_out)
    return narrow, wide


@st.composite
def narrow_leaf_problems(draw, weights=None):
    """Pairs of LeafFeedForward problems, as `narrow_path_problems` makes them."""
    weights = _draw_type(draw, weights)
    problem = draw(leaf_problems(dtypes=(np.float32,)))
    rng = np.random.default_rng(len(problem.x))
    params, wide = dict(problem.params), dict(problem.params)
    scales = []
    for name, axis in (("leaf_weights_in", 1), ("leaf_weights_out", 2)):
        params[name], wide[name], scale = _narrow(rng, params[name], weights, axis)
        scales.append(scale)
    if weights == "int8":
        params["leaf_scale_in"], params["leaf_scale_out"] = scales
    return problem._replace(params=params), problem._replace(params=wide)
