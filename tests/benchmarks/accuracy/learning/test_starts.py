"""Initial weights that fit the rows."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.accuracy.learning import starts
from benchmarks.accuracy.learning.recipes import BALANCED, CLUSTERS, NEURONS, NORMS, TARGETS
from benchmarks.accuracy.learning.sets import Rows
from benchmarks.data.bert import Neurons, gelu
from fffcpu import FastFeedForward


def new_rows(count: int) -> Rows:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((count, 6)).astype(np.float32)
    y = x @ rng.standard_normal((6, 3)).astype(np.float32)
    shapes = (64, 6), (64,), (64, 3)
    teacher = Neurons(*(rng.standard_normal(shape).astype(np.float32) for shape in shapes))
    return Rows(x, y, x, y, 3, teacher)


@pytest.mark.parametrize("start", [BALANCED, TARGETS, CLUSTERS, NEURONS, NORMS])
def test_nodes_halve_the_rows_that_reach_them(start):
    rows = new_rows(1024)
    layer = FastFeedForward(6, 3, depth=3, trees=2, two_sided=True, rng=0)
    before = layer.params["weights_in"].copy()
    starts.fit_start(layer, rows, start, np.random.default_rng(0))
    _, cache = layer.forward(rows.x)
    usage = layer.usage(cache)["weights_in"]
    assert usage.tolist() == [[1024, *[512] * 2, *[256] * 4, *[128] * 8]] * 2
    for node in range(15):
        own = cache.logits[cache.nodes == node]
        assert np.abs(own).mean() == pytest.approx(0.8, abs=0.2)  # of a normal deviation of 1
    after = layer.params["weights_in"]
    turned = np.einsum("tni,tni->tn", before, after) / np.linalg.norm(before, axis=2)
    turned /= np.linalg.norm(after, axis=2)
    assert (turned > 0.999).all() == (start == BALANCED)
    assert (after[0] != after[1]).any(axis=1).all()  # trees differ


def test_nodes_that_few_rows_reach_keep_their_weights():
    layer = FastFeedForward(6, 3, depth=1, two_sided=True, rng=0)
    before = layer.params["weights_in"].copy()
    starts.fit_start(layer, new_rows(100), BALANCED, np.random.default_rng(0))
    np.testing.assert_array_equal(layer.params["weights_in"][0, 1:], before[0, 1:])
    assert (layer.params["weights_in"][0, 0] != before[0, 0]).all()


def test_a_node_turns_to_what_differs_most_in_the_targets():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5000, 6)).astype(np.float32)
    targets = np.column_stack((x[:, 1], 5 * x[:, 4]))
    direction = starts.towards(x, starts.leading_component(targets))
    assert np.abs(direction[4]) > 50 * np.abs(np.delete(direction, 4)).max()


def test_neurons_of_a_node_are_those_of_its_side_of_the_parent():
    teacher = new_rows(1).teacher
    groups = starts.Groups.of(teacher, 7, np.random.default_rng(0))
    assert sorted(np.concatenate(groups.members[0])) == list(range(64))
    for node in range(3):
        for child, own in zip((2 * node + 1, 2 * node + 2), groups.members[node], strict=True):
            assert sorted(np.concatenate(groups.members[child])) == own.tolist()
            assert [len(side) for side in groups.members[child]] == [len(own) // 2] * 2
    left, right = (teacher.weights_in[own].mean(axis=0) for own in groups.members[2])
    np.testing.assert_array_equal(groups.direction(2), right - left)


def test_too_few_neurons_for_a_tree_are_an_error():
    with pytest.raises(ValueError, match="64 neurons must be two for each of 127 nodes"):
        starts.Groups.of(new_rows(1).teacher, 127, np.random.default_rng(0))


def test_norms_are_those_of_the_outputs_of_each_side():
    rows = new_rows(40)
    groups = starts.Groups.of(rows.teacher, 3, np.random.default_rng(0))
    expected = 0
    for sign, own in zip((-1, 1), groups.members[1], strict=True):
        output = sum(
            gelu(rows.x @ rows.teacher.weights_in[k] + rows.teacher.bias_in[k])[:, np.newaxis]
            * rows.teacher.weights_out[k]
            for k in own
        )
        expected = expected + sign * np.linalg.norm(output, axis=1)
    np.testing.assert_allclose(
        groups.difference_of_norms(1, rows.x), expected, rtol=1e-4, atol=1e-4
    )


def test_classes_are_vectors():
    vectors = starts.vectors_of(np.array([2, 0]), 3)
    assert vectors.tolist() == [[0, 0, 1], [1, 0, 0]]
