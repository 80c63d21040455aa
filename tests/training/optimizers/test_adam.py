"""Adam and AdamW against a plain float64 reference, and weight decay by name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fffcpu.training import Adam, AdamW
from tests.support.optimizers import (
    DTYPES,
    MAKERS,
    SHAPES,
    assert_follows,
    follow_torch,
    row_sparse_run,
    run,
    trajectories,
    twins,
)

TORCH_WITHOUT_DECAY = [
    0.9223811425074891,
    -1.9600869811953012,
    0.6212440599605292,
    2.757179446667634,
]


def test_excluded_trajectory_agrees_with_pytorch_without_decay():
    comp = follow_torch(MAKERS["AdamW"], "layer_norm.weight", np.float64)
    np.testing.assert_allclose(comp, TORCH_WITHOUT_DECAY, rtol=1e-14, atol=0)


def reference_adam(start, gradients, rates, betas, eps, weight_decay):
    """AdamW, one array, from its definition: weighted sums of all gradients, no recursion."""
    p = start.copy()
    for t, lr in enumerate(rates, start=1):
        ages = np.arange(t)[::-1].reshape(-1, *[1] * start.ndim)
        seen = np.array(gradients[:t])
        weights1, weights2 = betas[0] ** ages, betas[1] ** ages
        mean = (weights1 * seen).sum(axis=0) / weights1.sum()
        mean_square = (weights2 * seen**2).sum(axis=0) / weights2.sum()
        p = p - lr * (mean / (np.sqrt(mean_square) + eps) + weight_decay * p)
    return p


BETAS = st.tuples(st.sampled_from([0.0, 0.5, 0.9]), st.sampled_from([0.0, 0.9, 0.999]))


@settings(deadline=None, max_examples=60)
@given(trajectories(), BETAS, st.sampled_from([1e-6, 0.1]), DTYPES)
def test_adam_follows_its_definition(trajectory, betas, eps, dtype):
    comp = run(lambda params: Adam(params, 1.0, betas, eps), trajectory, dtype)
    assert_follows(comp, trajectory, lambda _, *case: reference_adam(*case, betas, eps, 0.0), dtype)


@settings(deadline=None, max_examples=60)
@given(trajectories(), BETAS, st.sampled_from([0.0, 0.5]), DTYPES)
def test_adamw_follows_its_definition_and_spares_names(trajectory, betas, weight_decay, dtype):
    comp = run(
        lambda params: AdamW(params, 1.0, betas, 1e-6, weight_decay=weight_decay),
        trajectory,
        dtype,
    )

    def reference(name, *case):
        decay = {"weights_in": weight_decay, "unused": weight_decay}.get(name, 0.0)
        return reference_adam(*case, betas, 1e-6, decay)

    assert_follows(comp, trajectory, reference, dtype)


@pytest.mark.parametrize(
    ("no_decay", "decaying"),
    [
        (("bias", "norm"), {"weights_in", "unused"}),
        ((), {"weights_in", "bias_in", "norm.scale", "unused"}),
        (["weights_in"], {"bias_in", "norm.scale", "unused"}),
        (("s",), set()),
    ],
)
def test_decay_spares_names_that_contain_a_string(no_decay, decaying):
    params = {name: np.ones(3) for name in SHAPES}
    optimizer = AdamW(params, 0.5, weight_decay=0.2, no_decay=no_decay)
    optimizer.step({name: np.zeros(3) for name in SHAPES})
    assert {name for name in SHAPES if optimizer.decays(name)} == decaying
    for name, array in params.items():
        np.testing.assert_array_equal(array, 0.9 if name in decaying else 1.0)


def test_decay_spares_biases_and_norms_unless_told():
    assert AdamW({}, 0.1).no_decay == ("bias", "norm")


@pytest.mark.parametrize("make", [lambda p: Adam(p, 0.1), lambda p: AdamW(p, 0.1, weight_decay=3)])
@given(seed=st.integers(0, 1000), steps=st.integers(1, 30))
def test_adam_keeps_the_lazy_rule(make, seed, steps):
    """Each row against the rule, written out one number at a time."""
    (params, _), (optimizer, _) = twins(make)
    beta1, beta2 = optimizer.betas
    decay = getattr(optimizer, "weight_decay", 0.0)
    p = params["weights"].reshape(10, 3).copy()
    m, v, last = np.zeros((10, 3)), np.zeros((10, 3)), np.zeros(10, int)
    rates = np.random.default_rng(seed).uniform(0, 0.2, steps)
    for t, (grad, _) in enumerate(row_sparse_run(seed, steps), 1):
        optimizer.step({"weights": grad}, lr=rates[t - 1])
        for row, g in zip(grad.rows, grad.values, strict=True):
            missed = t - 1 - last[row]
            m[row] *= beta1**missed
            v[row] *= beta2**missed
            for rate in rates[last[row] : t]:  # of the missed steps, and of this one
                p[row] *= 1 - rate * decay
            m[row] = beta1 * m[row] + (1 - beta1) * g
            v[row] = beta2 * v[row] + (1 - beta2) * g**2
            mean, root = m[row] / (1 - beta1**t), np.sqrt(v[row] / (1 - beta2**t))
            p[row] -= rates[t - 1] * mean / (root + optimizer.eps)
            last[row] = t
        found = params["weights"].reshape(10, 3)[grad.rows]
        np.testing.assert_allclose(found, p[grad.rows], rtol=1e-8, atol=1e-12)
