"""Models run in shards give what they give whole: hidden states, losses, gradients, errors."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest

import fffcpu
from fffcpu import kernels
from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError
from fffcpu.kernels.jit import recording
from fffcpu.models import (
    FastBertConfig,
    FastBertEncoder,
    FastBertForMaskedLM,
    FastBertForSequenceClassification,
    data_parallel,
)
from fffcpu.models.data_parallel import ShardCaches, run_shards, share_out
from fffcpu.parameters import RowGradient
from tests.support.golden_models import GOLDEN, check_gradients, check_outputs, expected_of
from tests.support.processes import FORKS, run

CONFIG = FastBertConfig(
    31, 8, 2, 2, feedforward_size=2, depth=2, positions=6, initial_std=0.5, dtype="float64"
)
BIG = FastBertConfig(8192, 256, 4, 4, feedforward_size=4, depth=5)
SEQUENCES = np.zeros((64, 128), np.int64)

pytestmark = pytest.mark.skipif(
    fffcpu.get_num_threads() < 2, reason="needs two threads, which this machine has not"
)


@pytest.fixture
def threads():
    """Set the number of threads for a test."""
    before = fffcpu.get_num_threads()
    yield fffcpu.set_num_threads
    fffcpu.set_num_threads(before)


@pytest.fixture
def in_shards(monkeypatch, threads):
    """Have all batches run in two shards that can be."""
    threads(2)
    monkeypatch.setattr(data_parallel, "_pays", lambda *_: True)


def batch_of(count=7, length=6):
    rng = np.random.default_rng(count)
    ids = rng.integers(1, 31, (count, length))
    mask = (np.arange(length) < rng.integers(1, length + 1, count)[:, np.newaxis]).astype(int)
    return ids, mask, rng


def classifier_of(classes, **changes):
    config = dataclasses.replace(CONFIG, classes=classes, **changes)
    return FastBertForSequenceClassification(config, rng=0)


def models_of():
    """Each model, and labels for it that differ in number between the shards."""
    ids, _, rng = batch_of()
    few = np.where(rng.random(ids.shape) < 0.4, ids, -100)
    few[:3, 1:] = -100
    return [
        (FastBertForMaskedLM(CONFIG, rng=0), few),
        (FastBertForMaskedLM(CONFIG, rng=0), np.full_like(ids, -100)),
        (classifier_of(1), rng.normal(size=len(ids))),
        (classifier_of(3), rng.integers(0, 3, len(ids))),
        (classifier_of(3), rng.dirichlet(np.ones(3), len(ids))),
    ]


def dense(grad):
    return grad.dense() if isinstance(grad, RowGradient) else grad


def step(model, *arrays, labels, rng=None, row_sparse=False):
    loss, cache = model.forward(*arrays, labels=labels, rng=rng)
    return loss, model.backward(cache, row_sparse=row_sparse), cache


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("row_sparse", [False, True])
def test_losses_and_gradients(number, row_sparse, threads, in_shards):
    model, labels = models_of()[number]
    ids, mask, _ = batch_of()
    loss, grads, cache = step(model, ids, mask, labels=labels, row_sparse=row_sparse)
    assert isinstance(cache, ShardCaches)
    threads(1)
    expected, wanted, cache = step(model, ids, mask, labels=labels, row_sparse=row_sparse)
    assert not isinstance(cache, ShardCaches)
    assert loss == pytest.approx(expected, rel=1e-12)
    assert list(grads) == list(wanted) == list(model.params)
    for name, grad in wanted.items():
        assert type(grads[name]) is type(grad)
        np.testing.assert_allclose(dense(grads[name]), dense(grad), rtol=1e-9, atol=1e-12)


def test_hidden_states(threads, in_shards):
    encoder, (ids, mask, _) = FastBertEncoder(CONFIG, rng=0), batch_of()
    found = encoder(ids), encoder(ids, mask)
    threads(1)
    np.testing.assert_allclose(found[0], encoder(ids), rtol=1e-12)
    np.testing.assert_allclose(found[1], encoder(ids, mask), rtol=1e-12)


@pytest.mark.parametrize("name", ["crammed_fff_mlm", "crammed_dense_mlm"])
def test_published_numbers(name, in_shards):
    model, expected = FastBertForMaskedLM.from_pretrained(GOLDEN / name), expected_of(name)
    _, cache = model.forward(expected["input_ids"], labels=expected["labels"])
    assert isinstance(cache, ShardCaches)
    check_outputs(model, expected)
    check_gradients(model, expected)


def test_dropout_is_repeated_and_differs_between_shards(in_shards):
    model = classifier_of(3, dropout=0.5)
    ids = np.tile(np.arange(1, 7), (2, 1))
    losses = [model.forward(ids, labels=np.array([1, 1]), rng=seed)[0] for seed in (4, 4, 5)]
    assert losses[0] == losses[1] != losses[2]
    _, cache = model.forward(ids, labels=np.array([1, 1]), rng=4)
    first, second = (shard.encoder.layers[0].dropped1 for shard in cache.shards)
    assert not all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_what_is_shared_out(threads):
    threads(2)
    halves = [slice(0, 32), slice(32, 64)]
    assert share_out(BIG, SEQUENCES, None, SEQUENCES) == halves
    assert share_out(BIG, SEQUENCES, gradients=4_000_000) == halves
    assert share_out(BIG, SEQUENCES[:5]) == [slice(0, 2), slice(2, 5)]


def test_what_stays_whole(threads):
    threads(2)
    assert not share_out(BIG, SEQUENCES[:1])
    assert not share_out(BIG, SEQUENCES[:3])  # one thread would wait a third of the time
    assert not share_out(BIG, SEQUENCES[:16, :1])  # little work
    assert not share_out(BIG, SEQUENCES, gradients=1_000_000_000)
    assert not share_out(BIG, SEQUENCES[0])
    assert not share_out(BIG, SEQUENCES, SEQUENCES[:9])
    assert not share_out(BIG, SEQUENCES.tolist())
    with recording(parallel=True):
        assert not share_out(BIG, SEQUENCES)
    threads(1)
    assert not share_out(BIG, SEQUENCES)


def test_parts_are_serial_and_leave_all_as_it_was(threads):
    def blas():
        return [found["num_threads"] for found in data_parallel._blas().info()]

    def shard(number):
        return number, blas(), share_out(BIG, SEQUENCES), threading.get_ident()

    threads(2)
    before = blas()
    assert before, "no BLAS was found"
    inside = before if kernels.selection().compiles else [1] * len(before)
    first, second = run_shards(shard, [(1,), (2,)])
    assert first[:3] == (1, inside, [])
    assert second[:3] == (2, inside, [])
    assert first[3] == threading.get_ident() != second[3]
    assert blas() == before
    assert share_out(BIG, SEQUENCES)


@pytest.mark.parametrize("failing", [0, 1])
def test_errors_of_any_part_reach_the_caller(failing):
    def shard(number):
        if number == failing:
            raise ArgumentError(f"shard {number}")

    with pytest.raises(ArgumentError, match=f"shard {failing}"):
        run_shards(shard, [(0,), (1,)])
    assert run_shards(abs, [(-1,), (-2,)]) == [1, 2]  # the pool is free again


def test_parts_run_one_by_one_where_no_thread_starts(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert run_shards(abs, [(-1,), (-2,), (-3,)]) == [1, 2, 3]


def test_warnings_are_as_the_caller_has_them():
    with np.errstate(over="ignore"):
        run_shards(lambda number: np.float32(1e38) * np.float32(number), [(9,), (9,)])


LATE = """
import threading, time
import numpy as np
import fffcpu
from fffcpu.models import FastBertConfig, FastBertEncoder, data_parallel

