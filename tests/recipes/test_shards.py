"""Shards: their sums, whoever makes them; and trainings cut into them."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fffcpu
from fffcpu import DenseFeedForward, FastFeedForward, LeafFeedForward
from fffcpu.data import Table, load_digits
from fffcpu.errors import ArgumentError, CheckpointError
from fffcpu.parameters import RowGradient
from fffcpu.recipes.fitting import FitSettings, backward_options, fit, forward_options
from fffcpu.recipes.shards import LocalShards, StepSums, in_proportion
from fffcpu.recipes.table_objective import TableObjective
from fffcpu.recipes.table_parts import (
    column_totals,
    cut_table,
    input_moments,
    part_routes,
    sampled_rows,
)
from fffcpu.training.batches import BatchOrder
from fffcpu.training.run_folder import RunFolder
from fffcpu.training.trainer import Moment, StepResult

IMAGES, LABELS = load_digits()
DIGITS = Table(IMAGES[:400], LABELS[:400], classes=tuple(range(10)))
RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 5)) * [1, 10, 100, 1, 1] + [0, 1, 2, 3, 4]
Y = X[:, :2] * [2.0, 0.1] + 1.0
NUMBERS = Table(X, Y, features=tuple("abcde"), target=("u", "v"))

QUICK = {"epochs": 2, "depth": 3, "trees": 2, "batch_size": 50}


# --- Sums ----------------------------------------------------------------------------------------


def result_of(seed, sparse):
    """A shard's result, with numbers whose sum depends on the order."""
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((6, 3)).astype(np.float32) * 10.0 ** rng.integers(-4, 4)
    rows = np.flatnonzero(rng.random(6) < 0.5)
    counts = rng.integers(0, 9, (1, 6))
    return StepResult(
        float(rng.standard_normal()),
        {
            "weights": RowGradient(rows, weights[rows], (1, 6, 3)) if sparse else weights,
            "bias": rng.standard_normal(6).astype(np.float32),
        },
        int(rng.integers(1, 9)),
        {"weights": counts, "bias": counts},
    )


def bits_of(result):
    grads = [
        (name, grad.dense().tobytes() if isinstance(grad, RowGradient) else grad.tobytes())
        for name, grad in result.grads.items()
    ]
    return result.loss, grads, result.rows, [array.tobytes() for array in result.usage.values()]


@given(data=st.data(), shards=st.integers(1, 12), sparse=st.booleans())
def test_a_sum_depends_neither_on_the_order_nor_on_who_makes_it(data, shards, sparse):
    in_turn = StepSums()
    for shard in range(shards):
        in_turn.add(0, shard, result_of(shard, sparse))
    order = data.draw(st.permutations(range(shards)))
    workers = data.draw(st.lists(st.integers(0, 3), min_size=shards, max_size=shards))
    held = [StepSums() for _ in range(4)]
    for shard in order:
        held[workers[shard]].add(0, shard, result_of(shard, sparse))
    whole = StepSums()
    for (level, place), result in itertools.chain(*(sums.sums.items() for sums in held)):
        whole.add(level, place, result)
    assert bits_of(whole.total()) == bits_of(in_turn.total())


@given(shards=st.integers(1, 9), sparse=st.booleans())
def test_a_sum_has_what_its_shards_have(shards, sparse):
    sums, expected = StepSums(), [result_of(shard, sparse) for shard in range(shards)]
    for shard in range(shards):
        sums.add(0, shard, result_of(shard, sparse))
    total = sums.total()
    assert total.loss == pytest.approx(sum(result.loss for result in expected))
    assert total.rows == sum(result.rows for result in expected)
    counts = sum(result.usage["bias"] for result in expected)
    np.testing.assert_array_equal(total.usage["bias"], counts)
    assert total.usage["weights"] is total.usage["bias"]
    bias = sum(result.grads["bias"].astype(np.float64) for result in expected)
    np.testing.assert_allclose(total.grads["bias"], bias, rtol=1e-4, atol=1e-5)


def test_read_only_arrays_of_messages_are_not_written():
    sums = StepSums()
    for shard in range(2):
        result = result_of(shard, False)
        for array in (*result.grads.values(), *result.usage.values()):
            array.flags.writeable = False
        sums.add(0, shard, result)
    assert sums.total().rows > 0


def test_neighbours_are_added_as_soon_as_both_are_there():
    sums = StepSums()
    for shard in range(8):
        sums.add(0, shard, result_of(shard, False))
        assert len(sums.sums) == bin(shard + 1).count("1")
    assert list(sums.sums) == [(3, 0)]


