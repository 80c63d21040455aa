"""What decays or fades ends at 0, and never among the subnormal numbers, which are slow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fffcpu.parameters import RowGradient
from fffcpu.training import SGD, Adam, AdamW, LocalAdam, LocalSGD
from tests.support.optimizers import DTYPES, SEEDS

MAKERS = {
    "SGD": lambda params: SGD(params, 0.5),
    "SGD decay": lambda params: SGD(params, 0.5, weight_decay=1.2),
    "SGD momentum": lambda params: SGD(params, 0.5, momentum=0.3),
    "SGD both": lambda params: SGD(params, 0.5, momentum=0.3, weight_decay=1.2),
    "Adam": lambda params: Adam(params, 0.5, (0.3, 0.6), 1e-3),
    "AdamW": lambda params: AdamW(params, 0.5, (0.3, 0.6), 1e-3, weight_decay=1.2),
    "LocalSGD": lambda params: LocalSGD(params, 0.5, 2, weight_decay=1.2),
    "LocalSGD both": lambda params: LocalSGD(params, 0.5, 2, momentum=0.3, weight_decay=1.2),
    "LocalAdam": lambda params: LocalAdam(params, 0.5, 2, (0.3, 0.6), 1e-3, weight_decay=1.2),
}

UNDAMPED = ("SGD", "SGD momentum", "LocalAdam")
"""Without gradients these stay where they are, or swing around 0 by a step of Adam."""

SHAPE = (2, 7, 3)


def subnormal(array):
    """Whether numbers are other than 0 and smaller than the smallest normal one."""
    return (array != 0) & (np.abs(array) < np.finfo(array.dtype).tiny)


def some_start(rng, dtype):
    """Weights of every size; they are normal."""
    sizes = 2.0 ** rng.uniform(float(np.finfo(dtype).minexp), 0, SHAPE)
    return (sizes * rng.choice([-1, 1], SHAPE)).astype(dtype)


def gradient(rng, dtype, *, sparse):
    """A gradient of a few rows, whose numbers are of any size above the root of the smallest."""
    rows = np.flatnonzero(rng.random(14) < 0.3)
    sizes = 2.0 ** rng.uniform(np.finfo(dtype).minexp / 2, 0, (len(rows), SHAPE[-1]))
    grad = RowGradient(rows, sizes.astype(dtype), SHAPE)
    return grad if sparse else grad.dense()


def assert_none_subnormal(optimizer, params):
    for name, array in {**params, **optimizer.state_dict()}.items():
        if array.dtype.kind == "f" and not name.startswith("gradient_sum"):
            assert not subnormal(array).any(), name


@pytest.mark.parametrize("kind", MAKERS)
@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, dtype=DTYPES, sparse=st.booleans())
def test_no_number_of_any_optimizer_becomes_subnormal(kind, seed, dtype, sparse):
    rng = np.random.default_rng(seed)
    params = {"weights": some_start(rng, dtype)}
    optimizer = MAKERS[kind](params)
    sparse = sparse and kind != "SGD both"
    usage = {"usage": {"weights": np.full(SHAPE[:2], 2)}} if kind.startswith("Local") else {}
    for _ in range(12):
        optimizer.step({"weights": gradient(rng, dtype, sparse=sparse)}, **usage)
        assert_none_subnormal(optimizer, params)
    if sparse and not usage:
        optimizer.bring_up_to_date()
        assert_none_subnormal(optimizer, params)


@pytest.mark.parametrize("kind", [kind for kind in MAKERS if kind not in UNDAMPED])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_without_gradients_everything_that_shrinks_ends_at_0(kind, dtype):
    params = {"weights": np.full((3, 2), 1e-30 if dtype == np.float32 else 1e-300, dtype)}
    optimizer = MAKERS[kind](params)
    grads = {"weights": np.full((3, 2), 1e-3, dtype)} if kind == "Adam" else {}
    nothing = {"weights": np.zeros((3, 2), dtype)}
    for step in range(4000):
        optimizer.step(grads if grads and not step else nothing)
    for name, array in optimizer.state_dict().items():
        if array.dtype == dtype:
            assert not array.any(), name
    if kind != "Adam":
        assert not params["weights"].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_that_nothing_touches_end_at_0_when_they_catch_up(dtype):
    start = np.full((4, 2), 1e-30 if dtype == np.float32 else 1e-300, dtype)
    for make in (MAKERS["AdamW"], MAKERS["SGD decay"]):
        params = {"weights": start.copy()}
        optimizer = make(params)
        one = RowGradient(np.array([1]), np.ones((1, 2), dtype), (4, 2))
        steps = 20 if dtype == np.float32 else 28  # subnormal: between the smallest numbers
        for _ in range(steps):
            optimizer.step({"weights": one})
        assert params["weights"][0].tolist() == start[0].tolist()  # still waits
        optimizer.bring_up_to_date()
        assert not params["weights"][[0, 2, 3]].any()
        assert params["weights"][1].all()


def test_steps_of_adam_do_not_jump_where_the_second_moment_ends():
    """Its root and eps are of one size there; without the bound on eps, steps would explode."""
    eps = np.sqrt(np.finfo(np.float32).tiny) * 1.0001
    params = {"weights": np.zeros(1, np.float32)}
    optimizer = Adam(params, 1.0, (0.0, 0.5), float(eps))
    for power in range(0, 90, 2):
        before = params["weights"].copy()
        optimizer.step({"weights": np.full(1, 2.0**-power, np.float32)})
        assert abs(params["weights"] - before) <= 1.5
