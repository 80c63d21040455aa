"""What the tests of optimizers share: makers, arrays, trajectories, row-sparse gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import strategies as st

from fffcpu.parameters import RowGradient
from fffcpu.training import SGD, Adam, AdamW

SEEDS = st.integers(0, 2**32 - 1)

SHAPES = {"weights_in": (2, 3, 4), "bias_in": (2, 3), "norm.scale": (), "unused": (0, 5)}

MAKERS = {
    "SGD": lambda params: SGD(params, 0.1),
    "SGD momentum": lambda params: SGD(params, 0.1, momentum=0.9, weight_decay=0.05),
    "Adam": lambda params: Adam(params, 0.05, betas=(0.8, 0.95), eps=1e-3),
    "AdamW": lambda params: AdamW(params, 0.05, (0.9, 0.98), 1e-12, weight_decay=0.1),
}

each_optimizer = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def random_arrays(rng, dtype=np.float64, shapes=SHAPES):
    """Arrays of normal numbers, by name."""
    return {name: np.array(rng.normal(size=shape), dtype) for name, shape in shapes.items()}


def copies(arrays):
    """The same numbers in memory of their own."""
    return {name: array.copy() for name, array in arrays.items()}


def assert_same(comp, ref):
    """Two mappings hold the same names and the same bits."""
    assert list(comp) == list(ref)
    for name, array in ref.items():
        assert comp[name].dtype == array.dtype
        np.testing.assert_array_equal(comp[name], array, err_msg=name)


def train(optimizer, rng, steps, dtype=np.float64):
    """Make steps with normal gradients and a falling learning rate."""
    for step in range(steps):
        optimizer.step(random_arrays(rng, dtype), lr=0.1 / (step + 1))


START = [1.0, -2.0, 0.5, 3.0]
"""Where the trajectories of PyTorch start."""


def torch_gradient(step):
    """Four numbers of very different sizes."""
    return np.array([math.sin(1.7 * (step + 1) * (i + 1)) * 10.0 ** (i - 2) for i in range(4)])


def follow_torch(make, name, dtype):
    """Parameters after the six steps."""
    params = {name: np.array(START, dtype)}
    optimizer = make(params)
    for step in range(6):
        if step == 4:
            optimizer.lr *= 0.5
        optimizer.step({name: torch_gradient(step).astype(dtype)})
    return params[name]


@st.composite
def trajectories(draw):
    """Start, gradients of each step and learning rates, all float64."""
    rng = np.random.default_rng(draw(SEEDS))
    steps = draw(st.integers(0, 6))
    return (
        random_arrays(rng),
        [random_arrays(rng) for _ in range(steps)],
        rng.uniform(0.0, 0.2, steps).tolist(),
    )


def run(make, trajectory, dtype):
    """What the optimizer makes of the start."""
    start, gradients, rates = trajectory
    params = {name: array.astype(dtype) for name, array in start.items()}
    optimizer = make(params)
    for grads, rate in zip(gradients, rates, strict=True):
        optimizer.step({name: grad.astype(dtype) for name, grad in grads.items()}, lr=rate)
    return params


def assert_follows(comp, trajectory, reference, dtype):
    """Each parameter is where the reference of that name and start ends."""
    start, gradients, rates = trajectory
    tolerance = 1e-11 if dtype == np.float64 else 1e-4
    for name, array in start.items():
        ref = reference(name, array, [grads[name] for grads in gradients], rates)
        np.testing.assert_allclose(comp[name], ref, rtol=tolerance, atol=tolerance, err_msg=name)


DTYPES = st.sampled_from([np.float32, np.float64])

LAYOUTS = {
    "Fortran": lambda array: np.asfortranarray(array),
    "strided": lambda array: np.repeat(array, 2, axis=-1)[..., ::2],
    "negative": lambda array: array[::-1].copy()[::-1],
}


def read_only():
    array = np.ones(2)
    array.flags.writeable = False
    return array


def row_sparse_run(seed, steps, leading=(2, 5), width=3, dtype=np.float64, always=False):
    """Gradients of steps in which a few rows are touched, row-sparse and dense."""
    rng = np.random.default_rng(seed)
    count = int(np.prod(leading))
    for _ in range(steps):
        chosen = np.flatnonzero(rng.random(count) < 0.3)
        rows = np.arange(count) if always else chosen
        values = rng.standard_normal((len(rows), width)).astype(dtype)
        sparse = RowGradient(rows.astype(np.int64), values, (*leading, width))
        yield sparse, sparse.dense()


def twins(make, dtype=np.float64, leading=(2, 5), width=3):
    """Two optimizers of the same kind over parameters of the same numbers."""
    start = np.random.default_rng(9).standard_normal((*leading, width)).astype(dtype)
    params = [{"weights": start.copy()}, {"weights": start.copy()}]
    return params, [make(each) for each in params]


EXACT = {
    "plain": lambda params: SGD(params, 0.1),
    "decay": lambda params: SGD(params, 0.1, weight_decay=0.3),
    "momentum": lambda params: SGD(params, 0.1, momentum=0.9),
    "all momentum": lambda params: SGD(params, 0.1, momentum=1.0),
}
"""Options with which row-sparse gradients end where dense ones do."""
