"""The plain backend's blocks, which must not matter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from fffcpu.kernels.backends import vectorized
from fffcpu.testing.conformance.calls import (
    run_backward,
    run_choices,
    run_infer,
    run_leaf,
    run_logits,
)
from fffcpu.testing.strategies import leaf_problems, path_problems


@given(problem=path_problems(max_rows=12), leaf=leaf_problems(max_rows=12))
def test_the_plain_backend_does_not_depend_on_its_blocks(problem, leaf):
    whole = [run_infer(vectorized, problem), *run_leaf(vectorized, leaf)]
    paths = run_logits(vectorized, problem)
    gradients = run_backward(vectorized, problem, *paths)
    choices = run_choices(vectorized, problem, *paths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectorized, "BLOCK_ELEMENTS", 100)
        parts = [run_infer(vectorized, problem), *run_leaf(vectorized, leaf)]
        again = run_backward(vectorized, problem, *run_logits(vectorized, problem))
        choices_again = run_choices(vectorized, problem, *paths)
    for one, other in zip(
        [*whole, choices, gradients[0], *gradients[1].values()],
        [*parts, choices_again, again[0], *again[1].values()],
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
