"""Batches without a timer: what has queued while a batch was computed is the next batch.

Requests wait in one line for all models. The first one's model is next, together with all others in
line that it can compute at once. Where that takes well under a millisecond, the event loop does it
by itself; requests that arrived in the same turn of the loop share the batch. Otherwise a thread
does it, and requests queue meanwhile. If a batch fails, its requests are computed one by one, so
that only the one at fault fails. A request whose client has left is not computed, and a long batch
ends early when all of its clients have.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any, NamedTuple

from fffcpu.models.data_parallel import on_this_thread
from fffcpu.serve.errors import AbandonedError, RequestError
from fffcpu.serve.models import Job, Outputs, ServedModel

__all__ = ["Batcher", "Waiting"]

_LOGGER = logging.getLogger("fffcpu.serve")

INLINE_WORK = 4e6
"""Most multiply-adds of a batch that the event loop computes by itself: about half a millisecond.
To hand a batch to a thread and back takes a tenth of that."""


class Waiting(NamedTuple):
    """A job in line."""

    model: ServedModel
    job: Job
    answer: asyncio.Future[Outputs]
    since: float
    """When it came, by `time.perf_counter`."""


class Batcher:
    """The line of jobs, and what computes them.

    Parameters
    ----------
    max_rows : int
        Most rows of a batch, unless one job has more.
    queue : int
        Most jobs in line.
    watch : callable, optional
        Called after each batch with the model, the batch, and when and for how many seconds it was
        computed.
    """

    def __init__(
        self,
        max_rows: int,
        queue: int,
        watch: Callable[[ServedModel, Sequence[Waiting], float, float], None] | None = None,
    ) -> None:
        self.max_rows, self.queue = max_rows, queue
        self.line: deque[Waiting] = deque()
        self._watch = watch
        self._thread = ThreadPoolExecutor(1, "fffcpu-serve")
        self._busy = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def submit(self, model: ServedModel, job: Job) -> asyncio.Future[Outputs]:
        """Put a job into the line, and return what will hold its outputs.

        Raises
        ------
        RequestError
            If the line is full.
        """
        if len(self.line) >= self.queue:
            raise RequestError(
                f"{len(self.line)} requests wait already; try again later",
                HTTPStatus.TOO_MANY_REQUESTS,
            )
        loop = self._loop
        if loop is None or loop.is_closed():
            self._busy = False
            # Once: to ask for it asks the system for the number of the process, each time.
            loop = self._loop = asyncio.get_running_loop()
        answer: asyncio.Future[Outputs] = loop.create_future()
        self.line.append(Waiting(model, job, answer, time.perf_counter()))
        if not self._busy:
            self._busy = True
            # After what else is ready in this turn of the loop, which may bring more jobs.
            loop.call_soon(self._next)
        return answer

    def drop(self, answer: asyncio.Future[Outputs]) -> None:
        """Take a job whose answer nobody wants any more out of the line, if it is still there."""
        for place, item in enumerate(self.line):
            if item.answer is answer:
                del self.line[place]
                return

    def close(self) -> None:
        """End the thread, after the batch that it computes."""
        self._thread.shutdown()

    def _next(self) -> None:
        """Compute the next batch, or rest."""
        batch = self._take()
        if not batch:
            self._busy = False
            return
        loop = self._loop
        assert loop is not None
        if sum(item.job.work for item in batch) <= INLINE_WORK:
            # To wake the threads of the pool takes longer than a small batch.
            with on_this_thread():
                found = _compute(batch)
            self._settle(batch, *found)
            if self.line:
                loop.call_soon(self._next)
            else:
                self._busy = False
            return
        done = loop.run_in_executor(self._thread, _compute, batch)

        def settle(found: asyncio.Future[Any]) -> None:
            self._settle(batch, *found.result())
            self._next()

        done.add_done_callback(settle)

    def _take(self) -> list[Waiting]:
        """Take the next batch out of the line."""
        batch: list[Waiting] = []
        kept: list[Waiting] = []
        rows = 0
        while self.line:
            item = self.line.popleft()
            if item.answer.done():  # its client has left
                continue
            if batch:
                first = batch[0]
                if item.model is not first.model or item.job.key != first.job.key:
                    kept.append(item)
                    continue
                if rows + item.job.rows > self.max_rows:
                    kept.append(item)
                    break
            batch.append(item)
            rows += item.job.rows
        self.line.extendleft(reversed(kept))
        return batch

    def _settle(
        self, batch: Sequence[Waiting], results: Sequence[Any], start: float, seconds: float
    ) -> None:
        """Give each job of a batch its outputs, or its error."""
        for item, result in zip(batch, results, strict=True):
            if item.answer.done():
                continue
            if isinstance(result, BaseException):
                item.answer.set_exception(result)
            else:
                item.answer.set_result(result)
        if self._watch is not None:
            try:
                self._watch(batch[0].model, batch, start, seconds)
            except Exception:
                _LOGGER.exception("a batch could not be counted")


def _compute(batch: Sequence[Waiting]) -> tuple[list[Any], float, float]:
    """Return the outputs or the error of each job, the time of the start, and the seconds."""
    start = time.perf_counter()
    model, jobs = batch[0].model, [item.job for item in batch]
    results: list[Any]
    try:
        results = list(model.compute(jobs, lambda: _waits(batch)))
    except AbandonedError as error:
        results = [error] * len(jobs)
    except Exception as error:  # noqa: BLE001  # whatever it is, it must not stop the others
        results = [error] if len(jobs) == 1 else list(map(_alone, batch))
    return results, start, time.perf_counter() - start


def _waits(batch: Sequence[Waiting]) -> bool:
    """Return whether somebody waits for an answer."""
    return not all(item.answer.done() for item in batch)


def _alone(item: Waiting) -> Any:
    """Return the outputs of one job, or its error."""
    try:
        return item.model.compute([item.job], lambda: _waits([item]))[0]
    except Exception as error:  # noqa: BLE001  # this job's answer
        return error
