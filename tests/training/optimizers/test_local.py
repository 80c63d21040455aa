"""Local optimizers: when a node is due, and what then happens to it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu import FastFeedForward, LeafFeedForward
from fffcpu.errors import ArgumentError, ArgumentTypeError, CheckpointError, ShapeError
from fffcpu.parameters import RowGradient
from fffcpu.training import SGD, Adam, LocalAdam, LocalSGD

MAKERS = {
    "sgd": lambda params, size=4: LocalSGD(params, 0.1, size),
    "momentum": lambda params, size=4: LocalSGD(params, 0.1, size, momentum=0.9, weight_decay=0.1),
    "adam": lambda params, size=4: LocalAdam(params, 0.1, size),
    "adam with decay": lambda params, size=4: LocalAdam(params, 0.1, size, weight_decay=0.1),
}


def test_a_node_waits_until_enough_rows_used_it():
    params = {"w": np.zeros((2, 1)), "b": np.zeros(1)}
    optimizer = LocalSGD(params, 1.0, local_batch_size=4)
    ones = {"w": np.ones((2, 1)), "b": np.ones(1)}
    optimizer.step(ones, {"w": [3, 1]})
    assert params["w"].tolist() == [[0], [0]]
    assert params["b"].tolist() == [-1]
    optimizer.step(ones, {"w": [3, 1]})
    # Node 0 has used 6 rows: gradients of 2 in all, times 4 / 6. Node 1 has used 2.
    np.testing.assert_allclose(params["w"], [[-2 * 4 / 6], [0]])
    optimizer.step(ones, {"w": [0, 2]})
    np.testing.assert_allclose(params["w"], [[-2 * 4 / 6], [-3]])


def one_node(kind, optimizer, node, grads, usage):
    """The rule for one node, written out."""
    p, total, used, u = node.copy(), 0.0, 0.0, 0.0
    m = v = updates = 0
    for g, count in zip(grads, usage, strict=True):
        total, used = total + g, used + count
        if used < optimizer.local_batch_size:
            continue
        updates += 1
        g = total * optimizer.local_batch_size / used + optimizer.weight_decay * p
        total, used = 0.0, 0.0
        if kind.startswith("adam"):
            beta1, beta2 = optimizer.betas
            m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
            mean, square = m / (1 - beta1**updates), v / (1 - beta2**updates)
            p = p - optimizer.lr * mean / (np.sqrt(square) + optimizer.eps)
        else:
            u = optimizer.momentum * u + g
            p = p - optimizer.lr * u
    return p


@pytest.mark.parametrize("kind", MAKERS)
@given(
    leading=st.sampled_from([(3,), (2, 3)]),
    seed=st.integers(0, 1000),
    steps=st.integers(1, 12),
)
def test_every_node_follows_the_rule_by_itself(kind, leading, seed, steps):
    rng = np.random.default_rng(seed)
    params = {"w": rng.standard_normal((*leading, 2)), "b": rng.standard_normal(leading)}
    before = {name: array.copy() for name, array in params.items()}
    optimizer = MAKERS[kind](params)
    grads = {name: rng.standard_normal((steps, *array.shape)) for name, array in params.items()}
    usage = rng.integers(0, 4, (steps, *leading))
    for step in range(steps):
        own = {name: grad[step] for name, grad in grads.items()}
        optimizer.step(own, dict.fromkeys(params, usage[step]))
    for name, array in params.items():
        for node in np.ndindex(*leading):
            where = (slice(None), *node)
            expected = one_node(
                kind, optimizer, before[name][node], grads[name][where], usage[where]
            )
            np.testing.assert_allclose(array[node], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("local", "plain"),
    [
        (LocalSGD({"w": np.ones(3)}, 0.1, 5, momentum=0.5), SGD({"w": np.ones(3)}, 0.1, 0.5)),
        (LocalAdam({"w": np.ones(3)}, 0.1, 5), Adam({"w": np.ones(3)}, 0.1)),
    ],
)
def test_without_usage_it_is_the_plain_optimizer(local, plain):
    for step in range(5):
        grad = {"w": np.arange(3.0) + step}
        local.step(grad)
        plain.step(grad, lr=0.1)
    np.testing.assert_allclose(local._params["w"], plain._params["w"], rtol=1e-12)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_state_goes_on_to_the_same_bits(kind):
    rng = np.random.default_rng(0)
    start = rng.standard_normal((3, 2))
    params, others = {"w": start.copy(), "b": start[0]}, {"w": start.copy(), "b": start[0].copy()}
    optimizer, other = MAKERS[kind](params), MAKERS[kind](others)
    for step in range(8):
        if step == 3:
            for name, array in params.items():
                others[name][...] = array
            other.load_state_dict(optimizer.state_dict())
        grads = {"w": rng.standard_normal((3, 2)), "b": rng.standard_normal(2)}
        usage = {"w": rng.integers(0, 4, 3)}
        optimizer.step(grads, usage)
        if step >= 3:
            other.step(grads, usage)
    assert params["w"].tobytes() == others["w"].tobytes()
    state = optimizer.state_dict()
    with pytest.raises(CheckpointError, match=r"updates\.w"):
        other.load_state_dict({**state, "updates.w": np.zeros(2, np.int64)})
    with pytest.raises(CheckpointError, match=r"used\.w"):
        other.load_state_dict({**state, "used.w": np.zeros(2)})


def test_layers_tell_the_usage_of_their_parameters():
    x = np.random.default_rng(0).standard_normal((30, 6)).astype(np.float32)
    for layer in (
        FastFeedForward(6, 2, depth=2, trees=2, rng=0),
        LeafFeedForward(6, 2, depth=2, leaf_width=3, rng=0),
    ):
        before = {name: array.copy() for name, array in layer.params.items()}
        optimizer = LocalSGD(layer.params, 0.1, local_batch_size=20)
        y, cache = layer.forward(x)
        _, grads = layer.backward(np.ones_like(y), cache)
        usage = layer.usage(cache)
        optimizer.step(grads, usage)
        for name, array in layer.params.items():
            due = usage[name] >= 20
            changed = (array != before[name]).reshape(*due.shape, -1).any(axis=-1)
            moved = (grads[name] != 0).reshape(*due.shape, -1).any(axis=-1)
            assert np.array_equal(changed, due & moved), name


@pytest.mark.parametrize(
    ("usage", "error"),
    [
        ({"unknown": [1]}, ArgumentError),
        ({"w": [1, 2]}, ShapeError),
        ({"w": ["a", "b", "c"]}, ArgumentTypeError),
        ({"w": [1, -1, 1]}, ArgumentError),
        ({"w": [1.0, np.nan, 1.0]}, ArgumentError),
        ({"w": [1.0, np.inf, 1.0]}, ArgumentError),
        ({"w": 1}, ShapeError),
    ],
)
def test_refuses_usage(usage, error):
    params = {"w": np.zeros((3, 2))}
    with pytest.raises(error, match="'usage'"):
        LocalSGD(params, 0.1, 4).step({"w": np.ones((3, 2))}, usage)
    assert not params["w"].any()


def test_the_first_wrong_usage_is_named():
    message = "'usage' must hold finite numbers of at least 0, got -1 at index 1 for 'w'"
    with pytest.raises(ArgumentError, match=message):
        LocalSGD({"w": np.zeros((3, 2))}, 0.1, 4).step({"w": np.ones((3, 2))}, {"w": [1, -1, -2]})


def test_usage_keeps_its_axes():
    params = {"w": np.zeros((3, 2))}
    optimizer = LocalSGD(params, 0.1, 4)
    optimizer.step({"w": np.ones((3, 2))}, {"w": [1, 1, 1]})
    with pytest.raises(ShapeError, match="'usage'"):
        optimizer.step({"w": np.ones((3, 2))}, {"w": np.ones((3, 2))})


@pytest.mark.parametrize(
    "make",
    [
        lambda params: LocalSGD(params, 0.1, 0),
        lambda params: LocalSGD(params, -0.1, 1),
        lambda params: LocalSGD(params, 0.1, 1, momentum=2.0),
        lambda params: LocalAdam(params, 0.1, 1, betas=(0.9, 1.0)),
        lambda params: LocalAdam(params, 0.1, 1, weight_decay=-1.0),
        lambda params: LocalAdam(params, 0.1, 1, eps=0.0),
    ],
)
def test_refuses_options(make):
    with pytest.raises(ArgumentError):
        make({"w": np.zeros(3)})


def test_shows_its_options():
    shown = repr(LocalAdam({"w": np.zeros(3)}, 0.1, 7))
    assert "local_batch_size=7" in shown


def test_the_first_step_says_which_parameters_have_usage():
    grads = {"w": np.ones((3, 2))}
    optimizer = LocalSGD({"w": np.zeros((3, 2))}, 0.1, 4)
    optimizer.step(grads, {"w": [1, 1, 1]})
    with pytest.raises(ArgumentError, match=r"'usage' .* \['w'\], got \[\]"):
        optimizer.step(grads)
    plain = LocalSGD({"w": np.zeros((3, 2))}, 0.1, 4)
    plain.step(grads)
    with pytest.raises(ArgumentError, match=r"'usage' .* \[\], got \['w'\]"):
        plain.step(grads, {"w": [1, 1, 1]})
    with pytest.raises(ArgumentError, match="C-contiguous"):
        LocalSGD({"w": np.zeros((2, 3)).T}, 0.1, 4).step(grads, {"w": [1, 1, 1]})


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("make", "make_plain"),
    [
        (MAKERS["adam"], lambda params: Adam(params, 0.1)),
        (MAKERS["momentum"], lambda params: SGD(params, 0.1, 0.9, 0.1)),
    ],
)
def test_where_every_node_is_always_due_bits_are_those_of_the_plain_optimizer(
    make, make_plain, dtype
):
    rng = np.random.default_rng(1)
    params = {"w": rng.standard_normal((2, 3, 5)).astype(dtype)}
    ref = {"w": params["w"].copy()}
    local, plain = make(params), make_plain(ref)
    for _ in range(6):
        grads = {"w": rng.standard_normal((2, 3, 5)).astype(dtype)}
        local.step(grads, {"w": np.full((2, 3), 4)})
        plain.step(grads)
    np.testing.assert_array_equal(params["w"], ref["w"])


@pytest.mark.parametrize("kind", MAKERS)
@given(seed=st.integers(0, 1000))
def test_row_sparse_gradients_are_added_up_like_dense_ones(kind, seed):
    rng = np.random.default_rng(seed)
    start = {"w": rng.standard_normal((2, 3, 4)), "b": rng.standard_normal((2, 3))}
    params, ref = ({name: array.copy() for name, array in start.items()} for _ in range(2))
    sparse, dense = MAKERS[kind](params), MAKERS[kind](ref)
    for _ in range(8):
        counts = rng.integers(0, 3, (2, 3))
        rows = np.flatnonzero(counts)
        grads = {
            name: RowGradient(rows, rng.standard_normal((len(rows), *array.shape[2:])), array.shape)
            for name, array in start.items()
        }
        wholes = {name: grad.dense() for name, grad in grads.items()}
        sparse.step(grads, {"w": counts})
        dense.step(wholes, {"w": counts})
    for name, array in ref.items():
        np.testing.assert_array_equal(params[name], array, err_msg=name)


@pytest.mark.parametrize("key", ["used.w", "updates.w"])
def test_a_state_with_impossible_numbers_is_refused(key):
    optimizer = LocalAdam({"w": np.zeros((3, 2))}, 0.1, 4)
    optimizer.step({"w": np.ones((3, 2))}, {"w": [1, 2, 5]})
    state = optimizer.state_dict()
    state[key][1] = -1
    message = f"'{key}' must hold finite numbers of at least 0, got -1(.0)? at index 1"
    with pytest.raises(CheckpointError, match=message):
        optimizer.load_state_dict(state)
