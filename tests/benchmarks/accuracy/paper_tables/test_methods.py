"""Ways to train that the library does not have."""

from __future__ import annotations

import numpy as np

from benchmarks.accuracy.paper_tables import methods
from fffcpu import FastFeedForward
from fffcpu.recipes.fitting import FitSettings
from tests.support.finite_differences import check_gradients


def all_nodes(**routing):
    """A layer that trains by all of its nodes, and the plain one it is made from."""
    plain = FastFeedForward(7, 4, 3, trees=2, dtype=np.float64, rng=0)
    layer = methods._as(methods.AllNodes, plain)
    layer.routing = methods.Routing(10, **routing)
    return layer, plain


def test_all_nodes_with_hard_routes_train_as_the_library_does():
    layer, plain = all_nodes()
    x, dy = (np.random.default_rng(0).standard_normal((9, width)) for width in (7, 4))
    expected, expected_cache = plain.forward(x)
    y, cache = layer.forward(x)
    np.testing.assert_allclose(y, expected, atol=1e-14)
    dx, grads = layer.backward(dy, cache)
    expected_dx, expected_grads = plain.backward(dy, expected_cache, straight_through=True)
    np.testing.assert_allclose(dx, expected_dx, atol=1e-13)
    for name, grad in grads.items():
        np.testing.assert_allclose(grad, expected_grads[name], atol=1e-13)


def test_gradients_of_soft_routes_agree_with_finite_differences():
    layer, _ = all_nodes(soft=(0.5, 0.5))
    x, dy = (np.random.default_rng(0).standard_normal((9, width)) for width in (7, 4))
    _, cache = layer.forward(x)
    dx, grads = layer.backward(dy, cache)
    pairs = [(x, dx), *((layer.params[name], grad) for name, grad in grads.items())]
    check_gradients(lambda: float((layer.forward(x)[0] * dy).sum()), pairs)


def test_shared_neurons_of_a_master_leaf_stay_shared():
    settings = FitSettings(layer="leaf", depth=2, leaf_width=4, epochs=1)
    context = methods.Context(np.zeros((0, 5), np.float32), 10, 0.1)
    layer = methods.master_leaf(settings, 5, 3, context)
    x, dy = (np.random.default_rng(0).standard_normal((9, width)) for width in (5, 3))
    _, cache = layer.forward(x)
    _, grads = layer.backward(dy, cache)
    for name, shared in layer._shared_slices():
        for array in (layer.params[name][shared], grads[name][shared]):
            assert array.size
            np.testing.assert_array_equal(array, np.broadcast_to(array[:1], array.shape))
    assert (layer.params["leaf_bias_in"][0] != layer.params["leaf_bias_in"][1]).any()


def test_balanced_routes_send_half_of_the_rows_each_way():
    rows = np.random.default_rng(0).standard_normal((800, 6)).astype(np.float32)
    settings = FitSettings(depth=3, trees=2)
    layer = methods.balanced_routes(settings, 6, 3, methods.Context(rows, 10, 0.1))
    leaves = layer.route(rows)[:, :, -1]
    for tree in range(2):
        np.testing.assert_allclose(np.bincount(leaves[:, tree])[7:], 100, atol=3)


def test_pruned_nodes_are_those_without_a_row():
    layer = FastFeedForward(5, 3, 4, rng=0)
    rows = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    before = layer(rows)
    share = methods.prune(layer, rows)
    assert share == 1 - len(np.unique(layer.route(rows))) / 31
    np.testing.assert_array_equal(layer(rows), before)
    assert (layer.params["weights_out"] == 0).all(axis=2).mean() == share
