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
    bias_in: np.ndarray  # (T, N) or (T, 0)
    weights_out: np.ndarray  # (T, N, O)
    dy: np.ndarray  # (B, O)
    activation: str
    kind: str

    @property
    def code(self):
        return int(Activation.parse(self.activation))

    @property
    def bias(self):
        """Bias as the oracle and `from_arrays` take it."""
        return self.bias_in if self.bias_in.size else None


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
        numbers(rng, (trees, nodes if bias else 0), kind, dtype),
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
