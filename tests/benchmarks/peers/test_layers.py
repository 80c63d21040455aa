"""Every peer that is installed computes what it should."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.peers import layers as peers
from fffcpu import DenseFeedForward, FastFeedForward
from fffcpu.testing import oracle


def prepared(peer, params, activation):
    """The peer with these weights; skips where it is not installed."""
    if missing := peers.absent(peer):
        pytest.skip(missing)
    instance = peer(1)
    instance.prepare(params, activation)
    return instance


def of_kind(kind: str):
    return [pytest.param(peer, id=peer.__name__) for peer in peers.PEERS if peer.kind == kind]


def rows(count: int, width: int) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((count, width)).astype(np.float32)


def tree(trees: int = 2) -> FastFeedForward:
    return FastFeedForward(9, 5, 3, trees, rng=1)


@pytest.mark.parametrize("peer", of_kind("dense"))
@pytest.mark.parametrize("count", [1, 6])
def test_dense_peers_compute_the_dense_layer(peer, count):
    params = DenseFeedForward(9, 5, 21, rng=0).params
    x = rows(count, 9)
    as_trees = {name: array[:, np.newaxis] for name, array in params.items()}
    expected = oracle.path(x, **as_trees, activation=peer.activation).y
    np.testing.assert_allclose(
        peers.expected_dense(params, x, peer.activation), expected, atol=1e-12
    )
    y = prepared(peer, params, peer.activation).run(x)
    assert y.shape == (count, 5)
    assert np.abs(y - expected).max() <= peer.tolerance * np.abs(expected).max()


@pytest.mark.parametrize("peer", of_kind("path"))
@pytest.mark.parametrize("trees", [1, 3])
def test_path_peers_compute_the_path(peer, trees):
    layer, x = tree(trees), rows(40, 9)
    result = oracle.path(x, **layer.params)
    y = prepared(peer, layer.params, "gelu").run(x)
    safe = result.margin > 1e-5
    assert safe.sum() > 30
    assert np.abs(y - result.y)[safe].max() <= peer.tolerance * np.abs(result.y).max()


@pytest.mark.parametrize("peer", of_kind("step"))
def test_step_peers_compute_the_gradients(peer):
    layer, x, dy = tree(), rows(30, 9), rows(30, 5)
    assert oracle.path(x, **layer.params).margin.min() > 1e-5  # so routes agree
    step = prepared(peer, layer.params, "gelu")
    for _ in range(2):  # gradients of one call do not add to those of the last
        dx, grads = step.run(x, dy)
    expected_dx, expected = oracle.path_gradients(x, **layer.params, dy=dy)
    np.testing.assert_allclose(dx, expected_dx, atol=1e-5)
    assert set(grads) == set(expected)
    for name, gradient in expected.items():
        np.testing.assert_allclose(grads[name], gradient, atol=1e-4, err_msg=name)


def test_an_absent_peer_is_named():
    class Absent(peers.Peer):
        name, modules = "Nobody's dense", ("numpy", "absent_module")

    message = "Nobody's dense: absent_module not installed, pip install 'fffcpu[bench]'"
    assert peers.absent(Absent) == message
    assert peers.absent(peers.NumpyDense) is None
