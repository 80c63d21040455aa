"""The kernels of Adam, against the same operations in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu import kernels
from fffcpu.kernels import adam, jit
from fffcpu.parameters import RowGradient
from fffcpu.training import Adam, AdamW

MAKERS = {
    "Adam": lambda params: Adam(params, 0.05, betas=(0.0, 0.95), eps=1e-3),
    "AdamW": lambda params: AdamW(params, 0.05, weight_decay=0.3),
    "AdamW without decay": lambda params: AdamW(params, 0.05, no_decay=("weights",)),
}


def random_numbers(rng, shape, dtype):
    """Normal numbers; about half of them are of any size, down to the smallest ones."""
    numbers = rng.standard_normal(shape)
    lowest = np.log2(float(np.finfo(dtype).smallest_subnormal))
    numbers[rng.random(shape) < 0.5] *= 2.0 ** rng.uniform(lowest, 0)
    return numbers.astype(dtype)


def train(make, kernels_of_adam, seed, width, dtype, dense=False):
    """Return parameters and state after steps with gaps, through kernels or, with None, NumPy."""
    rng = np.random.default_rng(seed)
    params = {"weights": random_numbers(rng, (2, 7, width), dtype)}
    optimizer = make(params)
    with pytest.MonkeyPatch.context() as patch:
        chosen = kernels.selection()._replace(adam=kernels_of_adam)
        patch.setattr(kernels, "selection", lambda: chosen)
        for _ in range(12):
            rows = np.flatnonzero(rng.random(14) < 0.3)
            values = random_numbers(rng, (len(rows), width), dtype)
            grad = RowGradient(rows, values, (2, 7, width))
            grads = {"weights": grad.dense() if dense else grad}
            optimizer.step(grads, lr=rng.uniform(0, 0.1))
    return {**params, **optimizer.state_dict()}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@given(
    seed=st.integers(0, 2**32 - 1),
    width=st.integers(0, 40),
    dtype=st.sampled_from([np.float32, np.float64]),
    dense=st.booleans(),
)
def test_the_kernels_have_the_bits_of_numpy(make, seed, width, dtype, dense):
    ref, comp = (train(make, kernel, seed, width, dtype, dense) for kernel in (None, adam))
    for name, array in ref.items():
        if jit.JIT:
            np.testing.assert_array_equal(comp[name], array, err_msg=name)
        else:  # Python's numbers have their own precision.
            np.testing.assert_allclose(comp[name], array, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("dense", [False, True])
def test_bits_do_not_depend_on_threads(monkeypatch, dense):
    ref = train(MAKERS["AdamW"], adam, 0, 33, np.float32, dense)
    monkeypatch.setattr(jit, "MIN_PARALLEL_WORK", 1)
    comp = train(MAKERS["AdamW"], adam, 0, 33, np.float32, dense)
    for name, array in ref.items():
        np.testing.assert_array_equal(comp[name], array, err_msg=name)


def test_the_kernels_are_used_where_something_compiles():
    assert kernels.selection().adam is (adam if jit.JIT else None)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dense_steps_of_any_layout_have_the_same_bits(dtype):
    rng = np.random.default_rng(3)
    start, gradients = rng.standard_normal((6, 10)), rng.standard_normal((4, 6, 10))

    def after(place, given):
        params = {"weights": place}
        optimizer = AdamW(params, 0.1)
        for grad in given(gradients.astype(dtype)):
            optimizer.step({"weights": grad})
        return params["weights"].copy()

    plain = start.astype(dtype)
    ref = after(plain.copy(), list)
    for place in (np.asfortranarray(plain), np.repeat(plain, 2, axis=1)[:, ::2]):
        np.testing.assert_array_equal(after(place, list), ref)
    backwards = lambda grads: [grad[::-1].copy()[::-1] for grad in grads]  # noqa: E731
    np.testing.assert_array_equal(after(plain.copy(), backwards), ref)
