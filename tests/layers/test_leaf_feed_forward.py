"""LeafFeedForward: published numbers, soft mixture, gradients, hardening, leak, dropout, usage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fffcpu import LeafFeedForward
from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError
from fffcpu.testing import oracle
from fffcpu.testing.strategies import leaf_problems


def layer_of(problem):
    return LeafFeedForward.from_arrays(**problem.params, activation=problem.activation)


@given(problem=leaf_problems())
def test_the_mixture_agrees_with_the_oracle(problem):
    y, cache = layer_of(problem).forward(problem.x)
    expected = oracle.mixture(problem.x, problem.params, problem.activation)
    dtype = problem.x.dtype
    tolerance = 1e-4 if dtype == np.float32 else 1e-11
    scale = np.abs(expected.y).max(initial=1)
    np.testing.assert_allclose(y, expected.y, rtol=0, atol=tolerance * scale)
    if len(problem.x):
        np.testing.assert_allclose(cache.entropies, expected.entropies, rtol=0, atol=tolerance)
    rows = max(1, len(problem.x))
    np.testing.assert_allclose(cache.gate_usage, expected.gate_usage, atol=tolerance * rows)
    np.testing.assert_allclose(cache.leaf_usage, expected.leaf_usage, atol=tolerance * rows)


@given(
    problem=leaf_problems(max_rows=5, kinds=("normal",), dtypes=(np.float64,), max_width=12),
    hardening=st.sampled_from([0.0, 3.0]),
    region_leak=st.sampled_from([0.0, 0.3]),
    dropout=st.sampled_from([0.0, 0.4]),
    hardened=st.booleans(),
    seed=st.integers(0, 99),
)
def test_gradients_agree_with_finite_differences(
    problem, hardening, region_leak, dropout, hardened, seed
):
    assume(len(problem.x))
    layer = layer_of(problem)
    for name in ("gate_weights", "gate_bias"):
        layer.params[name][...] *= 0.5
    options = {"region_leak": region_leak, "dropout": dropout, "hardened": hardened, "rng": seed}
    _, cache = layer.forward(problem.x, **options)
    step = 1e-6
    logits = problem.x @ layer.params["gate_weights"].T + layer.params["gate_bias"]
    assume(np.abs(logits).min(initial=1) > 20 * step)
    assume(problem.activation != "relu" or np.abs(cache.logits).min(initial=1) > 40 * step)
    dx, grads = layer.backward(problem.dy, cache, hardening=hardening)
    x, rng = problem.x.copy(), np.random.default_rng(seed)

    def loss():
        y, now = layer.forward(x, **options)
        entropy = now.entropies.sum() if now.entropies.size else 0.0
        return (y * problem.dy).sum() + hardening * entropy

    checks = [(x, dx), *((layer.params[name], grad) for name, grad in grads.items())]
    for array, grad in checks:
        if not array.size:
            continue
        direction = rng.choice([-1.0, 1.0], array.shape) / math.sqrt(array.size)
        array += step * direction
        above = loss()
        array -= 2 * step * direction
        below = loss()
        array += step * direction
        scale = np.linalg.norm(grad) + abs(loss()) * 1e-3 + 1e-6
        assert abs((grad * direction).sum() - (above - below) / (2 * step)) <= 1e-5 * scale


def test_hardened_choices_pass_no_gradient_to_the_gates_but_by_entropy():
    layer = LeafFeedForward(6, 3, 2, 4, rng=0, dtype=np.float64)
    x = np.random.default_rng(0).standard_normal((9, 6))
    _, cache = layer.forward(x, hardened=True)
    _, grads = layer.backward(np.ones((9, 3)), cache)
    assert not grads["gate_weights"].any()
    assert not grads["gate_bias"].any()
    _, grads = layer.backward(np.ones((9, 3)), cache, hardening=1.0)
    assert grads["gate_weights"].any()


def test_hardening_lowers_entropy():
    layer = LeafFeedForward(6, 3, 3, 4, rng=0, dtype=np.float64)
    x = np.random.default_rng(0).standard_normal((50, 6))
    _, before = layer.forward(x)
    for _ in range(50):
        _, cache = layer.forward(x)
        _, grads = layer.backward(np.zeros((50, 3)), cache, hardening=1.0)
        for name, grad in grads.items():
            layer.params[name][...] -= 0.5 * grad
    _, after = layer.forward(x)
    assert after.entropies.sum() < 0.8 * before.entropies.sum()


def test_each_row_may_have_its_own_part_in_the_hardening_loss():
    layer = LeafFeedForward(6, 3, 3, 4, rng=0, dtype=np.float64)
    rng = np.random.default_rng(0)
    x, dy, parts = rng.standard_normal((2, 5, 6)), np.zeros((2, 5, 3)), rng.random((2, 5))
    parts[0, 2] = 0
    _, cache = layer.forward(x)
    _, found = layer.backward(dy, cache, hardening=parts)
    expected = {name: np.zeros_like(grad) for name, grad in found.items()}
    for place, part in np.ndenumerate(parts):
        _, alone = layer.forward(x[place][np.newaxis])
        _, grads = layer.backward(np.zeros((1, 3)), alone, hardening=float(part))
        for name, grad in grads.items():
            expected[name] += grad / 10
    for name, grad in found.items():
        np.testing.assert_allclose(grad, expected[name], rtol=1e-10, atol=1e-14)
    assert found["gate_weights"].any()


def test_saturated_gates_have_no_entropy_gradient():
    layer = LeafFeedForward(2, 1, 1, 1, rng=0)
    layer.params["gate_weights"][...] = 100
    _, cache = layer.forward(np.ones((3, 2)))
    _, grads = layer.backward(np.zeros((3, 1)), cache, hardening=5.0)
    assert not grads["gate_weights"].any()
    assert np.isfinite(cache.entropies).all()


@given(problem=leaf_problems(kinds=("normal",)), seed=st.integers(0, 99), hardened=st.booleans())
def test_a_region_leak_flips_choices(problem, seed, hardened):
    layer = layer_of(problem)
    y, cache = layer.forward(problem.x, region_leak=0.3, hardened=hardened, rng=seed)
    if cache.flips is None:
        pytest.fail("a region leak must draw flips")
    expected = oracle.mixture(problem.x, problem.params, problem.activation, cache.flips, hardened)
    scale = np.abs(expected.y).max(initial=1)
    np.testing.assert_allclose(y, expected.y, rtol=0, atol=1e-4 * scale)
    if len(problem.x):
        np.testing.assert_allclose(cache.entropies, expected.entropies, atol=1e-4)
    again, _ = layer.forward(problem.x, region_leak=0.3, hardened=hardened, rng=seed)
    np.testing.assert_array_equal(again, y)


def test_a_region_leak_flips_as_often_as_asked():
    layer = LeafFeedForward(4, 2, 5, 2, rng=0)
    _, cache = layer.forward(np.zeros((2000, 4)), region_leak=0.2, rng=0)
    assert abs(cache.flips.mean() - 0.2) < 0.01
    layer.params["gate_bias"][...] = 30
    _, cache = layer.forward(np.zeros((4000, 4)), region_leak=1.0, rng=0)
    np.testing.assert_allclose(cache.leaf_usage[0], 4000)


def test_dropout_keeps_the_expectation():
    layer = LeafFeedForward(4, 2, 1, 64, activation="gelu", rng=0, dtype=np.float64)
    x = np.random.default_rng(0).standard_normal((3, 4))
    plain, _ = layer.forward(x)
    rng = np.random.default_rng(1)
    mean = np.mean([layer.forward(x, dropout=0.5, rng=rng)[0] for _ in range(3000)], axis=0)
    np.testing.assert_allclose(mean, plain, atol=0.02)
    _, cache = layer.forward(np.zeros((500, 4)), dropout=0.25, rng=0)
    assert set(np.unique(cache.kept)) == {0, 1 / 0.75}
    assert abs((cache.kept == 0).mean() - 0.25) < 0.01
    everything, _ = layer.forward(x, dropout=1.0)
    assert np.isfinite(everything).all()


def test_usage_counts_every_row_once_a_level():
    layer = LeafFeedForward(4, 2, 3, 2, rng=0)
    for hardened in (False, True):
        _, cache = layer.forward(rng_rows(40), hardened=hardened)
        for level in range(3):
            usage = cache.gate_usage[2**level - 1 : 2 ** (level + 1) - 1]
            assert math.isclose(usage.sum(), 40, rel_tol=1e-5)
        assert math.isclose(cache.leaf_usage.sum(), 40, rel_tol=1e-5)


def rng_rows(count):
    return np.random.default_rng(0).standard_normal((count, 4))


def test_depth_0_is_a_dense_network():
    layer = LeafFeedForward(4, 2, 0, 8, rng=0)
    x = rng_rows(5)
    params = {name: array.astype(np.float64) for name, array in layer.params.items()}
    hidden = np.maximum(x @ params["leaf_weights_in"][0] + params["leaf_bias_in"][0], 0)
    expected = hidden @ params["leaf_weights_out"][0] + params["leaf_bias_out"][0]
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-6)
    y, cache = layer.forward(x)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-6)
    assert cache.entropies.shape == (0,)
    np.testing.assert_array_equal(layer.route(x), np.zeros(5))
    layer.backward(np.ones((5, 2)), cache, hardening=1.0)


def test_an_empty_batch_has_no_entropy():
    layer = LeafFeedForward(4, 2, 2, 3, rng=0)
    y, cache = layer.forward(np.empty((0, 4)))
    assert y.shape == (0, 2)
    np.testing.assert_array_equal(cache.entropies, np.zeros(3))
    dx, grads = layer.backward(y, cache, hardening=1.0)
    assert dx.shape == (0, 4)
    assert not any(grad.any() for grad in grads.values())


def test_initial_values_are_uniform_in_the_stated_bounds():
    layer = LeafFeedForward(64, 32, 5, 16, rng=0)
    for name, array in layer.params.items():
        bound = 1 / 4 if name.endswith("_out") else 1 / 8
        assert np.abs(array).max() <= bound
        assert np.abs(array).max() > 0.9 * bound
        if array.size > 1000:
            assert abs(array.std() - bound / math.sqrt(3)) < 0.05 * bound


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"region_leak": -0.1}, ArgumentError, "'region_leak' must be a number from 0 to 1"),
        ({"region_leak": math.nan}, ArgumentError, "'region_leak' must be a number from 0 to 1"),
        ({"dropout": 1.5}, ArgumentError, "'dropout' must be a number from 0 to 1, got 1.5"),
        ({"dropout": "x"}, ArgumentTypeError, "'dropout' must be a number from 0 to 1, got 'x'"),
        ({"dropout": 0.5, "rng": "x"}, ArgumentTypeError, "'rng' must be None, a seed"),
    ],
)
def test_wrong_options_are_errors(options, error, message):
    with pytest.raises(error, match=message):
        LeafFeedForward(4, 2, 2, 3, rng=0).forward(rng_rows(2), **options)


def test_the_entropy_is_flat_where_it_is_clipped():
    layer = LeafFeedForward(2, 1, 1, 1, rng=0, dtype=np.float64)
    layer.params["gate_weights"][...] = 0
    for logit, flat in ((15.0, True), (-15.0, True), (13.0, False)):  # 1e-6 is at 13.8
        layer.params["gate_bias"][...] = logit
        _, cache = layer.forward(np.ones((3, 2)))
        _, grads = layer.backward(np.zeros((3, 1)), cache, hardening=5.0)
        assert (grads["gate_bias"] == 0).all() == flat


def test_hardened_must_be_a_flag():
    with pytest.raises(ArgumentTypeError, match="'hardened' must be True or False, got 'no'"):
        LeafFeedForward(4, 2, 2, 3, rng=0).forward(rng_rows(2), hardened="no")


def test_a_wrong_hardening_is_an_error():
    layer = LeafFeedForward(4, 2, 2, 3, rng=0)
    y, cache = layer.forward(rng_rows(2))
    with pytest.raises(ArgumentError, match="'hardening' must be a number of at least 0, got -1"):
        layer.backward(y, cache, hardening=-1)
    with pytest.raises(ShapeError, match=r"'hardening' must be .* \(2,\), one for each row"):
        layer.backward(y, cache, hardening=[1.0, 1.0, 1.0])
    with pytest.raises(ArgumentError, match=r"'hardening' must hold finite .* got -1.0 at index 1"):
        layer.backward(y, cache, hardening=[1.0, -1.0])


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("leaf_weights_in", (3, 5, 2), r"'leaf_weights_in' must have 2\*\*depth leaves on axis 0"),
        ("gate_weights", (2, 5), r"'gate_weights' must have shape \(3, 5\)"),
        ("gate_bias", (3, 1), r"'gate_bias' must have 1 axis, got shape \(3, 1\)"),
        ("leaf_bias_in", (4, 3), r"'leaf_bias_in' must have shape \(4, 2\)"),
        ("leaf_weights_out", (4, 3, 6), r"'leaf_weights_out' must have shape \(4, 2, 6\)"),
        ("leaf_bias_out", (4, 5), r"'leaf_bias_out' must have shape \(4, 6\)"),
    ],
)
def test_arrays_that_do_not_fit_are_errors(name, shape, message):
    arrays = dict(LeafFeedForward(5, 6, 2, 2, rng=0).params)
    arrays[name] = np.zeros(shape)
    with pytest.raises(ShapeError, match=message):
        LeafFeedForward.from_arrays(**arrays)
