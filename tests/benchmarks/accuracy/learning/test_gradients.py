"""Gradients of routes, of soft layers, of flipped choices and of constants of sides."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit, ndtr

from benchmarks.accuracy.learning import constraints, flips, recipes, routes, sides, soft
from benchmarks.accuracy.learning.levels import levels
from benchmarks.accuracy.learning.recipes import NORMAL, SMOOTH_STEP
from benchmarks.accuracy.learning.sets import recipe_of
from fffcpu import FastFeedForward
from tests.support.finite_differences import check_gradients

BASE = recipe_of("letters", recipes.BASE, quick=False)


def new_layer(dtype=np.float64, depth=2, **options):
    options = {"two_sided": True, "rng": 3} | options
    return FastFeedForward(5, 4, depth, trees=2, dtype=dtype, **options)


def rows(dtype=np.float64, count=9):
    rng = np.random.default_rng(1)
    return (
        2 * rng.standard_normal((count, 5)).astype(dtype),
        rng.standard_normal((count, 4)).astype(dtype),
    )


def equal(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_levels_are_runs_of_a_heap():
    whole = np.arange(15)
    found = [tuple(whole[part].tolist() for part in level) for level in levels(15)]
    assert found == [
        ([0], [1], [2]),
        ([1, 2], [3, 5], [4, 6]),
        ([3, 4, 5, 6], [7, 9, 11, 13], [8, 10, 12, 14]),
    ]
    assert levels(1) == []


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("activation", ["gelu", "relu", "identity"])
def test_gradients_of_the_layers_own_density_are_those_of_the_layer(two_sided, activation):
    layer = new_layer(np.float32, depth=3, two_sided=two_sided, activation=activation)
    x, dy = rows(np.float32, 40)
    _, cache = layer.forward(x)
    expected = layer.backward(dy, cache, straight_through=True)[1]
    equal(routes.gradients(layer, dy, cache, routes.choices(layer, dy, cache)), expected)
    equal(routes.Routed(layer, BASE).backward(dy, cache, 0.5), expected)
    # The width 1, reached halfway between 2 and 0.5, is the layer's own.
    falling = BASE._replace(density_width=2.0, final_density_width=0.5)
    equal(routes.Routed(layer, falling).backward(dy, cache, 0.5), expected)


def test_routes_held_constant_have_no_gradient():
    layer, (x, dy) = new_layer(), rows()
    _, cache = layer.forward(x)
    constant = routes.Routed(layer, BASE._replace(straight_through=False))
    equal(constant.backward(dy, cache, 0.0), layer.backward(dy, cache)[1])


@pytest.mark.parametrize(
    ("change", "density"),
    [
        ({"route_factor": 3.0}, (NORMAL, 1.0, 3.0)),
        ({"density_width": 0.5}, (NORMAL, 0.5, 1.0)),
        ({"density_width": 2.0, "final_density_width": 0.5}, (NORMAL, 2**0.5, 1.0)),
        ({"density": SMOOTH_STEP, "density_width": 2.0}, (SMOOTH_STEP, 2.0, 1.0)),
    ],
)
def test_another_density_takes_the_place_of_the_normal_one(change, density):
    layer, (x, dy) = new_layer(), rows()
    _, cache = layer.forward(x)
    found = routes.Routed(layer, BASE._replace(**change)).backward(dy, cache, 0.25)
    name, width, factor = density
    values = routes.choices(layer, dy, cache) / routes.density_at(cache.logits, NORMAL, 1.0)
    own = routes.density_at(cache.logits, name, width)
    expected = routes.gradients(layer, dy, cache, values * factor * own)
    for key in expected:
        np.testing.assert_allclose(found[key], expected[key], atol=1e-12)


@pytest.mark.parametrize("density", [NORMAL, SMOOTH_STEP])
@pytest.mark.parametrize("width", [0.5, 2.0])
def test_densities_sum_to_one(density, width):
    s, step = np.linspace(-12, 12, 100_001, retstep=True)
    assert routes.density_at(s, density, width).sum() * step == pytest.approx(1, abs=1e-6)


def test_logits_far_from_zero_have_finite_gradients():
    layer = new_layer(np.float32)
    x, dy = rows(np.float32)
    layer.params["bias_in"][...] = 40
    _, cache = layer.forward(x)
    wide = routes.Routed(layer, BASE._replace(density_width=2.0))
    assert all(np.isfinite(grad).all() for grad in wide.backward(dy, cache, 0.0).values())


@pytest.mark.parametrize("activation", ["gelu", "identity"])
def test_soft_gradients_are_slopes(activation):
    layer, (x, dy) = new_layer(activation=activation), rows()
    _, cache = soft.soft_forward(layer, x, 0.7)
    grads = soft.soft_backward(layer, dy, cache)

    def loss():
        return float((soft.soft_forward(layer, x, 0.7)[0] * dy).sum())

    check_gradients(loss, [(layer.params[name], grads[name]) for name in layer.params])


def test_shares_are_about_those_of_a_normal_distribution():
    s = np.linspace(-6, 6, 1001)
    assert np.abs(expit(soft.STEEPNESS * s) - ndtr(s)).max() < 0.01


def test_a_cold_soft_layer_is_the_layer():
    layer, (x, _) = new_layer(), rows()
    y, cache = soft.soft_forward(layer, x, 1e-4)
    np.testing.assert_allclose(y, layer(x), atol=1e-10)
    assert set(np.unique(cache.reach)) == {0.0, 1.0}


def test_soft_training_ends_with_usual_steps():
    recipe = BASE._replace(soft_share=0.75)
    layer, (x, dy) = new_layer(), rows()
    model = soft.Annealed(layer, recipe)
    for fraction, temperature in ((0.0, 0.2), (0.375, 0.1), (0.74999, 0.05)):
        y, cache = model.forward(x, fraction)
        assert soft.STEEPNESS / cache.slope == pytest.approx(temperature, rel=1e-3)
        np.testing.assert_allclose(y, soft.soft_forward(layer, x, temperature)[0], rtol=1e-3)
    y, cache = model.forward(x, 0.75)
    np.testing.assert_array_equal(y, layer(x))
    equal(model.backward(dy, cache, 0.75), layer.backward(dy, cache, straight_through=True)[1])


def test_soft_training_has_no_numbers_below_the_smallest_normal_one():
    layer = new_layer(np.float32, depth=5)
    x, dy = rows(np.float32, 200)
    _, cache = soft.soft_forward(layer, x, 0.02)
    grads = soft.soft_backward(layer, dy, cache)
    for array in (cache.right, cache.reach, cache.used, *grads.values()):
        some = np.abs(array[array != 0])
        assert some.min() >= np.finfo(np.float32).tiny


def with_constants(dtype=np.float64):
    model = sides.WithConstants(new_layer(dtype))
    model.constants[...] = np.random.default_rng(2).standard_normal(model.constants.shape)
    return model


def descend(model, row, tree, node):
    """Sum of the constants that a row gets from a node of a tree on."""
    params = model.layer.params
    count = params["weights_in"].shape[1]
    total = np.zeros(model.constants.shape[1])
    while node < count:
        right = params["weights_in"][tree, node] @ row + params["bias_in"][tree, node] > 0
        total += model.constants[2 * (tree * count + node) + right]
        node = 2 * node + 1 + right
    return total


def test_constants_of_the_sides_taken_are_added():
    model, (x, _) = with_constants(), rows()
    expected = [
        model.layer(row) + sum(descend(model, row, tree, 0) for tree in range(2)) for row in x
    ]
    np.testing.assert_allclose(model(x), expected, rtol=1e-12)


def test_gradients_of_constants_are_slopes():
    model, (x, dy) = with_constants(), rows()
    grads = model.backward(dy, model.forward(x)[1])
    assert grads.keys() == model.params.keys()

    def loss():
        return float((model(x) * dy).sum())

    pairs = [(model.params[name], grads[name]) for name in ("constants", "weights_out")]
    check_gradients(loss, pairs)


def test_constants_are_part_of_the_value_of_a_choice():
    model, (x, dy) = with_constants(), rows()
    _, cache = model.layer.forward(x)
    found = sides.constant_choices(model.layer, model.constants, dy, cache)
    count = model.layer.config.neurons // 2
    for (row, tree, level), node in np.ndenumerate(cache.nodes):
        left, right = (
            model.constants[2 * (tree * count + node) + side]
            + descend(model, x[row], tree, 2 * node + 1 + side)
            for side in range(2)
        )
        s = cache.logits[row, tree, level]
        density = math.exp(-s * s / 2) / math.sqrt(2 * math.pi)
        assert found[row, tree, level] == pytest.approx((right - left) @ dy[row] * density)


def test_constants_of_zero_change_nothing():
    layer, (x, dy) = new_layer(), rows()
    model = sides.WithConstants(layer)
    y, cache = model.forward(x)
    np.testing.assert_array_equal(y, layer(x))
    grads = model.backward(dy, cache)
    del grads["constants"]
    equal(grads, layer.backward(dy, layer.forward(x)[1], straight_through=True)[1])


def test_without_flips_a_layer_is_as_it_was():
    layer, (x, dy) = new_layer(depth=3), rows()
    y, paths = flips.flipped_forward(layer, x, np.zeros((9, 2, 4), bool))
    expected, cache = layer.forward(x)
    np.testing.assert_allclose(y, expected, atol=1e-12)
    np.testing.assert_array_equal(paths.nodes, cache.nodes)
    found = flips.flipped_backward(layer, dy, paths, np.zeros((9, 2, 4), bool))
    for name, grad in layer.backward(dy, cache, straight_through=True)[1].items():
        np.testing.assert_allclose(found[name], grad, atol=1e-12)


@pytest.mark.parametrize("activation", ["gelu", "relu", "identity"])
def test_a_flipped_row_takes_the_other_side_and_its_gradients_are_slopes(activation, monkeypatch):
    layer, (x, dy) = new_layer(activation=activation), rows()
    flipped = np.random.default_rng(2).random((9, 2, 3)) < 0.4
    _, paths = flips.flipped_forward(layer, x, flipped)
    weights_in, bias_in, _ = layer.params.values()
    for row, tree, level in np.ndindex(flipped.shape):
        node = paths.nodes[row, tree, level]
        logit = weights_in[tree, node] @ x[row] + bias_in[tree, node]
        sign = -1 if flipped[row, tree, level] else 1
        assert paths.logits[row, tree, level] == pytest.approx(sign * logit, abs=1e-12)
        if level < 2:
            child = 2 * node + 1 + (sign * logit > 0)
            assert paths.nodes[row, tree, level + 1] == child
    # With routes held constant, gradients are the slopes of the output.
    monkeypatch.setattr(flips, "choices", lambda _, dy, paths: np.zeros_like(paths.logits))
    grads = flips.flipped_backward(layer, dy, paths, flipped)

    def loss():
        return float((flips.flipped_forward(layer, x, flipped)[0] * dy).sum())

    check_gradients(loss, [(layer.params[name], grads[name]) for name in layer.params])


def test_the_value_of_a_choice_is_that_of_the_right_side_less_the_left_one():
    layer, (x, dy) = new_layer(), rows(count=1)
    flipped = np.random.default_rng(2).random((1, 2, 3)) < 0.4
    _, paths = flips.flipped_forward(layer, x, flipped)
    found = routes.choices(layer, dy, paths)
    for tree, level in np.ndindex(flipped.shape[1:]):
        outputs = []
        for right in (False, True):
            # Go that way at this node; further down no choice is flipped.
            changed = flipped.copy()
            taken = paths.logits[0, tree, level] > 0
            if taken != right:
                changed[0, tree, level] ^= True
                changed[0, tree, level + 1 :] = False
            outputs.append(flips.flipped_forward(layer, x, changed)[0] @ dy[0])
        density = routes.density_at(paths.logits[:, tree, level], NORMAL, 1.0)[0]
        expected = (outputs[1] - outputs[0])[0] * density
        assert found[0, tree, level] == pytest.approx(expected, abs=1e-12)


def test_balancing_moves_biases_towards_equal_sides():
    layer, (x, dy) = new_layer(), rows(count=40)
    model = constraints.Constrained(layer, BASE._replace(balancing=0.25))
    _, cache = model.forward(x, 0.0)
    before = layer.params["bias_in"].copy()
    expected = layer.backward(dy, cache, straight_through=True)[1]
    equal(model.backward(dy, cache, 0.0), expected)
    for tree, node in np.ndindex(before.shape):
        logits = cache.logits[:, tree][cache.nodes[:, tree] == node]
        step = 0.25 * np.sign((logits > 0).sum() - (logits <= 0).sum())
        assert layer.params["bias_in"][tree, node] == before[tree, node] - step


def test_fixed_norms_are_the_initial_ones():
    layer, (x, _) = new_layer(), rows()
    model = constraints.Constrained(layer, BASE._replace(fixed_norms=True))
    before = layer.params["weights_in"].copy()
    layer.params["weights_in"][...] *= np.random.default_rng(0).uniform(1, 5, (2, 7, 1))
    model.forward(x, 0.0)
    np.testing.assert_allclose(layer.params["weights_in"], before, rtol=1e-12)
