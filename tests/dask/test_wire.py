"""Arrays in messages: what arrives has the bits of what was sent, and is no larger than need be."""

from __future__ import annotations

import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fffcpu.dask.wire import (
    Message,
    SomeRows,
    apply_changes,
    changes,
    pack_step,
    unpack_step,
)
from fffcpu.parameters import RowGradient
from fffcpu.training.trainer import StepResult

DTYPES = st.sampled_from([np.float32, np.float64, np.int64])
SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
ODD = st.sampled_from([0.0, -0.0, 1.5, -2.0])


@st.composite
def some_arrays(draw, dtypes=DTYPES):
    """An array in which many numbers are 0, of either sign."""
    dtype, shape = draw(dtypes), draw(SHAPES)
    return draw(arrays.arrays(np.float64, shape, elements=ODD)).astype(dtype)


def sent(content):
    """What arrives of a message."""
    return pickle.loads(pickle.dumps(Message(content), protocol=5)).content


@given(weights=some_arrays(), counts=some_arrays())
def test_results_of_steps_arrive_with_all_bits(weights, counts):
    rows = RowGradient(np.array([1, 3]), np.ones((2, 2)), (4, 2))
    grads, usage = {"weights": weights, "rows": rows}, {"weights": counts, "rows": counts}
    before = StepResult(0.5, grads, 7, usage)
    found = unpack_step(sent(pack_step(before)))
    assert (found.loss, found.rows) == (0.5, 7)
    assert found.grads["weights"].dtype == weights.dtype
    assert found.grads["weights"].shape == weights.shape
    assert found.grads["weights"].tobytes() == weights.tobytes()
    assert found.grads["rows"].dense().tobytes() == rows.dense().tobytes()
    assert found.usage["weights"].tobytes() == counts.tobytes()
    assert found.usage["weights"] is found.usage["rows"]


@given(data=st.data())
def test_changes_of_parameters_arrive_with_all_bits(data):
    old = data.draw(some_arrays(st.sampled_from([np.float32, np.float64])))
    here, there = {"a": old.copy()}, {"a": old.copy()}
    known = {"a": old.copy("C")}
    for _ in range(2):
        values = data.draw(arrays.arrays(np.float64, old.shape, elements=ODD))
        chosen = data.draw(arrays.arrays(bool, old.shape))
        np.copyto(here["a"], values.astype(old.dtype), where=chosen)
        apply_changes(there, sent(changes(here, known)))
        assert there["a"].tobytes() == here["a"].tobytes() == known["a"].tobytes()


def test_rows_that_are_0_are_not_sent():
    gradient = np.zeros((2, 500, 64), np.float32)
    gradient[1, ::10] = 1.0
    packed = pack_step(StepResult(0.0, {"weights": gradient}, 1, {})).grads["weights"]
    assert isinstance(packed, SomeRows)
    assert packed.rows.tolist() == list(range(500, 1000, 10))
    assert len(pickle.dumps(packed)) < gradient.nbytes / 15
    dense = pack_step(StepResult(0.0, {"weights": gradient + 1}, 1, {})).grads["weights"]
    assert dense.nbytes == gradient.nbytes


def test_nothing_is_sent_where_nothing_changed():
    params = {"a": np.ones((100, 10), np.float32)}
    new = changes(params, {"a": params["a"].copy()})
    assert len(new["a"].rows) == 0
