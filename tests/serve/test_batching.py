"""Batches: under any arrivals, departures and faults each request gets its own answer, or error."""

from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.serve.batching import INLINE_WORK, Batcher
from fffcpu.serve.errors import AbandonedError, RequestError
from fffcpu.serve.models import Job, ServedModel


class Recorder(ServedModel):
    """A model that returns what it gets, refuses negative numbers and notes its batches."""

    platform, inputs, outputs, standard = "recorder", (), (), ()

    def __init__(self):
        super().__init__(1 << 20)
        self.batches, self.keys = [], []

    def prepare(self, request):
        raise NotImplementedError

    def compute(self, jobs, is_wanted):
        self.batches.append([job.rows for job in jobs])
        self.keys.append({job.key for job in jobs})
        for job in jobs:
            if job.payload < 0:
                raise ValueError(f"{job.payload} is negative")
        return [{"y": np.full(job.rows, job.payload)} for job in jobs]

    def warm(self):
        raise NotImplementedError

    @property
    def nbytes(self):
        return 0


def job(number, rows=1, key=(), work=1.0):
    return Job(key, rows, work, number)


ARRIVALS = st.lists(
    st.tuples(
        st.integers(0, 1),  # model
        st.integers(0, 1),  # key
        st.integers(0, 9),  # rows
        st.sampled_from([1.0, INLINE_WORK * 2]),
        st.booleans(),  # whether it is refused
        st.sampled_from([None, None, 0, 1, 2]),  # turns of the loop after which its client leaves
        st.integers(0, 2),  # turns of the loop before the next one
    ),
    max_size=40,
)


@given(ARRIVALS, st.integers(1, 12))
def test_each_request_gets_its_own_answer(arrivals, max_rows):
    models = [Recorder(), Recorder()]

    async def client(batcher, number, arrival):
        model, key, rows, work, bad, leaves, _ = arrival
        number = -number - 1 if bad else number
        answer = batcher.submit(models[model], job(number, rows, (key,), work))
        if leaves is not None:
            for _ in range(leaves):
                await asyncio.sleep(0)
            answer.cancel()
            return "left"
        try:
            return (await answer)["y"].tolist() == [number] * rows
        except ValueError as error:
            return bad and str(error) == f"{number} is negative"

    async def main():
        batcher = Batcher(max_rows, len(arrivals) + 1)
        tasks = []
        for number, arrival in enumerate(arrivals):
            tasks.append(asyncio.ensure_future(client(batcher, number, arrival)))
            for _ in range(arrival[-1]):
                await asyncio.sleep(0)
        answers = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
        await asyncio.sleep(0.01)
        assert not batcher.line
        batcher.close()
        return answers

    for answer, arrival in zip(asyncio.run(main()), arrivals, strict=True):
        left = arrival[5] is not None
        assert answer == ("left" if left else True), (answer, arrival)
    for model in models:
        assert all(len(keys) == 1 for keys in model.keys)
        for rows in model.batches:
            assert len(rows) == 1 or sum(rows) <= max_rows


def run_together(jobs, max_rows=100, queue=100, watch=None):
    """The batches of jobs that arrive in one turn of the loop, and their answers."""
    model = Recorder()

    async def main():
        batcher = Batcher(max_rows, queue, watch)
        answers = [batcher.submit(model, one) for one in jobs]
        found = await asyncio.gather(*answers, return_exceptions=True)
        batcher.close()
        return found

    return model.batches, asyncio.run(main())


@pytest.mark.parametrize("work", [1.0, INLINE_WORK * 2])
def test_what_arrives_together_is_one_batch(work):
    batches, answers = run_together([job(k, k, work=work) for k in range(5)])
    assert batches == [[0, 1, 2, 3, 4]]
    assert [answer["y"].tolist() for answer in answers] == [[k] * k for k in range(5)]


def test_one_row_more_than_a_batch_is_the_next_one():
    batches, _ = run_together([job(1, 4), job(2, 4), job(3, 1)], max_rows=8)
    assert batches == [[4, 4], [1]]
    batches, _ = run_together([job(1, 9), job(2, 1)], max_rows=8)
    assert batches == [[9], [1]]


def test_other_options_are_another_batch_and_keep_their_place():
    keys = [("a",), ("b",), ("a",), ("b",)]
    batches, answers = run_together([job(k, k + 1, key) for k, key in enumerate(keys)])
    assert batches == [[1, 3], [2, 4]]
    assert [answer["y"][0] for answer in answers] == [0, 1, 2, 3]


def test_one_that_fails_fails_alone():
    batches, answers = run_together([job(1), job(-2), job(3)])
    assert batches == [[1, 1, 1], [1], [1], [1]]
    assert [type(answer) for answer in answers] == [dict, ValueError, dict]


def test_a_full_line_refuses_the_next():
    async def main():
        batcher = Batcher(8, 2)
        model = Recorder()
        answers = [batcher.submit(model, job(k)) for k in range(2)]
        with pytest.raises(RequestError, match="2 requests wait already") as error:
            batcher.submit(model, job(3))
        assert error.value.status == 429
        await asyncio.gather(*answers)
        await batcher.submit(model, job(4))
        batcher.close()

    asyncio.run(main())


def test_what_queues_meanwhile_is_the_next_batch():
    class Slow(Recorder):
        def compute(self, jobs, is_wanted):
            if not self.batches:
                started.set()
                asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()
            return super().compute(jobs, is_wanted)

    async def main():
        nonlocal loop
        loop = asyncio.get_running_loop()
        batcher, model = Batcher(100, 100), Slow()
        first = batcher.submit(model, job(0, work=INLINE_WORK * 2))
        while not started.is_set():
            await asyncio.sleep(0.001)
        others = [batcher.submit(model, job(k)) for k in range(1, 6)]
        others[2].cancel()
        go_on.set()
        await asyncio.gather(first, *others, return_exceptions=True)
        batcher.close()
        assert model.batches == [[1], [1] * 4]

    loop, started, go_on = None, threading.Event(), asyncio.Event()
    asyncio.run(main())


def test_batches_are_watched():
    seen = []

    def watch(model, batch, start, seconds):
        seen.append(([item.job.payload for item in batch], seconds >= 0, start >= batch[0].since))

    run_together([job(1), job(2)], watch=watch)
    assert seen == [([1, 2], True, True)]


@pytest.mark.parametrize("clients", [1, 3])
def test_a_batch_ends_early_when_all_of_its_clients_have_left(clients):
    class Endless(Recorder):
        def compute(self, jobs, is_wanted):
            if jobs[0].payload:
                return super().compute(jobs, is_wanted)
            started.set()
            while is_wanted():
                time.sleep(0.001)
            raise AbandonedError

    async def main():
        batcher, model = Batcher(100, 100), Endless()
        answers = [batcher.submit(model, job(0, work=INLINE_WORK * 2)) for _ in range(clients)]
        while not started.is_set():
            await asyncio.sleep(0.001)
        later = batcher.submit(model, job(7))
        for answer in answers[:-1]:
            answer.cancel()
        await asyncio.sleep(0.05)
        assert not later.done()  # the last client still waits
        answers[-1].cancel()
        assert (await asyncio.wait_for(later, 60))["y"] == [7]
        batcher.close()

    started = threading.Event()
    asyncio.run(main())
