"""The order of batches: every row once an epoch, a function of the step, local on the disk."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError
from fffcpu.training import batches
from fffcpu.training.batches import BatchOrder, Deal, split_rows


@given(
    rows=st.integers(1, 300),
    batch_size=st.integers(1, 70),
    block_rows=st.integers(1, 40),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 3),
)
def test_an_epoch_has_every_row_once(rows, batch_size, block_rows, seed, epoch):
    order = BatchOrder(rows, batch_size, seed, block_rows)
    steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
    found = [order.rows(step) for step in steps]
    assert sorted(np.concatenate(found).tolist()) == list(range(rows))
    assert [len(batch) for batch in found[:-1]] == [batch_size] * (len(found) - 1)
    assert 1 <= len(found[-1]) <= batch_size


@given(
    rows=st.integers(1, 200),
    batch_size=st.integers(1, 50),
    block_rows=st.integers(1, 20),
    steps=st.lists(st.integers(0, 30), min_size=1, max_size=8),
)
def test_a_batch_depends_on_the_step_alone(rows, batch_size, block_rows, steps):
    order = BatchOrder(rows, batch_size, 3, block_rows)
    for step in steps:
        fresh = BatchOrder(rows, batch_size, 3, block_rows)
        assert np.array_equal(order.rows(step), fresh.rows(step))


def test_epochs_and_seeds_differ():
    first = BatchOrder(100, 100, seed=0)
    assert not np.array_equal(first.rows(0), first.rows(1))
    assert not np.array_equal(first.rows(0), BatchOrder(100, 100, seed=1).rows(0))


def test_a_batch_of_a_long_table_comes_from_few_blocks(monkeypatch):
    monkeypatch.setattr(batches, "GROUP_BLOCKS", 3)
    order = BatchOrder(1000, 20, block_rows=10)
    for step in range(order.steps_per_epoch):
        # A group has 30 rows in 3 blocks; a batch of 20 touches two groups at most.
        assert len(set(order.rows(step) // 10)) <= 6


def test_rows_of_a_short_table_are_shuffled_as_a_whole():
    blocks = BatchOrder(64, 16, block_rows=16).rows(0) // 16
    assert len(set(blocks.tolist())) == 4


def test_some_rows_of_a_table():
    rows = np.array([3, 5, 8, 100])
    order = BatchOrder(rows, 3)
    found = np.concatenate([order.rows(0), order.rows(1)])
    assert sorted(found.tolist()) == rows.tolist()
    assert len(order) == 4


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ((0, 4), ArgumentError, "rows"),
        ((np.empty(0, np.int64), 4), ArgumentError, "rows"),
        ((np.zeros((2, 2), np.int64), 4), ShapeError, "rows"),
        ((np.zeros(3), 4), ShapeError, "rows"),
        ((-1, 4), ArgumentError, "rows"),
        ((5, 0), ArgumentError, "batch_size"),
        ((5, 2, -1), ArgumentError, "seed"),
        ((5, 2, 0, 0), ArgumentError, "block_rows"),
        ((5, 2.0), ArgumentTypeError, "batch_size"),
    ],
)
def test_refuses(arguments, error, named):
    with pytest.raises(error, match=f"'{named}'"):
        BatchOrder(*arguments)


@given(rows=st.integers(0, 200), fraction=st.floats(0, 0.99), seed=st.integers(0, 3))
def test_a_split_takes_every_row_once(rows, fraction, seed):
    training, validation = split_rows(rows, fraction, seed)
    assert sorted([*training, *validation]) == list(range(rows))
    assert len(validation) == round(rows * fraction)
    assert (np.diff(training) > 0).all()
    assert (np.diff(validation) > 0).all()
    again = split_rows(rows, fraction, seed)
    assert np.array_equal(again[0], training)


# --- Shards --------------------------------------------------------------------------------------

DEALT = {"rows": st.integers(1, 300), "batch_size": st.integers(1, 70), "shards": st.integers(1, 9)}


@given(**DEALT, epoch=st.integers(0, 2))
def test_shards_share_every_batch_and_every_row(rows, batch_size, shards, epoch):
    shards = min(shards, rows)
    numbers = np.arange(rows) * 3
    whole = BatchOrder(numbers, batch_size)
    deals = [Deal(shard, shards, rows) for shard in range(shards)]
    orders = [BatchOrder(numbers[deal.own], batch_size, 4, 10, deal=deal) for deal in deals]
    seen = []
    for step in range(epoch * whole.steps_per_epoch, (epoch + 1) * whole.steps_per_epoch):
        parts = [order.rows(step) for order in orders]
        sizes = [len(part) for part in parts]
        assert sum(sizes) == len(whole.rows(step))
        assert {order.batch_rows(step) for order in orders} == {sum(sizes)}
        assert max(sizes) - min(sizes) <= 1
        seen += parts
    assert sorted(np.concatenate(seen).tolist()) == numbers.tolist()


@given(rows=st.integers(1, 300), shards=st.integers(1, 40))
def test_the_parts_of_shards_follow_each_other(rows, shards):
    parts = [Deal(shard, shards, rows).own for shard in range(shards)]
    assert parts[0].start == 0
    assert parts[-1].stop == rows
    assert [part.start for part in parts[1:]] == [part.stop for part in parts[:-1]]
    lengths = [part.stop - part.start for part in parts]
    assert max(lengths) - min(lengths) <= 1


@given(rows=DEALT["rows"], batch_size=DEALT["batch_size"], step=st.integers(0, 20))
def test_one_shard_has_the_order_without_shards(rows, batch_size, step):
    dealt = BatchOrder(rows, batch_size, 5, 20, deal=Deal(0, 1, rows))
    assert np.array_equal(dealt.rows(step), BatchOrder(rows, batch_size, 5, 20).rows(step))


def test_shards_of_one_length_have_different_orders():
    orders = [BatchOrder(50, 100, deal=Deal(shard, 2, 100)).rows(0) for shard in range(2)]
    assert not np.array_equal(*orders)


def test_a_shard_must_have_its_rows():
    with pytest.raises(ArgumentError, match=r"'rows' must have 34 rows, as Deal\(shard=0"):
        BatchOrder(33, 10, deal=Deal(0, 3, 100))