fffcpu.get_num_threads()  # imports Numba and SciPy, which refuse to be imported as late as that
data_parallel._pays = lambda *_: True
encoder = FastBertEncoder(FastBertConfig(31, 8, 1, 2, feedforward_size=1, depth=1), rng=0)

def late():
    time.sleep(0.3)
    print(encoder(np.ones((4, 6), int)).shape)

threading.Thread(target=late).start()
"""

FORKED = """
import os, threading
from fffcpu.models.data_parallel import _blas, run_shards

def threads():
    return [found["num_threads"] for found in _blas().info()]

before, inside, forked = threads(), threading.Event(), threading.Event()

def shard(number):
    inside.set()
    assert forked.wait(60)

caller = threading.Thread(target=run_shards, args=(shard, [(0,), (1,)]))
caller.start()
assert inside.wait(60)
child = os.fork()
if not child:
    answer = threads() == before and run_shards(abs, [(-1,), (-2,)]) == [1, 2]
    os._exit(0 if answer else 1)
forked.set()
caller.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_thread_that_outlives_the_main_one(program):
    assert run(program(LATE), NUMBA_NUM_THREADS="2") == ["(4, 6, 8)"]


@FORKS
def test_a_child_of_a_fork_in_the_midst_has_its_threads(program):
    assert run(program(FORKED), NUMBA_NUM_THREADS="2") == ["0"]


def test_wrong_arguments_are_told_as_ever(in_shards):
    model, (ids, mask, _) = FastBertForMaskedLM(CONFIG, rng=0), batch_of()
    with pytest.raises(ShapeError, match=r"'labels' must have shape \(7, 6\)"):
        model.forward(ids, labels=ids[:5])
    with pytest.raises(ShapeError, match=r"'attention_mask' must have shape \(7, 6\)"):
        model(ids, mask[:5])
    with pytest.raises(ShapeError, match=r"'attention_mask' must have shape \(7, 6\)"):
        model(ids, mask[:, 0])
    with pytest.raises(ArgumentTypeError, match="'input_ids' must hold real numbers, got None"):
        model(None, mask)
    ids[5, 2] = 31
    with pytest.raises(ArgumentError, match=r"'input_ids' .* got 31 at index \(5, 2\)"):
        model(ids)
    labels, ids[5, 2] = ids.copy(), 1
    with pytest.raises(ArgumentError, match=r"'labels' .* got 31 at index \(5, 2\)"):
        model.forward(ids, labels=labels)


def test_several_threads_at_once(in_shards):
    encoder, (ids, mask, _) = FastBertEncoder(CONFIG, rng=0), batch_of()
    expected, found = encoder(ids, mask), []
    callers = [
        threading.Thread(target=lambda: found.extend(encoder(ids, mask) for _ in range(5)))
        for _ in range(4)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert len(found) == 20
    assert all(np.array_equal(hidden, expected) for hidden in found)
