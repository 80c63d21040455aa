"""The kernel for rows of Adam, against the same operations in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu import kernels
from fffcpu.kernels import jit
from fffcpu.kernels.adam import adam_rows
from fffcpu.parameters import RowGradient
from fffcpu.training import Adam, AdamW

MAKERS = {
    "Adam": lambda params: Adam(params, 0.05, betas=(0.0, 0.95), eps=1e-3),
    "AdamW": lambda params: AdamW(params, 0.05, weight_decay=0.3),
    "AdamW without decay": lambda params: AdamW(params, 0.05, no_decay=("weights",)),
}


def train(make, kernel, seed, width, dtype):
    """Return parameters and state after steps with gaps, through a kernel or, with None, NumPy."""
    rng = np.random.default_rng(seed)
    params = {"weights": rng.standard_normal((2, 7, width)).astype(dtype)}
    optimizer = make(params)
    with pytest.MonkeyPatch.context() as patch:
        chosen = kernels.selection()._replace(adam_rows=kernel)
        patch.setattr(kernels, "selection", lambda: chosen)
        for _ in range(12):
            rows = np.flatnonzero(rng.random(14) < 0.3)
            values = rng.standard_normal((len(rows), width)).astype(dtype)
            grads = {"weights": RowGradient(rows, values, (2, 7, width))}
            optimizer.step(grads, lr=rng.uniform(0, 0.1))
    return {**params, **optimizer.state_dict()}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@given(
    seed=st.integers(0, 2**32 - 1),
    width=st.integers(0, 40),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_the_kernel_has_the_bits_of_numpy(make, seed, width, dtype):
    ref, comp = (train(make, kernel, seed, width, dtype) for kernel in (None, adam_rows))
    for name, array in ref.items():
        if jit.JIT:
            np.testing.assert_array_equal(comp[name], array, err_msg=name)
        else:  # Python's numbers have their own precision.
            np.testing.assert_allclose(comp[name], array, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_bits_do_not_depend_on_threads(monkeypatch):
    ref = train(MAKERS["AdamW"], adam_rows, 0, 33, np.float32)
    monkeypatch.setattr(jit, "MIN_PARALLEL_WORK", 1)
    comp = train(MAKERS["AdamW"], adam_rows, 0, 33, np.float32)
    for name, array in ref.items():
        np.testing.assert_array_equal(comp[name], array, err_msg=name)


def test_the_kernel_is_used_where_something_compiles():
    assert kernels.selection().adam_rows is (adam_rows if jit.JIT else None)
