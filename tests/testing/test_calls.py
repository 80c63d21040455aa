"""Calls of the suite see what a kernel writes outside its outputs."""

from __future__ import annotations

import ctypes
import types

import numpy as np
import pytest

from fffcpu import kernels
from fffcpu.kernels.backends import vectorized
from fffcpu.testing.conformance import calls
from fffcpu.testing.strategies import LeafProblem, PathProblem

RNG = np.random.default_rng(0)
PATH = PathProblem(
    *(RNG.random(shape) for shape in ((2, 3), (1, 3, 3), (1, 3), (1, 3, 4), (2, 4))),
    "gelu",
    "normal",
)
LEAF_SHAPES = {
    "gate_weights": (1, 3),
    "gate_bias": (1,),
    "leaf_weights_in": (2, 3, 5),
    "leaf_bias_in": (2, 5),
    "leaf_weights_out": (2, 5, 4),
    "leaf_bias_out": (2, 4),
}
LEAF = LeafProblem(
    RNG.random((2, 3)),
    {name: RNG.random(shape) for name, shape in LEAF_SHAPES.items()},
    RNG.random((2, 4)),
    "gelu",
    "normal",
)
OUTPUTS = {
    "path_logits": 2,
    "path_infer": 1,
    "path_forward": 3,
    "path_choices": 1,
    "path_backward": 4,
    "leaf_route": 1,
    "leaf_infer": 1,
}
"""Number of outputs of each function."""


def spilling(name, output, place):
    """Return the plain backend, one of whose functions also writes next to an output."""

    def function(*arguments):
        getattr(vectorized, name)(*arguments)
        array = arguments[output]
        start = array.ctypes.data + (-array.itemsize if place == "before" else array.nbytes)
        np.frombuffer((ctypes.c_char * array.itemsize).from_address(start), np.uint8)[:] = 1

    functions = {own: getattr(vectorized, own) for own in kernels.FUNCTIONS}
    return types.SimpleNamespace(**{**functions, name: function})


def run_all(backend):
    """Call every function."""
    _, logits, nodes = calls.run_forward(backend, PATH)
    calls.run_logits(backend, PATH)
    calls.run_infer(backend, PATH)
    calls.run_choices(backend, PATH, logits, nodes)
    calls.run_backward(backend, PATH, logits, nodes)
    calls.run_backward_rows(backend, PATH, logits, nodes, np.arange(3), 3)
    calls.run_leaf(backend, LEAF)


def test_functions_that_write_their_outputs_only_pass():
    run_all(vectorized)


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize(
    ("name", "output"),
    [(name, output) for name, count in OUTPUTS.items() for output in range(count)],
)
def test_function_that_writes_next_to_an_output_fails(name, output, place):
    with pytest.raises(AssertionError, match=f"also wrote {place} the memory of its output"):
        run_all(spilling(name, output, place))
