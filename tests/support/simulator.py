"""Numba's CUDA simulator, made fast enough for tests.

Its threads are threads of Python, and its own scheduler asks each of them in turn, without a rest,
whether it has come to a barrier: most of the time goes into the question. Here they wait at a
barrier of Python's. That is stricter, too: a kernel in which some thread of a block misses a
`syncthreads`, which on a GPU is undefined, fails after a while, and passes there.
"""

from __future__ import annotations

import os
import threading

import numpy as np

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")
"""Whether this process has the simulator in place of CUDA."""

PATIENCE = 60
"""Seconds for which a thread waits for the others of its block."""


def install():
    """Replace the scheduler, in this process."""
    from numba.cuda.simulator import kernel

    kernel.BlockManager.run = run_block
    kernel.BlockThread.syncthreads = lambda thread: thread._manager.barrier.wait(PATIENCE)


def run_block(manager, block, *arguments):
    """Run the threads of one block to their end."""
    from numba.cuda.simulator.kernel import BlockThread

    def run():
        try:
            with np.errstate(all="ignore"):  # a GPU does not warn of numbers
                manager._f(*arguments)
        except BaseException:
            manager.barrier.abort()  # nobody waits for a thread that has failed
            raise

    places = list(np.ndindex(*manager._block_dim))
    manager.barrier = threading.Barrier(len(places))
    threads = [BlockThread(run, manager, block, place, manager._debug) for place in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failures = [thread.exception for thread in threads if thread.exception]
    # That a barrier broke is what the others saw of the first failure.
    failures.sort(key=lambda failure: isinstance(failure[0], threading.BrokenBarrierError))
    if failures:
        error, traceback = failures[0]
        raise error.with_traceback(traceback)
