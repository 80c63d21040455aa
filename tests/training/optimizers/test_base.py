"""What all optimizers share: trajectories of PyTorch, arrays in place, states, errors, gaps."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest

from fffcpu.errors import ArgumentError, CheckpointError, ShapeError
from fffcpu.parameters import Parameters, RowGradient
from fffcpu.training import SGD, Adam, AdamW, clip_gradients
from fffcpu.training.optimizers import base, missed_steps
from tests.support.optimizers import (
    EXACT,
    MAKERS,
    SHAPES,
    START,
    assert_same,
    copies,
    each_optimizer,
    follow_torch,
    random_arrays,
    read_only,
    row_sparse_run,
    train,
    twins,
)

# PyTorch 2.13 on torch_gradient(0) ... torch_gradient(5), learning rate halved for the last two
# steps: torch.optim.SGD, Adam and AdamW with the options of MAKERS.
TORCH = {
    "SGD": [0.9996462714102485, -2.004170570805063, 0.5413807103552705, -0.5172290995234419],
    "SGD momentum": [
        0.9317401574733987,
        -1.8670253138257389,
        0.7816767038227468,
        -6.83059097547472,
    ],
    "Adam": [0.9378662703280715, -1.9652756564327873, 0.6072658941960098, 2.75657467058961],
    "AdamW": [0.8989308929863117, -1.911450505970134, 0.6069086083049559, 2.6854623315956134],
}


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-14), (np.float32, 5e-7)])
@pytest.mark.parametrize("name", MAKERS)
def test_trajectory_agrees_with_pytorch(name, dtype, tolerance):
    comp = follow_torch(MAKERS[name], "weights", dtype)
    np.testing.assert_allclose(comp, TORCH[name], rtol=tolerance, atol=0)


def test_defaults_are_those_of_pytorch():
    optimizer = AdamW({}, 0.1)
    assert (optimizer.betas, optimizer.eps, optimizer.weight_decay) == ((0.9, 0.999), 1e-8, 0.01)
    assert (Adam({}, 0.1).betas, Adam({}, 0.1).eps) == ((0.9, 0.999), 1e-8)
    assert (SGD({}, 0.1).momentum, SGD({}, 0.1).weight_decay) == (0.0, 0.0)


@each_optimizer
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parameters_change_in_place_and_gradients_do_not(make, dtype):
    rng = np.random.default_rng(1)
    params = Parameters(random_arrays(rng), dtype)
    objects, before = dict(params), copies(params)
    grads = random_arrays(rng, dtype)
    for grad in grads.values():
        grad.flags.writeable = False
    grads_before = copies(grads)
    make(params).step(grads)
    assert all(params[name] is array for name, array in objects.items())
    assert all((params[name] != before[name]).all() for name in SHAPES)
    assert {array.dtype for array in params.values()} == {np.dtype(dtype)}
    assert_same(grads, grads_before)


@each_optimizer
def test_memory_mapped_parameters_are_trained_in_their_file(make, tmp_path):
    ref = {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}
    mapped = np.memmap(tmp_path / "w", np.float32, "w+", shape=(2, 3))
    mapped[...] = ref["w"]
    optimizer = make({"w": mapped})
    grads = {"w": np.ones((2, 3), np.float32)}
    optimizer.step(grads)
    make(ref).step(grads)
    mapped.flush()
    np.testing.assert_array_equal(np.fromfile(tmp_path / "w", np.float32), ref["w"].ravel())
    # The moments belong to the optimizer: they are arrays in memory, not maps of any file.
    assert {type(array) for array in optimizer.state_dict().values()} == {np.ndarray}


@each_optimizer
def test_gradients_of_another_precision_are_taken_in_that_of_the_parameter(make):
    params = random_arrays(np.random.default_rng(5), np.float32)
    ref = copies(params)
    grads = random_arrays(np.random.default_rng(6), np.float64)
    make(params).step(grads)
    make(ref).step({name: grad.astype(np.float32) for name, grad in grads.items()})
    assert_same(params, ref)


@pytest.mark.parametrize("make", [MAKERS["Adam"], MAKERS["SGD"]], ids=["Adam", "SGD"])
def test_parameters_without_gradient_stay(make):
    params = {"weights": np.array(START, np.float32)}
    optimizer = make(params)
    for _ in range(3):
        optimizer.step({"weights": np.array([0.0, 1.0, 0.0, -1.0], np.float32)})
    np.testing.assert_array_equal(params["weights"][[0, 2]], [1.0, 0.5])
    assert params["weights"][1] < -2.0


@each_optimizer
def test_optimizers_find_a_minimum(make):
    goal = np.linspace(-1.0, 1.0, 5)
    params = {"bias": np.zeros(5)}
    optimizer = make(params)
    for step in range(400):
        optimizer.step({"bias": params["bias"] - goal}, lr=0.05 * (1.0 - step / 400))
    # SGD has no exclusion by name: its decay of 0.05 pulls the minimum to 0 by a factor of 1.05.
    pull = 1.05 if isinstance(optimizer, SGD) and optimizer.weight_decay else 1.0
    np.testing.assert_allclose(params["bias"], goal / pull, atol=2e-3)


@each_optimizer
def test_learning_rate_of_one_step_alone(make):
    params = random_arrays(np.random.default_rng(7))
    ref = copies(params)
    grads = random_arrays(np.random.default_rng(8))
    optimizer, other = make(params), make(ref)
    base = optimizer.lr
    optimizer.step(grads, lr=0.03)
    assert optimizer.lr == base
    optimizer.step(grads)
    for rate in (0.03, base):
        other.lr = rate
        other.step(grads)
    assert_same(params, ref)


@each_optimizer
def test_learning_rate_0_changes_nothing_but_the_moments(make):
    params = random_arrays(np.random.default_rng(9))
    before = copies(params)
    optimizer = make(params)
    optimizer.step(random_arrays(np.random.default_rng(10)), lr=0)
    assert_same(params, before)
    assert optimizer.step_count == 1


@each_optimizer
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_training_goes_on_bit_for_bit_from_a_state(make, dtype):
    ref = random_arrays(np.random.default_rng(11), dtype)
    rng = np.random.default_rng(12)
    optimizer = make(ref)
    train(optimizer, rng, 3, dtype)

    state, comp, rng_then = optimizer.state_dict(), copies(ref), copy.deepcopy(rng)
    train(optimizer, rng, 4, dtype)
    resumed = make(comp)
    resumed.load_state_dict(state)
    train(resumed, rng_then, 4, dtype)

    assert_same(comp, ref)
    assert_same(resumed.state_dict(), optimizer.state_dict())
    assert resumed.step_count == 7


def test_state_is_flat_named_and_a_copy():
    params = random_arrays(np.random.default_rng(13), np.float32)
    optimizer = AdamW(params, 0.1)
    train(optimizer, np.random.default_rng(14), 2, np.float32)
    state = optimizer.state_dict()
    moments = [f"{m}.{name}" for m in ("first_moment", "second_moment") for name in SHAPES]
    assert list(state) == ["step", *moments]
    assert state["step"].dtype == np.int64
    assert state["step"] == 2
    assert {state[key].dtype for key in moments} == {np.dtype(np.float32)}
    for array in state.values():
        array[...] = 0
    assert all(array.all() for array in optimizer.state_dict().values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("velocity.w"), "missing 'velocity.w'"),
        (lambda state: state.update(other=np.ones(2)), "unknown 'other'"),
        (lambda state: state.update({"velocity.w": np.ones(3)}), r"'velocity.w' must be .* \(3,\)"),
        (lambda state: state.update({"velocity.w": np.ones(2, "f4")}), "dtype float64, .* float32"),
        (lambda state: state.update({"velocity.w": [1.0, 2.0]}), r"got \[1.0, 2.0\] \(list\)"),
        (lambda state: state.update(step=np.array(1.0)), "'step' must be"),
        (lambda state: state.update(step=np.array(-1)), "'step' must be at least 0, got -1"),
    ],
)
def test_state_that_does_not_fit_is_refused_whole(change, message):
    params = {"w": np.ones(2)}
    source, target = SGD(params, 0.1, 0.5), SGD(params, 0.1, 0.5)
    source.step({"w": np.ones(2)})
    state = source.state_dict()
    change(state)
    with pytest.raises(ValueError, match=f"state of the optimizer SGD does not fit: .*{message}"):
        target.load_state_dict(state)
    assert target.step_count == 0
    assert not target.state_dict()["velocity.w"].any()


@each_optimizer
def test_optimizers_are_pickled_with_all_they_know(make):
    ref = random_arrays(np.random.default_rng(15))
    optimizer = make(ref)
    train(optimizer, np.random.default_rng(16), 2)
    comp = pickle.loads(pickle.dumps(optimizer))
    assert repr(comp) == repr(optimizer)
    assert_same(comp.state_dict(), optimizer.state_dict())


def test_repr_says_what_it_is():
    params = {"w": np.ones((2, 3)), "bias": np.ones(3)}
    optimizer = AdamW(params, 0.1)
    optimizer.step({"w": np.zeros((2, 3)), "bias": np.zeros(3)})
    assert repr(optimizer) == (
        "<AdamW(lr=0.1, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.01, "
        "no_decay=('bias', 'norm')): 2 arrays, 9 numbers, 1 steps made>"
    )
    assert repr(SGD({}, 1)).startswith("<SGD(lr=1.0, momentum=0.0, weight_decay=0.0): 0 arrays")


@pytest.mark.parametrize(
    ("grads", "error", "message"),
    [
        ({"w": np.ones(2)}, ValueError, "'grads' must have the names .* got missing 'bias'"),
        (
            {"w": np.ones(2), "b": np.ones(1)},
            ValueError,
            "got missing 'bias', unknown 'b'",
        ),
        (
            {"w": np.ones(2), "bias": np.ones(2)},
            ValueError,
            r"of shape \(1,\) for 'bias', got an array of shape \(2,\)",
        ),
        ({"w": np.ones(2), "bias": np.ones(())}, ValueError, r"got an array of shape \(\)"),
        ({"w": np.ones(2), "bias": [1.0]}, TypeError, "NumPy arrays of floats, got .* for 'bias'"),
        ({"w": np.ones(2), "bias": np.ones(1, int)}, TypeError, "dtype int64 for 'bias'"),
        ({"w": np.ones(2), "bias": np.ones(1, complex)}, TypeError, "complex128 for 'bias'"),
        ([np.ones(2), np.ones(1)], TypeError, "'grads' must be a mapping of names to arrays"),
    ],
)
def test_gradients_that_do_not_fit_change_nothing(grads, error, message):
    params = {"w": np.ones(2), "bias": np.ones(1)}
    optimizer = AdamW(params, 0.1)
    with pytest.raises(error, match=message):
        optimizer.step(grads)
    assert optimizer.step_count == 0
    assert_same(params, {"w": np.ones(2), "bias": np.ones(1)})
    assert not optimizer.state_dict()["first_moment.w"].any()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SGD([np.ones(2)], 0.1), TypeError, "'params' must be a mapping"),
        (lambda: SGD({0: np.ones(2)}, 0.1), TypeError, "'params' must have strings as names"),
        (lambda: SGD({"w": [1.0]}, 0.1), TypeError, "'params' must hold NumPy arrays of floats"),
        (lambda: SGD({"w": np.ones(2, "f2")}, 0.1), TypeError, "'params' .* float16 for 'w'"),
        (lambda: SGD({"w": read_only()}, 0.1), ValueError, "'params' .* read-only one for 'w'"),
        (lambda: SGD({}, -0.1), ValueError, "'lr' must be a number of at least 0, got -0.1"),
        (lambda: SGD({}, math.inf), ValueError, "'lr' must be"),
        (lambda: SGD({}, "1"), TypeError, "'lr' must be"),
        (lambda: SGD({}, 0.1).step({}, lr=math.nan), ValueError, "'lr' must be .* got nan"),
        (lambda: SGD({}, 0.1, momentum=1.5), ValueError, "'momentum' must be a number from 0 to 1"),
        (lambda: SGD({}, 0.1, weight_decay=-1), ValueError, "'weight_decay' must be"),
        (lambda: Adam({}, 0.1, betas=(0.9, 1.0)), ValueError, "'betas' .* below 1, got"),
        (lambda: Adam({}, 0.1, betas=(-0.1, 0.9)), ValueError, "'betas' must be"),
        (lambda: Adam({}, 0.1, betas=0.9), TypeError, "'betas' must be two numbers .* got 0.9"),
        (lambda: Adam({}, 0.1, betas=(0.9,)), TypeError, "'betas' must be two numbers"),
        (
            lambda: Adam({"w": np.ones(2)}, 0.1, eps=0),
            ValueError,
            "'eps' must be at least 1.5e-154",
        ),
        (lambda: Adam({"w": np.ones(2, "f4")}, 0.1, eps=1e-60), ValueError, "float32 of 'w'"),
        (lambda: AdamW({}, 0.1, weight_decay=-1), ValueError, "'weight_decay' must be"),
        (lambda: AdamW({}, 0.1, no_decay="bias"), TypeError, "'no_decay' must be a tuple"),
        (lambda: AdamW({}, 0.1, no_decay=(1,)), TypeError, "'no_decay' must be .* got 1 in it"),
        (lambda: AdamW({}, 0.1, no_decay=("",)), ValueError, "'no_decay' must be"),
    ],
)
def test_arguments_that_cannot_be_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda params: SGD(params, 0.1, momentum=0.9),
        lambda params: Adam(params, 0.1),
        lambda params: AdamW(params, 0.1, weight_decay=0.1),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_where_every_row_is_touched_bits_are_those_of_dense_gradients(make, dtype):
    (sparse_params, dense_params), (sparse, dense) = twins(make, dtype)
    for rows, whole in row_sparse_run(0, 12, dtype=dtype, always=True):
        sparse.step({"weights": rows})
        dense.step({"weights": whole})
    assert sparse_params["weights"].tobytes() == dense_params["weights"].tobytes()


@pytest.mark.parametrize("most", [1, 2, 5])
def test_rows_are_brought_up_to_date_before_the_list_of_steps_is_full(most, monkeypatch):
    for module in (base, missed_steps):
        monkeypatch.setattr(module, "MOST_STEPS", most)
    (sparse_params, dense_params), (sparse, dense) = twins(EXACT["momentum"])
    for rows, whole in row_sparse_run(1, 13):
        sparse.step({"weights": rows})
        dense.step({"weights": whole})
    sparse.bring_up_to_date()
    np.testing.assert_allclose(sparse_params["weights"], dense_params["weights"], rtol=1e-10)


def test_dense_and_row_sparse_gradients_may_take_turns():
    (sparse_params, dense_params), (sparse, dense) = twins(EXACT["decay"])
    for step, (rows, whole) in enumerate(row_sparse_run(2, 12)):
        sparse.step({"weights": whole if step % 3 == 2 else rows})
        dense.step({"weights": whole})
    sparse.bring_up_to_date()
    np.testing.assert_allclose(sparse_params["weights"], dense_params["weights"], rtol=1e-10)


def test_other_parameters_may_have_dense_gradients():
    params = {"weights": np.ones((4, 2)), "bias": np.ones(3)}
    optimizer = SGD(params, 0.5)
    rows = RowGradient(np.array([1]), np.array([[2.0, 4.0]]), (4, 2))
    optimizer.step({"weights": rows, "bias": np.ones(3)})
    assert params["weights"].tolist() == [[1, 1], [0, -1], [1, 1], [1, 1]]
    assert params["bias"].tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    "make", [EXACT["momentum"], EXACT["decay"], lambda p: AdamW(p, 0.1, weight_decay=0.2)]
)
@pytest.mark.parametrize("stop", [0, 1, 6])
def test_a_state_with_gaps_goes_on_to_the_same_bits(make, stop):
    (params, others), (optimizer, other) = twins(make)
    grads = [rows for rows, _ in row_sparse_run(4, 12)]
    for grad in grads[:stop]:
        optimizer.step({"weights": grad})
    others["weights"][...] = params["weights"]
    other.load_state_dict(optimizer.state_dict())
    for grad in grads[stop:]:
        optimizer.step({"weights": grad})
        other.step({"weights": grad})
    optimizer.bring_up_to_date()
    other.bring_up_to_date()
    assert params["weights"].tobytes() == others["weights"].tobytes()


def test_a_state_without_gaps_closes_those_that_were():
    (params, others), (optimizer, other) = twins(EXACT["decay"])
    for grad, _ in row_sparse_run(4, 5):
        optimizer.step({"weights": grad})
    optimizer.load_state_dict(other.state_dict())
    before = params["weights"].copy()
    optimizer.bring_up_to_date()
    np.testing.assert_array_equal(params["weights"], before)
    assert others.keys() == params.keys()


@pytest.mark.parametrize("key", ["rates", "last_step.weights"])
def test_a_state_whose_gaps_do_not_fit_is_refused(key):
    _, (optimizer, other) = twins(EXACT["decay"])
    for grad, _ in row_sparse_run(4, 5):
        optimizer.step({"weights": grad})
    state = optimizer.state_dict()
    for wrong in (state[key][:0], state[key].astype(np.float32), np.zeros((2, 2)), None):
        if key == "rates" and wrong is not None and wrong.dtype == np.float64 and wrong.ndim == 1:
            continue  # fewer rates are a state of fewer steps
        with pytest.raises(CheckpointError, match=key):
            other.load_state_dict({**state, key: wrong})


def test_row_sparse_gradients_are_refused_where_they_cannot_be_exact():
    rows = RowGradient(np.array([1]), np.ones((1, 2)), (4, 2))
    params = {"weights": np.ones((4, 2))}
    with pytest.raises(ArgumentError, match="momentum"):
        SGD(params, 0.1, momentum=0.5, weight_decay=0.1).step({"weights": rows})
    with pytest.raises(ArgumentError, match="'lr'"):
        SGD(params, 0.1, weight_decay=0.5).step({"weights": rows}, lr=2.0)
    with pytest.raises(ArgumentError, match="C-contiguous"):
        SGD({"weights": np.ones((2, 4)).T}, 0.1).step({"weights": rows})
    with pytest.raises(ShapeError, match="weights"):
        SGD({"weights": np.ones((5, 2))}, 0.1).step({"weights": rows})
    assert (params["weights"] == 1).all()


def test_dense_steps_forget_that_rows_were_behind():
    (params, _), (optimizer, _) = twins(EXACT["decay"])
    (rows, whole), *_ = row_sparse_run(5, 1)
    optimizer.step({"weights": rows})
    optimizer.step({"weights": whole}, lr=10.0)  # too large for rows that wait
    assert list(optimizer.state_dict()) == ["step"]
    assert np.isfinite(params["weights"]).all()


def test_rows_may_be_counted_over_other_axes_from_step_to_step():
    (sparse_params, dense_params), (sparse, dense) = twins(EXACT["momentum"])
    rng = np.random.default_rng(6)
    for step, (rows, whole) in enumerate(row_sparse_run(6, 9)):
        if step % 3 == 1:
            values = rng.standard_normal((1, 5, 3))
            rows = RowGradient(np.array([step % 2]), values, (2, 5, 3))
            whole = rows.dense()
        sparse.step({"weights": rows})
        dense.step({"weights": whole})
    sparse.bring_up_to_date()
    np.testing.assert_allclose(sparse_params["weights"], dense_params["weights"], rtol=1e-10)


@each_optimizer
def test_parameters_without_rows_have_row_sparse_gradients_too(make):
    params = {"none": np.empty((0, 5)), "narrow": np.empty((3, 0))}
    optimizer, other = make(params), make(params)
    optimizer.weight_decay = 0.0
    nothing = np.empty(0, np.int64)
    grads = {
        "none": RowGradient(nothing, np.empty((0, 5)), (0, 5)),
        "narrow": RowGradient(np.array([1]), np.empty((1, 0)), (3, 0)),
    }
    optimizer.step(grads)
    other.load_state_dict(optimizer.state_dict())
    optimizer.step(grads)
    optimizer.bring_up_to_date()
    assert optimizer.step_count == 2


@pytest.mark.parametrize(
    ("key", "number"),
    [
        ("rates", -0.1),
        ("rates", math.nan),
        ("rates", math.inf),
        ("rates", 4.0),  # times the decay of 0.3: more than all
        ("last_step.weights", -1),
        ("last_step.weights", 6),
    ],
)
def test_a_state_with_impossible_numbers_is_refused(key, number):
    _, (optimizer, other) = twins(EXACT["decay"])
    for grad, _ in row_sparse_run(4, 5):
        optimizer.step({"weights": grad})
    state = optimizer.state_dict()
    other.load_state_dict(state)
    state[key][-1] = number
    index = len(state[key]) - 1
    with pytest.raises(
        CheckpointError, match=f"{key}' must hold .*, got {number} at index {index}"
    ):
        other.load_state_dict(state)
    state = {**optimizer.state_dict(), "step": np.array(4)}
    with pytest.raises(
        CheckpointError, match="'rates' must hold learning rates of the last steps, at most 4"
    ):
        other.load_state_dict(state)


@pytest.mark.parametrize("make", [EXACT["momentum"], MAKERS["AdamW"]])
def test_rows_of_memory_mapped_parameters_are_trained_in_their_file(make, tmp_path):
    mapped = np.memmap(tmp_path / "w", np.float32, "w+", shape=(4, 3))
    ref = np.zeros((4, 3), np.float32)
    rows = RowGradient(np.array([0, 2]), np.ones((2, 3), np.float32), (4, 3))
    make({"w": mapped}).step({"w": rows})
    make({"w": ref}).step({"w": rows})
    mapped.flush()
    assert ref[[0, 2]].all()
    np.testing.assert_array_equal(np.fromfile(tmp_path / "w", np.float32), ref.ravel())


@pytest.mark.parametrize("make", [EXACT["plain"], EXACT["momentum"], MAKERS["AdamW"]])
def test_row_sparse_gradients_are_read_only_to_a_step_and_of_any_precision(make):
    params, ref = ({"w": np.ones((4, 3), np.float32)} for _ in range(2))
    values = np.random.default_rng(7).standard_normal((2, 3))
    values.flags.writeable = False
    rows = np.array([1, 3])
    rows.flags.writeable = False
    before = values.copy()
    make(params).step({"w": RowGradient(rows, values, (4, 3))})
    make(ref).step({"w": RowGradient(rows, values.astype(np.float32), (4, 3))})
    np.testing.assert_array_equal(params["w"], ref["w"])
    np.testing.assert_array_equal(values, before)
    with pytest.raises(ValueError, match=r"'grads' .* read-only one for 'w'"):
        clip_gradients({"w": RowGradient(rows, values, (4, 3))}, 1.0)
