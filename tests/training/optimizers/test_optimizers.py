"""Optimizers against a plain float64 reference and against trajectories that PyTorch computed."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fffcpu.errors import ArgumentError, CheckpointError, ShapeError
from fffcpu.parameters import Parameters, RowGradient
from fffcpu.training import SGD, Adam, AdamW, clip_gradients
from fffcpu.training.optimizers import base as optimizers
from fffcpu.training.optimizers import missed_steps

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


# Against PyTorch

START = [1.0, -2.0, 0.5, 3.0]
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
TORCH_WITHOUT_DECAY = [
    0.9223811425074891,
    -1.9600869811953012,
    0.6212440599605292,
    2.757179446667634,
]


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


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-14), (np.float32, 5e-7)])
@pytest.mark.parametrize("name", MAKERS)
def test_trajectory_agrees_with_pytorch(name, dtype, tolerance):
    comp = follow_torch(MAKERS[name], "weights", dtype)
    np.testing.assert_allclose(comp, TORCH[name], rtol=tolerance, atol=0)


def test_excluded_trajectory_agrees_with_pytorch_without_decay():
    comp = follow_torch(MAKERS["AdamW"], "layer_norm.weight", np.float64)
    np.testing.assert_allclose(comp, TORCH_WITHOUT_DECAY, rtol=1e-14, atol=0)


# Against the reference


def reference_sgd(start, gradients, rates, momentum, weight_decay):
    """Stochastic gradient descent, one array, from its definition."""
    p, u = start.copy(), np.zeros_like(start)
    for g, lr in zip(gradients, rates, strict=True):
        u = momentum * u + g + weight_decay * p
        p = p - lr * u
    return p


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


@settings(deadline=None, max_examples=60)
@given(trajectories(), st.sampled_from([0.0, 0.5, 0.9]), st.sampled_from([0.0, 0.1]), DTYPES)
def test_sgd_follows_its_definition(trajectory, momentum, weight_decay, dtype):
    comp = run(lambda params: SGD(params, 1.0, momentum, weight_decay), trajectory, dtype)
    assert_follows(
        comp, trajectory, lambda _, *case: reference_sgd(*case, momentum, weight_decay), dtype
    )


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


def test_defaults_are_those_of_pytorch():
    optimizer = AdamW({}, 0.1)
    assert (optimizer.betas, optimizer.eps, optimizer.weight_decay) == ((0.9, 0.999), 1e-8, 0.01)
    assert (Adam({}, 0.1).betas, Adam({}, 0.1).eps) == ((0.9, 0.999), 1e-8)
    assert (SGD({}, 0.1).momentum, SGD({}, 0.1).weight_decay) == (0.0, 0.0)


# Weight decay by name


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


# Arrays


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
@pytest.mark.parametrize("block", [1, 5, 24])
def test_blocks_do_not_show(make, block, monkeypatch):
    ref, comp = (random_arrays(np.random.default_rng(2), np.float32) for _ in range(2))
    train(make(ref), np.random.default_rng(3), 3, np.float32)
    monkeypatch.setattr(optimizers, "BLOCK", block)
    train(make(comp), np.random.default_rng(3), 3, np.float32)
    assert_same(comp, ref)


LAYOUTS = {
    "Fortran": lambda array: np.asfortranarray(array),
    "strided": lambda array: np.repeat(array, 2, axis=-1)[..., ::2],
    "negative": lambda array: array[::-1].copy()[::-1],
}


@each_optimizer
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("of", ["params", "grads"])
def test_layouts_do_not_show(make, layout, of, monkeypatch):
    monkeypatch.setattr(optimizers, "BLOCK", 7)
    rng = np.random.default_rng(4)
    ref = {"weights": rng.normal(size=(4, 5, 3))}
    comp = copies(ref)
    if of == "params":
        comp = {name: layout(array) for name, array in comp.items()}
    first, second = make(ref), make(comp)
    for _ in range(3):
        grad = rng.normal(size=(4, 5, 3))
        first.step({"weights": grad})
        second.step({"weights": layout(grad) if of == "grads" else grad})
    assert_same(comp, ref)


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


# Learning rate


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


# State


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


def test_state_of_sgd_holds_moments_only_with_momentum():
    assert list(SGD({"w": np.ones(2)}, 0.1).state_dict()) == ["step"]
    assert list(SGD({"w": np.ones(2)}, 0.1, 0.5).state_dict()) == ["step", "velocity.w"]


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


# Errors


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


def read_only():
    array = np.ones(2)
    array.flags.writeable = False
    return array


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
        (lambda: Adam({"w": np.ones(2)}, 0.1, eps=0), ValueError, "'eps' must be above 0"),
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


# Clipping


def test_clipping_agrees_with_pytorch():
    grads = {"a": np.array([[1.0, -2.0], [3.0, 0.5]]), "b": np.array([0.25, 4.0, -1.0])}
    # torch.nn.utils.clip_grad_norm_, PyTorch 2.13, float64
    assert clip_gradients(grads, 0.5) == pytest.approx(5.595757321399848, rel=1e-15)
    ref_a = [[0.08935339435369304, -0.17870678870738607], [0.2680601830610791, 0.04467669717684652]]
    np.testing.assert_allclose(grads["a"], ref_a, rtol=1e-14)
    ref_b = [0.02233834858842326, 0.35741357741477214, -0.08935339435369304]
    np.testing.assert_allclose(grads["b"], ref_b, rtol=1e-14)


@given(SEEDS, st.just(0.0) | st.floats(1e-6, 20.0), st.sampled_from([1e-3, 1.0, 1e3]), DTYPES)
def test_clipping_bounds_the_norm_and_keeps_the_direction(seed, max_norm, scale, dtype):
    grads = random_arrays(np.random.default_rng(seed), dtype)
    for grad in grads.values():
        grad *= scale
    before, objects = copies(grads), dict(grads)
    norm = clip_gradients(grads, max_norm)

    joint = np.concatenate([grad.ravel().astype(np.float64) for grad in before.values()])
    clipped = np.concatenate([grad.ravel().astype(np.float64) for grad in grads.values()])
    rounding = 4 * np.finfo(dtype).eps
    assert type(norm) is float
    assert norm == pytest.approx(np.linalg.norm(joint), rel=1e-13)
    assert np.linalg.norm(clipped) <= max_norm * (1 + rounding)
    factor = min(1.0, max_norm / (norm + 1e-6))
    np.testing.assert_allclose(clipped, joint * factor, rtol=rounding, atol=0)
    assert all(grads[name] is array for name, array in objects.items())
    if factor == 1.0:
        assert_same(grads, before)


def test_float32_squares_do_not_overflow():
    grads = {"w": np.full(4, 1e30, np.float32)}
    assert clip_gradients(grads, 1.0) == pytest.approx(2e30, rel=1e-6)
    np.testing.assert_allclose(grads["w"], 0.5, rtol=1e-6)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_gradients_without_a_finite_norm_are_left(number):
    grads = {"w": np.array([1.0, number]), "b": np.array([5.0])}
    before = copies(grads)
    assert not math.isfinite(clip_gradients(grads, 1.0))
    assert_same(grads, before)


def test_norm_beyond_float64_is_infinite_without_a_warning():
    assert clip_gradients({"w": np.array([1e200, 1.0])}, 1.0) == math.inf


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_clipping_of_any_layout(layout, monkeypatch):
    monkeypatch.setattr(optimizers, "BLOCK", 7)
    array = np.random.default_rng(17).normal(size=(4, 5, 3))
    grads = {"w": layout(array)}
    norm = clip_gradients(grads, 1.0)
    assert norm == pytest.approx(np.linalg.norm(array), rel=1e-14)
    np.testing.assert_allclose(grads["w"], array / (norm + 1e-6), rtol=1e-14)


def test_no_gradients_have_no_norm():
    assert clip_gradients({}, 1.0) == 0.0
    assert clip_gradients({"w": np.empty((0, 3), np.float32)}, 1.0) == 0.0


@pytest.mark.parametrize(
    ("grads", "max_norm", "error", "message"),
    [
        ({"w": np.ones(2)}, -1.0, ValueError, "'max_norm' must be a number of at least 0, got -1"),
        ({"w": np.ones(2)}, math.nan, ValueError, "'max_norm' must be"),
        ({"w": read_only()}, 1.0, ValueError, "'grads' .* got a read-only one for 'w'"),
        ({"w": np.ones(2, int)}, 1.0, TypeError, "'grads' must hold NumPy arrays of floats"),
        (np.ones(2), 1.0, TypeError, "'grads' must be a mapping"),
    ],
)
def test_clipping_says_what_is_wrong(grads, max_norm, error, message):
    with pytest.raises(error, match=message):
        clip_gradients(grads, max_norm)


# --- Row-sparse gradients -------------------------------------------------------------------------


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
    for module in (optimizers, missed_steps):
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


@pytest.mark.parametrize("block", [1, 7, 32768])
def test_row_sparse_results_do_not_depend_on_the_blocks(block, monkeypatch):
    expected, found = [], []
    for results, size in ((expected, 32768), (found, block)):
        monkeypatch.setattr(optimizers, "BLOCK", size)
        (params, _), (optimizer, _) = twins(lambda p: AdamW(p, 0.1, weight_decay=0.2))
        for rows, _ in row_sparse_run(3, 9):
            optimizer.step({"weights": rows})
        optimizer.bring_up_to_date()
        results.append(params["weights"].tobytes())
    assert expected == found


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


@given(seed=st.integers(0, 100), limit=st.floats(0, 3))
def test_row_sparse_gradients_are_clipped_like_dense_ones(seed, limit):
    ((sparse, dense),) = row_sparse_run(seed, 1)
    rest = np.random.default_rng(seed).standard_normal(4)
    grads = {"weights": sparse, "bias": rest.copy()}
    wholes = {"weights": dense, "bias": rest.copy()}
    norm, expected = clip_gradients(grads, limit), clip_gradients(wholes, limit)
    assert np.isclose(norm, expected, rtol=1e-12)
    np.testing.assert_allclose(grads["weights"].dense(), wholes["weights"], rtol=1e-12)
    np.testing.assert_allclose(grads["bias"], wholes["bias"], rtol=1e-12)


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
    with pytest.raises(CheckpointError, match=key):
        other.load_state_dict(state)
    state = {**optimizer.state_dict(), "step": np.array(4)}
    with pytest.raises(CheckpointError, match="'rates' must hold learning rates of the last steps"):
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