def test_one_shard_is_not_scaled():
    result = result_of(0, False)
    before = result.grads["weights"].tobytes()
    assert in_proportion(result, result.rows).grads["weights"].tobytes() == before
    half = in_proportion(result_of(0, True), 2 * result.rows)
    assert half.loss == result.loss / 2
    whole = result_of(0, True).grads["weights"].values
    np.testing.assert_array_equal(half.grads["weights"].values, whole / 2)


# --- Gradients -----------------------------------------------------------------------------------

LAYERS = {
    "fast": lambda dtype: FastFeedForward(5, 2, 3, trees=2, two_sided=True, dtype=dtype, rng=0),
    "leaf": lambda dtype: LeafFeedForward(5, 2, 2, 3, dtype=dtype, rng=0),
    "dense": lambda dtype: DenseFeedForward(5, 2, 4, dtype=dtype, rng=0),
}


@given(
    layer=st.sampled_from(list(LAYERS)),
    shards=st.integers(1, 7),
    batch_size=st.integers(7, 30),
    gradients=st.sampled_from(["dense", "rows"]),
    step=st.integers(0, 9),
)
def test_shards_add_up_to_the_gradients_of_their_batch(layer, shards, batch_size, gradients, step):
    settings = FitSettings(
        layer=layer, gradients=gradients, batch_size=batch_size, shards=shards, max_norm=None
    )
    model = LAYERS[layer](np.float64)
    training = np.arange(0, 60, 2)
    parts = cut_table(NUMBERS, training, np.arange(1, 60, 2), shards)
    orders = [
        BatchOrder(part.training, batch_size, settings.seed, deal=part.deal) for part in parts
    ]

    def objective(part, layer):
        return TableObjective(
            layer,
            part.x,
            part.y,
            orders[part.deal.shard],
            part.validation,
            forward_options=forward_options(settings),
            backward_options=backward_options(settings, layer),
        )

    def moment():
        return Moment(step, 0.3, np.random.default_rng((0, step)))

    found = LocalShards(parts).objective(model, objective).step(moment())
    rows = np.concatenate(
        [part.first + order.rows(step) for part, order in zip(parts, orders, strict=True)]
    )
    whole = BatchOrder(rows, len(rows))
    together = TableObjective(
        model,
        X,
        Y,
        whole,
        backward_options=backward_options(settings, model),
        forward_options=forward_options(settings),
    )
    expected = together.step(moment()._replace(step=0))
    assert found.rows == expected.rows == len(rows)
    assert found.loss == pytest.approx(expected.loss, rel=1e-9)
    for name, grad in expected.grads.items():
        ours, theirs = (
            value.dense() if isinstance(value, RowGradient) else value
            for value in (found.grads[name], grad)
        )
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9 * np.abs(theirs).max())
    for name, counts in expected.usage.items():
        np.testing.assert_allclose(found.usage[name], counts, rtol=1e-12)


# --- Parts of a table ----------------------------------------------------------------------------


@given(seed=st.integers(0, 50), shards=st.integers(1, 8))
def test_parts_have_every_row_once_and_statistics_of_all(seed, shards):
    rng = np.random.default_rng(seed)
    held_out = rng.random(60) < 0.3
    training, validation = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    table = dataclasses.replace(NUMBERS, x=np.where(rng.random(X.shape) < 0.1, np.nan, X))
    parts = cut_table(table, training, validation, shards)
    np.testing.assert_array_equal(np.concatenate([part.x for part in parts]), table.x)
    for name, expected in (("training", training), ("validation", validation)):
        found = [part.first + getattr(part, name) for part in parts]
        np.testing.assert_array_equal(np.concatenate(found), expected)
    for every in (1, 7):
        some = np.concatenate([sampled_rows(part, every) for part in parts])
        np.testing.assert_array_equal(some, table.x[::every])
    totals = [column_totals(part) for part in parts]
    whole = totals[0]
    for other in totals[1:]:
        whole = whole.plus(other)
    np.testing.assert_allclose(whole.totals, np.nansum(table.x[training], axis=0))
    np.testing.assert_array_equal(whole.high, np.nanmax(table.x[training], axis=0))
    moments = [
        input_moments(part, None) for part in cut_table(NUMBERS, training, validation, shards)
    ]
    merged = moments[0]
    for other in moments[1:]:
        merged = merged.plus(other)
    np.testing.assert_allclose(merged.mean, X[training].mean(axis=0))
    np.testing.assert_allclose(merged.variance, X[training].var(axis=0))
    np.testing.assert_array_equal(merged.spread, np.ptp(X[training], axis=0))


