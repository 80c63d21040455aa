"""Numba's CUDA simulator, made fast enough for tests.

Its threads are threads of Python, and its own scheduler asks each of them in turn, without a rest,
whether it has come to a barrier: most of the time goes into the question. Here one thread of a
block runs at a time, up to the next barrier, and then wakes the next one. They take turns upwards
and then downwards, in every second block the other way round. So a kernel without a barrier that it
needs is found out, whichever thread reads what another has written. It is stricter, too: a kernel
in which some thread of a block misses a `syncthreads`, which on a GPU is undefined, fails here, and
passes there.
"""

from __future__ import annotations

import contextlib
import os
import threading

import numpy as np

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")
"""Whether this process has the simulator in place of CUDA."""


def install():
    """Replace the scheduler, in this process."""
    from numba.cuda.simulator import kernel

    kernel.BlockManager.run = run_block
    kernel.BlockThread.syncthreads = lambda thread: thread._manager.turns.wait(thread.thread_id)


class StoppedError(Exception):
    """Another thread of the block has failed."""


class Turns:
    """The turns of the threads of a block: one runs at a time, from barrier to barrier."""

    def __init__(self, count, downwards):
        self.locks = [threading.Lock() for _ in range(count)]
        self.step = -1 if downwards else 1
        for thread, lock in enumerate(self.locks):
            if thread != self._first:
                lock.acquire()
        self.ended = None
        self.stopped = False

    def begin(self, thread):
        """Wait for the first turn of a thread."""
        self.locks[thread].acquire()
        if self.stopped:
            raise StoppedError

    def wait(self, thread):
        """Come to a barrier: let all others run up to it."""
        if self._pass_on(thread, ended=False):
            self.begin(thread)

    def end(self, thread):
        """End a thread."""
        self._pass_on(thread, ended=True)

    def stop(self):
        """Stop all others, because a thread has failed."""
        self.stopped = True
        for lock in self.locks:
            if lock.locked():
                lock.release()

    @property
    def _first(self):
        return 0 if self.step > 0 else len(self.locks) - 1

    def _pass_on(self, thread, ended):
        """Wake the next thread; False if this was the last one that came to the barrier."""
        if thread != self._first and ended != self.ended:
            raise RuntimeError("some threads of a block come to a barrier, and others end")
        self.ended = ended
        after = thread + self.step
        if 0 <= after < len(self.locks):
            self.locks[after].release()
            return True
        self.step = -self.step
        return False


@contextlib.contextmanager
def on_one_cpu():
    """Context for threads that take turns: to wake one on another CPU takes twice as long."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    os.sched_setaffinity(0, {sorted(before)[worker % len(before)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def run_block(manager, block, *arguments):
    """Run the threads of one block to their end."""
    from numba.cuda.simulator.kernel import BlockThread

    places = list(np.ndindex(*manager._block_dim))
    turns = manager.turns = Turns(len(places), downwards=sum(block) % 2)

    def run():
        number = threading.current_thread().thread_id
        try:
            turns.begin(number)
            with np.errstate(all="ignore"):  # a GPU does not warn of numbers
                manager._f(*arguments)
            turns.end(number)
        except BaseException:
            turns.stop()
            raise

    threads = [BlockThread(run, manager, block, place, manager._debug) for place in places]
    with on_one_cpu():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    failures = [thread.exception for thread in threads if thread.exception]
    failures.sort(key=lambda failure: isinstance(failure[0], StoppedError))
    if failures:
        error, traceback = failures[0]
        raise error.with_traceback(traceback)
