"""SGD against a plain float64 reference, and its exactness with row-sparse gradients."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fffcpu.training import SGD
from tests.support.optimizers import (
    DTYPES,
    EXACT,
    assert_follows,
    row_sparse_run,
    run,
    trajectories,
    twins,
)


def reference_sgd(start, gradients, rates, momentum, weight_decay):
    """Stochastic gradient descent, one array, from its definition."""
    p, u = start.copy(), np.zeros_like(start)
    for g, lr in zip(gradients, rates, strict=True):
        u = momentum * u + g + weight_decay * p
        p = p - lr * u
    return p


@settings(deadline=None, max_examples=60)
@given(trajectories(), st.sampled_from([0.0, 0.5, 0.9]), st.sampled_from([0.0, 0.1]), DTYPES)
def test_sgd_follows_its_definition(trajectory, momentum, weight_decay, dtype):
    comp = run(lambda params: SGD(params, 1.0, momentum, weight_decay), trajectory, dtype)
    assert_follows(
        comp, trajectory, lambda _, *case: reference_sgd(*case, momentum, weight_decay), dtype
    )


def test_state_of_sgd_holds_moments_only_with_momentum():
    assert list(SGD({"w": np.ones(2)}, 0.1).state_dict()) == ["step"]
    assert list(SGD({"w": np.ones(2)}, 0.1, 0.5).state_dict()) == ["step", "velocity.w"]


@pytest.mark.parametrize("kind", EXACT)
@given(seed=st.integers(0, 1000), steps=st.integers(1, 40))
def test_sgd_is_exact_with_row_sparse_gradients(kind, seed, steps):
    (sparse_params, dense_params), (sparse, dense) = twins(EXACT[kind])
    rates = np.random.default_rng(seed).uniform(0, 0.2, steps)
    for rate, (rows, whole) in zip(rates, row_sparse_run(seed, steps), strict=True):
        sparse.step({"weights": rows}, lr=rate)
        dense.step({"weights": whole}, lr=rate)
        touched = sparse_params["weights"].reshape(10, 3)[rows.rows]
        expected = dense_params["weights"].reshape(10, 3)[rows.rows]
        np.testing.assert_allclose(touched, expected, rtol=1e-9, atol=1e-12)
    sparse.bring_up_to_date()
    np.testing.assert_allclose(
        sparse_params["weights"], dense_params["weights"], rtol=1e-9, atol=1e-12
    )
    for key, array in dense.state_dict().items():
        np.testing.assert_allclose(sparse.state_dict()[key], array, rtol=1e-9, atol=1e-12)
