"""A layer on the rows of a table: scaling, the gradients of a batch, figures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from fffcpu import DenseFeedForward, FastFeedForward, LeafFeedForward
from fffcpu.errors import ArgumentError, ShapeError
from fffcpu.recipes import scaling as scaling_module
from fffcpu.recipes.scaling import Scaling, block_rows, deviations
from fffcpu.recipes.table_objective import TableObjective, tally_of
from fffcpu.training import mean_squared_error, sigmoid_cross_entropy, softmax_cross_entropy
from fffcpu.training.batches import BatchOrder
from fffcpu.training.trainer import Moment

RNG = np.random.default_rng(0)
X = RNG.standard_normal((30, 5)).astype(np.float32)
LABELS = RNG.integers(0, 3, 30)
ALL = np.arange(30)


@given(
    rows=st.integers(1, 40),
    shift=st.sampled_from([0.0, 1e4, -3.0]),
    by=st.sampled_from(["columns", "table"]),
    block=st.integers(1, 50),
)
def test_scaled_columns_have_mean_0_and_deviation_1(rows, shift, by, block):
    x = np.random.default_rng(rows).standard_normal((rows, 3)) * [1.0, 5.0, 0.0] + shift
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scaling_module, "EVALUATED_ROWS", block)
        scaling = Scaling.of(x, np.arange(rows), by)
    assert np.allclose(scaling.mean, x.mean(axis=0), atol=1e-9 * max(1, abs(shift)))
    deviations = x.std(axis=0)
    if by == "table":
        deviations = np.full(3, np.sqrt(np.square(deviations).mean()))
    expected = np.where(deviations < 1e-9, 1.0, deviations)
    assert np.allclose(scaling.scale, expected, rtol=1e-6)
    scaled = scaling.apply(x, np.float64)
    assert scaled.dtype == np.float64
    assert np.allclose(scaled, (x - x.mean(axis=0)) / expected, atol=1e-6)


def test_scaling_looks_at_the_given_rows_only():
    x = np.array([[1.0], [3.0], [1000.0]])
    assert Scaling.of(x, np.array([0, 1]), "columns").mean.tolist() == [2.0]
    untouched = Scaling.of(x, np.array([0]), "none")
    assert (untouched.mean.tolist(), untouched.scale.tolist()) == ([0.0], [1.0])


@pytest.mark.parametrize("value", [0.3, 0.1, 1e9, -7.77])
def test_a_column_of_one_number_stays_as_it_is(value):
    x = np.full((6000, 1), value)
    assert Scaling.of(x, np.arange(6000), "columns").scale.tolist() == [1.0]
    assert deviations(np.array([1.0, 0.0]), np.array([1e-30, 1e-20])).tolist() == [1.0, 1e-10]


def test_scaling_refuses():
    with pytest.raises(ArgumentError, match="'by'"):
        Scaling.of(X, ALL, "rows")
    with pytest.raises(ArgumentError, match=r"column 1 .* finite numbers"):
        Scaling.of(np.array([[1.0, np.nan], [2.0, 3.0]]), np.arange(2), "columns")


def test_bytes_are_scaled_as_floats():
    pixels = np.array([[0, 255]], np.uint8)
    scaling = Scaling(np.array([1.0, 5.0]), np.array([2.0, 10.0]))
    assert scaling.apply(pixels, np.float32).tolist() == [[-0.5, 25.0]]


@pytest.mark.parametrize("targets", ["labels", "numbers"])
def test_a_step_has_the_gradients_of_its_batch(targets):
    layer = FastFeedForward(5, 3, depth=2, trees=2, rng=0)
    numbers = RNG.standard_normal((30, 3)).astype(np.float32)
    y, loss_of = (
        (LABELS, softmax_cross_entropy) if targets == "labels" else (numbers, mean_squared_error)
    )
    order = BatchOrder(30, 7)
    scaling = Scaling.of(X, ALL, "columns")
    objective = TableObjective(layer, X, y, order, scaling=scaling)
    result = objective.step(Moment(2, 0.5, np.random.default_rng(0)))
    rows = order.rows(2)
    outputs, cache = layer.forward(scaling.apply(X[rows], np.float32))
    loss, upstream = loss_of(outputs, y[rows])
    _, grads = layer.backward(upstream, cache)
    assert result.loss == loss
    assert result.rows == 7
    assert all(np.array_equal(result.grads[name], grads[name]) for name in layer.params)
    assert result.usage["weights_in"].shape == (2, 7)
    assert result.usage["weights_in"].sum() == 7 * 2 * 3


def test_options_reach_the_layer():
    layer = LeafFeedForward(5, 3, depth=2, leaf_width=2, rng=0)
    moments = []

    def forward_options(moment):
        moments.append(moment.step)
        return {"region_leak": 1.0, "rng": moment.rng}

    objective = TableObjective(
        layer,
        X,
        LABELS,
        BatchOrder(30, 30),
        forward_options=forward_options,
        backward_options=lambda moment: {"hardening": 100.0 * moment.fraction},
    )
    soft = objective.step(Moment(0, 0.0, np.random.default_rng(0))).grads
    hard = objective.step(Moment(0, 1.0, np.random.default_rng(0))).grads
    assert moments == [0, 0]
    assert not np.allclose(soft["gate_weights"], hard["gate_weights"])
    assert np.array_equal(soft["leaf_weights_out"], hard["leaf_weights_out"])


def test_evaluates_the_held_out_rows():
    layer = DenseFeedForward(5, 3, 4, rng=0)
    held_out = np.array([1, 4, 9])
    objective = TableObjective(layer, X, LABELS, BatchOrder(30, 8), held_out)
    expected = layer(X[held_out])
    figures = objective.evaluate()
    assert set(figures) == {"validation_loss", "validation_accuracy"}
    assert figures["validation_accuracy"] == (expected.argmax(1) == LABELS[held_out]).mean()
    assert TableObjective(layer, X, LABELS, BatchOrder(30, 8)).evaluate() == {}


@given(block=st.integers(1, 40), rows=st.integers(1, 30))
def test_figures_do_not_depend_on_the_blocks(block, rows):
    scores = np.random.default_rng(1).standard_normal((30, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scaling_module, "EVALUATED_ROWS", block)
        classes = tally_of(lambda chosen: scores[chosen], LABELS, ALL[:rows]).figures()
        numbers = tally_of(lambda chosen: scores[chosen], scores[::-1].copy(), ALL[:rows]).figures()
    assert np.isclose(classes["loss"], softmax_cross_entropy(scores[:rows], LABELS[:rows])[0])
    assert np.isclose(classes["accuracy"], (scores.argmax(1) == LABELS)[:rows].mean())
    targets = scores[::-1][:rows]
    residual = np.square(scores[:rows] - targets).sum(axis=0)
    total = np.square(targets - targets.mean(axis=0)).sum(axis=0)
    assert np.isclose(numbers["loss"], residual.sum() / targets.size)
    if rows > 1:
        assert np.isclose(numbers["r2"], (1 - residual / total).mean())
    else:
        assert np.isnan(numbers["r2"])


WEIGHTS = np.random.default_rng(5).integers(1, 4, 30).astype(float)
REPEATED = np.repeat(ALL, WEIGHTS.astype(int))
TARGETS = {
    "classes": LABELS,
    "labels": np.random.default_rng(6).random((30, 3)) < 0.5,
    "numbers": np.random.default_rng(7).standard_normal((30, 3)),
}


@given(by=st.sampled_from(["columns", "table"]), block=st.integers(1, 50))
def test_scaling_with_weights_is_that_of_repeated_rows(by, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scaling_module, "EVALUATED_ROWS", block)
        found = Scaling.of(X, ALL[:20], by, WEIGHTS)
    expected = Scaling.of(X, REPEATED[REPEATED < 20], by)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.scale, expected.scale, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", TARGETS)
def test_a_step_with_weights_is_one_of_repeated_rows(kind):
    layer = FastFeedForward(5, 3, depth=2, trees=2, dtype=np.float64, rng=0)
    y, moment = TARGETS[kind], Moment(0, 0.0, np.random.default_rng(0))
    found = TableObjective(layer, X, y, BatchOrder(30, 30), weights=WEIGHTS).step(moment)
    expected = TableObjective(layer, X, y, BatchOrder(REPEATED, len(REPEATED))).step(moment)
    assert found.loss == pytest.approx(expected.loss, rel=1e-12)
    for name, grad in found.grads.items():
        np.testing.assert_allclose(grad, expected.grads[name], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("kind", TARGETS)
@given(block=st.integers(1, 40))
def test_figures_with_weights_are_those_of_repeated_rows(kind, block):
    outputs = np.random.default_rng(1).standard_normal((30, 3))
    y = TARGETS[kind]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scaling_module, "EVALUATED_ROWS", block)
        found = tally_of(lambda rows: outputs[rows], y, ALL, WEIGHTS).figures()
    repeated = tally_of(lambda rows: outputs[rows], y, REPEATED).figures()
    assert found == pytest.approx(repeated, rel=1e-10)
    if kind == "labels":
        loss, _ = sigmoid_cross_entropy(outputs[REPEATED], y[REPEATED])
        right = ((outputs > 0) == y).all(axis=1)[REPEATED].mean()
        assert found == pytest.approx({"loss": loss, "accuracy": right}, rel=1e-10)


def test_an_evaluation_weighs_its_rows():
    layer = DenseFeedForward(5, 3, 4, rng=0)
    objective = TableObjective(layer, X, LABELS, BatchOrder(30, 8), ALL, weights=WEIGHTS)
    right = (layer(X).argmax(axis=1) == LABELS)[REPEATED].mean()
    assert objective.evaluate()["validation_accuracy"] == pytest.approx(right)


def test_sparse_tables_give_the_bits_of_dense_ones():
    dense = np.where(X > 0.5, X, 0)
    layer = FastFeedForward(5, 3, depth=2, trees=2, rng=0)
    moment = Moment(1, 0.0, np.random.default_rng(0))
    results = []
    for table in (dense, sparse.csr_matrix(dense), sparse.csr_array(dense)):
        scaling = Scaling.of(table, ALL, "columns")
        objective = TableObjective(layer, table, LABELS, BatchOrder(30, 8), ALL, scaling=scaling)
        step = objective.step(moment)
        grads = [grad.tobytes() for grad in step.grads.values()]
        results.append((step.loss, grads, objective.evaluate()))
    assert results[0] == results[1] == results[2]


def test_wide_rows_are_evaluated_fewer_at_a_time(monkeypatch):
    assert block_rows(1) == block_rows(100) == 8192
    monkeypatch.setattr(scaling_module, "EVALUATED_NUMBERS", 20)
    assert (block_rows(5), block_rows(7), block_rows(21)) == (4, 2, 1)
    sizes = []

    def outputs(rows):
        sizes.append(len(rows))
        return np.zeros((len(rows), 3))

    tally_of(outputs, LABELS, ALL, width=3)
    assert sizes == [6] * 5


def test_x_and_y_have_one_length():
    with pytest.raises(ShapeError, match="'y'"):
        TableObjective(DenseFeedForward(5, 3, 4, rng=0), X, LABELS[:-1], BatchOrder(30, 8))
