"""The objective of pretraining: batches grow, gradients add up, a pass sees a token once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.errors import ArgumentError
from fffcpu.models import FastBertConfig, FastBertForMaskedLM
from fffcpu.parameters import RowGradient
from fffcpu.recipes.masked_lm_objective import MaskedLMObjective, accumulated, steps_for
from fffcpu.recipes.masking import mask_tokens
from fffcpu.training.trainer import Moment

CONFIG = FastBertConfig(30, 8, 1, 2, feedforward_size=2, depth=2, positions=8)
SEQUENCES = np.random.default_rng(0).integers(5, 30, (11, 8)).astype(np.uint16)


def objective(model=None, **options):
    options = {"batch_size": 4, "small_batch_size": 2, **options}
    model = model or FastBertForMaskedLM(CONFIG, rng=0)
    return MaskedLMObjective(
        model, SEQUENCES, options.pop("validation", SEQUENCES[:3]), mask_id=4, vocabulary=30,
        **options,
    )  # fmt: skip


def moment(step=0, fraction=0.0, rows=0):
    return Moment(step, fraction, np.random.default_rng(step), rows)


@given(st.integers(1, 50), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_batches_grow_and_never_shrink(most, ramp, one, other):
    low, high = sorted((one, other))
    assert 1 <= accumulated(low, most, ramp) <= accumulated(high, most, ramp) <= most
    assert accumulated(1.0, most, ramp) == most
    assert accumulated(ramp, most, ramp) == most


def test_batches_are_full_at_the_ramp():
    assert [accumulated(f, 4, 0.6) for f in (0, 0.1, 0.3, 0.45, 0.59, 0.6)] == [1, 1, 2, 3, 4, 4]
    assert accumulated(0.0, 4, 0.0) == 4


@given(st.integers(1, 200), st.integers(1, 8), st.sampled_from([0.0, 0.3, 0.6, 1.0]))
def test_steps_suffice_for_the_batches_and_fewer_do_not(batches, most, ramp):
    def taken(steps):
        return sum(accumulated(step / steps, most, ramp) for step in range(steps))

    steps = steps_for(batches, most, ramp)
    assert taken(steps) >= batches
    assert steps == 1 or taken(steps - 1) < batches


def test_a_pass_sees_no_sequence_twice():
    seen = []

    class Model:
        params = {"a": np.zeros(1)}  # noqa: RUF012

        def forward(self, ids, *, labels):
            seen.extend(np.where(labels >= 0, labels, ids).tolist())
            return 0.0, None

        def backward(self, cache, *, row_sparse, straight_through):
            return {"a": np.zeros(1)}

    target = objective(Model())
    rows = 0
    while rows < target.tokens_per_epoch:
        rows += target.step(moment(rows, 1.0, rows)).rows
    # The last step runs over into the next pass.
    first_pass = seen[: target.tokens_per_epoch // 8]
    assert len({tuple(row) for row in first_pass}) == len(first_pass) == 10
    assert {tuple(row) for row in first_pass} <= {tuple(row) for row in SEQUENCES.tolist()}


def test_small_batches_add_up_to_one_large_batch():
    one = objective(small_batch_size=4).step(moment(fraction=1.0))
    two = objective(small_batch_size=2)
    # Tokens are hidden at random, so the same masks are had only by doing it by hand.
    model, rng = two.model, np.random.default_rng(0)
    order = two._order
    pieces = [
        mask_tokens(SEQUENCES[order.rows(number)], rng, mask_id=4, vocabulary=30)
        for number in range(2)
    ]
    ids, labels = (np.concatenate([piece[kind] for piece in pieces]) for kind in range(2))
    loss, cache = model.forward(ids, labels=labels)
    wanted = model.backward(cache)
    result = two.step(moment(fraction=1.0))
    assert result.rows == one.rows == 32
    assert result.loss == pytest.approx(loss, rel=1e-6)
    for name, grad in wanted.items():
        np.testing.assert_allclose(result.grads[name], grad, rtol=1e-4, atol=1e-6, err_msg=name)


def test_rows_are_sparse_for_a_single_small_batch_only():
    target = objective(row_sparse=True)
    name = "encoder.layers.0.feedforward.weights_in"
    assert isinstance(target.step(moment()).grads[name], RowGradient)
    assert isinstance(target.step(moment(fraction=1.0)).grads[name], np.ndarray)


def test_an_evaluation_hides_the_same_each_time_and_leaves_the_model():
    target = objective()
    before = {name: array.copy() for name, array in target.params.items()}
    first, second = target.evaluate(), target.evaluate()
    assert first == second
    assert set(first) == {"validation_loss", "validation_accuracy"}
    assert first["validation_loss"] == pytest.approx(np.log(30), rel=0.2)
    assert all((before[name] == array).all() for name, array in target.params.items())
    assert objective(validation=SEQUENCES[:0]).evaluate() == {}


def test_the_share_must_leave_something_to_guess():
    with pytest.raises(ArgumentError, match=r"'share' must leave a token to guess in 8, got 0\.01"):
        objective(share=0.01)
