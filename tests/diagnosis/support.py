"""Trees made by hand, and random ones, which the tests of this folder share."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st

from fffcpu import FastFeedForward, LeafFeedForward

GATES = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
"""Gate 0 asks for the sign of the first number, gates 1 and 2 for that of the second."""

ROWS = np.array([[-1.0, -1.0]] * 5 + [[1.0, -1.0]] + [[3.0, 1.0], [1.0, 0.001]])
"""Five rows go to leaf 0, none to leaf 1, one to leaf 2 and two to leaf 3."""

VISITS = [8, 5, 3, 5, 0, 1, 2]


def entropy(*shares):
    return -sum(share * math.log(share) for share in shares if share)


def node_layer():
    """A FastFeedForward of depth 2 that routes by `GATES`; the last level never matters."""
    weights_in = np.concatenate([GATES, np.ones((4, 2))])[np.newaxis]
    return FastFeedForward.from_arrays(weights_in, np.ones((1, 7, 3)))


def leaf_layer():
    """The LeafFeedForward with the same gates."""
    leaves = LeafFeedForward(2, 3, 2, 1, dtype=np.float64, rng=0).params
    arrays = {name: array for name, array in leaves.items() if name.startswith("leaf")}
    return LeafFeedForward.from_arrays(GATES, np.zeros(3), **arrays)


MADE = {"node": node_layer, "leaf": leaf_layer}

RANDOM = {
    "node": lambda depth, seed: FastFeedForward(3, 2, depth, 2, rng=seed),
    "no bias": lambda depth, seed: FastFeedForward(3, 2, depth, bias=False, rng=seed),
    "leaf": lambda depth, seed: LeafFeedForward(3, 2, depth, 1, dtype=np.float64, rng=seed),
    "bfloat16": lambda depth, seed: FastFeedForward(3, 2, depth, 2, rng=seed).quantize("bfloat16"),
    "int8": lambda depth, seed: FastFeedForward(3, 2, depth, rng=seed).quantize("int8"),
    "leaf int8": lambda depth, seed: LeafFeedForward(3, 2, depth, 2, rng=seed).quantize("int8"),
}


@st.composite
def problems(draw):
    """A random layer of any kind, and rows."""
    kind, depth = draw(st.sampled_from(sorted(RANDOM))), draw(st.integers(0, 5))
    seed = draw(st.integers(0, 2**32 - 1))
    rows = np.random.default_rng(seed + 1).standard_normal((draw(st.integers(1, 30)), 3))
    return RANDOM[kind](depth, seed), rows
