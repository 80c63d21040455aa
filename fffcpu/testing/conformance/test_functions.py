"""A backend has every function, and its functions do not change their inputs."""

from __future__ import annotations

import inspect
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given

from fffcpu import kernels
from fffcpu.kernels.backends import vectorized
from fffcpu.testing.conformance.calls import (
    run_backward,
    run_choices,
    run_forward,
    run_infer,
    run_leaf,
)
from fffcpu.testing.strategies import LeafProblem, PathProblem, leaf_problems, path_problems


@pytest.mark.parametrize("name", kernels.FUNCTIONS)
def test_signature_is_that_of_the_plain_backend(backend: ModuleType, name: str) -> None:
    expected = inspect.signature(getattr(vectorized, name))
    assert list(inspect.signature(getattr(backend, name)).parameters) == list(expected.parameters)


@given(path=path_problems(), leaf=leaf_problems())
def test_inputs_may_be_read_only_and_stay_as_they_are(
    backend: ModuleType, path: PathProblem, leaf: LeafProblem
) -> None:
    inputs = [*path[:5], leaf.x, leaf.dy]
    before = [array.copy() for array in inputs]
    path.x.flags.writeable = path.dy.flags.writeable = leaf.x.flags.writeable = False
    _, logits, nodes = run_forward(backend, path)
    run_choices(backend, path, logits, nodes)
    run_backward(backend, path, logits, nodes)
    run_infer(backend, path)
    run_leaf(backend, leaf)
    for array, copy in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(array, copy)