# --- Trainings -----------------------------------------------------------------------------------


def saved(fitted, folder):
    """The bytes of a model's file."""
    fitted.predictor.save(folder / "model")
    return (folder / "model").read_bytes()


@pytest.mark.parametrize("layer", ["fast", "leaf", "dense"])
@pytest.mark.parametrize("table", [DIGITS, NUMBERS], ids=["classes", "numbers"])
def test_bits_do_not_depend_on_the_number_of_threads(layer, table, tmp_path):
    settings = FitSettings(**QUICK, layer=layer, shards=5, clip=True, validation=0.2)
    before, found = fffcpu.get_num_threads(), set()
    try:
        for threads in {1, before}:
            fffcpu.set_num_threads(threads)
            fitted = fit(table, settings, progress=False)
            found.add((saved(fitted, tmp_path), str(fitted.outcome.figures)))
    finally:
        fffcpu.set_num_threads(before)
    assert len(found) == 1


@pytest.mark.slow
def test_a_training_in_shards_learns_as_much(tmp_path):
    table = Table(IMAGES, LABELS, classes=tuple(range(10)))
    one, four = (
        fit(table, FitSettings(epochs=4, shards=shards), progress=False) for shards in (1, 4)
    )
    assert saved(one, tmp_path) != saved(four, tmp_path)
    assert one.held_out.tolist() == four.held_out.tolist()
    assert four.validation["accuracy"] > one.validation["accuracy"] - 0.08
    leaves = four.predictor.routes
    assert sum(table.sum() for table in leaves.outcomes) == 4 * (len(IMAGES) - len(one.held_out))


@pytest.mark.parametrize("optimizer", ["adamw", "local-adam"])
def test_a_broken_off_run_goes_on_to_the_same_bits(optimizer, tmp_path):
    settings = FitSettings(**QUICK, shards=3, optimizer=optimizer, checkpoint_seconds=0)
    whole = fit(DIGITS, settings, folder=tmp_path / "whole", progress=False)
    fit(DIGITS, settings, folder=tmp_path / "part", progress=False)
    newest, _ = RunFolder(tmp_path / "part").checkpoints()
    newest.unlink()
    part = fit(DIGITS, settings, folder=tmp_path / "part", resume=True, progress=False)
    assert saved(whole, tmp_path) == saved(part, tmp_path)


def test_the_number_of_shards_is_part_of_a_run(tmp_path):
    settings = FitSettings(**QUICK, shards=3)
    fit(DIGITS, settings, folder=tmp_path, progress=False)
    assert RunFolder(tmp_path).latest().notes["identity"]["shards"] == 3
    with pytest.raises(CheckpointError, match="'shards' was 3 and is None"):
        fit(DIGITS, dataclasses.replace(settings, shards=1), folder=tmp_path, resume=True)


def test_runs_of_one_shard_have_the_identity_of_runs_without(tmp_path):
    fit(DIGITS, FitSettings(**QUICK), folder=tmp_path, progress=False)
    assert "shards" not in RunFolder(tmp_path).latest().notes["identity"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shards": 0}, "'shards' must be an integer from 1"),
        ({"shards": 65}, "'shards' must be an integer from 1 to 64, got 65"),
        ({"shards": 2.0}, "'shards'"),
    ],
)
def test_a_wrong_number_of_shards_is_told(options, words):
    with pytest.raises((ArgumentError, TypeError), match=words):
        FitSettings(**options)


def test_there_must_be_a_row_for_each_shard():
    table = Table(X[:10], Y[:10])
    with pytest.raises(ArgumentError, match="at most the number of rows to train on, 9, got 12"):
        fit(table, FitSettings(shards=12), progress=False)


def test_routes_are_counted_in_parts(tmp_path):
    fitted = fit(DIGITS, FitSettings(**QUICK), progress=False)
    training = np.setdiff1d(np.arange(400), fitted.held_out)
    parts = cut_table(DIGITS, training, fitted.held_out, 4)
    counts = [part_routes(part, fitted.predictor, 0.0) for part in parts]
    again = type(fitted.predictor.routes).of_counts([None, *counts], 10)
    assert again is None
    again = type(fitted.predictor.routes).of_counts(counts, 10)
    assert again.to_dict() == fitted.predictor.routes.to_dict()
