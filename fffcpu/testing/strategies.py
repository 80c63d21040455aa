"""Hypothesis strategies: layers and rows, described by shape and drawn from a seed.

Numbers come from NumPy's generator, so that a failing example shrinks to a small shape and not to a
page of digits. ``kind`` is "normal", or "integer": small integers, whose dot products are exact in
any order, so that ties are common and every backend must route exactly alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fffcpu.config import Activation
from fffcpu.errors import require_extra

require_extra("hypothesis", "testing")

from hypothesis import strategies as st  # noqa: E402

__all__ = [
    "ACTIVATIONS",
    "DTYPES",
    "LeafProblem",
    "PathProblem",
    "leaf_problems",
    "narrow_leaf_problems",
    "narrow_path_problems",
    "numbers",
    "path_problems",
]

Array = NDArray[Any]

ACTIVATIONS = ("gelu", "relu", "identity")
DTYPES: tuple[type[np.floating[Any]], ...] = (np.float32, np.float64)
KINDS = ("normal", "integer")


def numbers(rng: np.random.Generator, shape: tuple[int, ...], kind: str, dtype: DTypeLike) -> Array:
    """Return random numbers of a kind."""
    if kind == "integer":
        return rng.integers(-2, 3, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


class PathProblem(NamedTuple):
    """Parameters, rows and upstream gradient of a FastFeedForward layer."""

    x: Array  # (B, I)
    weights_in: Array  # (T, N, I)
    bias_in: Array  # (T, N), zeros for a layer without biases
    weights_out: Array  # (T, N, O), or (T, N, 2, O) for two-sided nodes
    dy: Array  # (B, O)
    activation: str
    kind: str
    scale_in: Array | None = None  # (T, N), of int8 weights
    scale_out: Array | None = None  # (T, N), or (T, N, 2)

    @property
    def sides(self) -> int:
        """Number of sides of a node, 1 or 2."""
        return 1 if self.weights_out.ndim == 3 else 2

    @property
    def code(self) -> int:
        """Activation as kernels take it."""
        return int(Activation.parse(self.activation))

    @property
    def bias(self) -> Array | None:
        """Bias as the oracle and `from_arrays` take it: None for zeros."""
        return self.bias_in if self.bias_in.any() else None


@st.composite
def path_problems(
    draw: st.DrawFn,
    max_rows: int = 12,
    kinds: Sequence[str] = KINDS,
    dtypes: Sequence[DTypeLike] = DTYPES,
    biased: bool | None = None,
    two_sided: bool | None = None,
) -> PathProblem:
    """Draw FastFeedForward problems of small shapes: depth 0, no rows, widths off the lanes.

    Half of them have biases, and half have two-sided nodes, unless the arguments decide it.
    """
    rows = draw(st.integers(0, max_rows))
    width_in, width_out = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    trees, depth = draw(st.integers(1, 3)), draw(st.integers(0, 4))
    bias = draw(st.booleans()) if biased is None else biased
    sides = (2,) if (draw(st.booleans()) if two_sided is None else two_sided) else ()
    dtype, kind = draw(st.sampled_from(dtypes)), draw(st.sampled_from(kinds))
    activation = draw(st.sampled_from(ACTIVATIONS))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    nodes = 2 ** (depth + 1) - 1
    return PathProblem(
        numbers(rng, (rows, width_in), kind, dtype),
        numbers(rng, (trees, nodes, width_in), kind, dtype),
        numbers(rng, (trees, nodes), kind, dtype) * np.dtype(dtype).type(bias),
        numbers(rng, (trees, nodes, *sides, width_out), kind, dtype),
        numbers(rng, (rows, width_out), kind, dtype),
        activation,
        kind,
    )


class LeafProblem(NamedTuple):
    """Parameters, rows and upstream gradient of a LeafFeedForward layer."""

    x: Array  # (B, I)
    params: dict[str, Array]  # name -> array, in the order of from_arrays
    dy: Array  # (B, O)
    activation: str
    kind: str

    @property
    def code(self) -> int:
        """Activation as kernels take it."""
        return int(Activation.parse(self.activation))


@st.composite
def leaf_problems(
    draw: st.DrawFn,
    max_rows: int = 12,
    kinds: Sequence[str] = KINDS,
    dtypes: Sequence[DTypeLike] = DTYPES,
    max_width: int = 40,
) -> LeafProblem:
    """Draw LeafFeedForward problems of small shapes."""
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


def _draw_type(draw: st.DrawFn, weights: str | None) -> str:
    return draw(st.sampled_from(["bfloat16", "int8"])) if weights is None else weights


def _narrow(
    rng: np.random.Generator, array: Array, weights: str, axis: int
) -> tuple[Array, Array, Array]:
    """Return narrow weights made of an array, the widened numbers, and scales without the axis.

    Integers do not change, and their scales are powers of 2, so that sums stay exact.
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
def narrow_path_problems(
    draw: st.DrawFn, weights: str | None = None
) -> tuple[PathProblem, PathProblem]:
    """Draw pairs of FastFeedForward problems: with narrow weights, and with the widened numbers.

    The widened numbers are float32 for bfloat16, and float64 for int8.
    """
    weights = _draw_type(draw, weights)
    problem = draw(path_problems(dtypes=(np.float32,)))
    rng = np.random.default_rng(len(problem.x))
    w_in, wide_in, scale_in = _narrow(rng, problem.weights_in, weights, -1)
    w_out, wide_out, scale_out = _narrow(rng, problem.weights_out, weights, -1)
    wide = problem._replace(weights_in=wide_in, weights_out=wide_out)
    narrow = problem._replace(weights_in=w_in, weights_out=w_out)
    if weights == "int8":
        narrow = narrow._replace(scale_in=scale_in, scale_out=scale_out)
    return narrow, wide


@st.composite
def narrow_leaf_problems(
    draw: st.DrawFn, weights: str | None = None
) -> tuple[LeafProblem, LeafProblem]:
    """Draw pairs of LeafFeedForward problems, as `narrow_path_problems` does."""
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
