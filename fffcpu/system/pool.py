"""The threads that kernels share: Numba's pool, its thread layer, its size, and forks.

Numba has three thread layers. `Pool` takes the first that loads, unless the user sets
``NUMBA_THREADING_LAYER`` or ``NUMBA_THREADING_LAYER_PRIORITY``:

=============  =====================================================================================
``tbb``        idle threads release their cores within microseconds, and wake as fast
``omp``        GNU OpenMP; set to sleep when idle, because spinning threads would take the cores
               from the caller's matrix products; a forked child cannot use it
``workqueue``  part of Numba, always available; slow to wake
=============  =====================================================================================

The wheel ``tbb`` installs its library where no dynamic loader searches, so `Pool` loads it by its
path, just before Numba's pool starts. Importing this module starts nothing. It reads how many
threads kernels may use, once and for all (`fffcpu.system.cpus`).

Numba reads ``NUMBA_NUM_THREADS`` when it is imported, and its pool keeps that size. A variable that
changes later changes nothing here. Kernels use no more threads than the process has CPUs; those of
a larger pool sleep.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib.metadata
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
from numba.np.ufunc.parallel import NUM_THREADS

from fffcpu.checks import check_integer
from fffcpu.system.cpus import cpu_quota, default_threads

__all__ = ["POOL", "Pool", "load_tbb"]

_LOGGER = logging.getLogger(__name__)

TBB_LIBRARY = {"win32": "tbb12.dll", "darwin": "libtbb.12.dylib"}.get(sys.platform, "libtbb.so.12")
"""File name by which Numba loads TBB."""

WAKING = {"tbb": 1, "omp": 2, "workqueue": 4}
"""Cost of waking each layer's threads, relative to TBB; measured on 64 to 192 rows."""

FORK_WAIT = 1.0
"""Seconds that a fork waits for a running kernel. Otherwise a child could inherit a lock of the
pool whose holder does not exist in it."""


def _tbb_paths() -> Iterator[Path]:
    """Yield possible paths of TBB's library: from its wheel, else from common layouts."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("tbb") or ():
            if file.name == TBB_LIBRARY:
                yield Path(str(file.locate()))
    folder = "Library/bin" if sys.platform == "win32" else "lib"
    yield Path(sys.prefix, folder, TBB_LIBRARY)


def load_tbb() -> bool:
    """Load TBB's library, so that Numba finds it by name; return False if none can be loaded.

    A library that the loader finds without help is left to Numba.
    """
    for path in _tbb_paths():
        with contextlib.suppress(OSError):
            ctypes.CDLL(str(path))
            return True
    return False


@contextlib.contextmanager
def _sleeping_when_idle() -> Iterator[None]:
    """Set ``OMP_WAIT_POLICY``, unless the user has, while a pool starts.

    GNU OpenMP reads it once, when it is loaded; other libraries need not see it.
    """
    if "OMP_WAIT_POLICY" in os.environ:
        yield
        return
    os.environ["OMP_WAIT_POLICY"] = "passive"
    try:
        yield
    finally:
        del os.environ["OMP_WAIT_POLICY"]


def _running_layer() -> str | None:
    """Return the thread layer of the running pool, which this module or the caller started."""
    try:
        return str(numba.threading_layer())
    except ValueError:
        return None


def _thread_limit() -> str:
    """Return what limits the number of threads, for the log."""
    if "NUMBA_NUM_THREADS" in os.environ:
        return f"NUMBA_NUM_THREADS={os.environ['NUMBA_NUM_THREADS']}"
    return f"{numba.config.NUMBA_NUM_THREADS} CPUs, control group's quota {cpu_quota():g}"


def _keep_to_the_end(module: str) -> None:
    """Keep a loaded extension module and its contents alive until the process ends."""
    loaded = sys.modules.get(module)
    if loaded is not None:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(loaded))


atexit.register(_keep_to_the_end, "numba.np.ufunc.tbbpool")
# When that module is freed, as Python ends, it waits for TBB. It would wait forever
# - for its first task, which lies in the queue of the thread that started the pool. Once that
#   thread has ended, or the process has forked, only TBB's own threads can take the task, and TBB
#   starts none where the process may use one CPU;
# - in a child of a fork, for a lock that a thread of the parent held when the process forked.
# The system ends the threads just as well. So it is for a pool that other code starts.


class Pool:
    """Numba's thread pool as kernels use it: one call at a time, the others run serially.

    A call that finds the pool busy gains nothing from waiting for it, and with Numba's
    ``workqueue`` layer a second call would abort the process. Results have the same bits in both
    cases.
    """

    def __init__(self) -> None:
        self.most = self.threads = default_threads(NUM_THREADS)
        self.usable = True
        self.waking = 1
        self.lock = threading.Lock()
        self._started_by: int | None = None  # a thread; None until we start the pool
        self._used_by_others = False  # by threads that did not start it
        self._ready = False
        self._forking: int | None = None  # the thread that holds the lock for its fork
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._before_fork,
                after_in_parent=self._after_fork_in_parent,
                after_in_child=self._after_fork_in_child,
            )

    def set_threads(self, number: int) -> None:
        """Set the number of threads that a kernel may use; see `fffcpu.set_num_threads`."""
        self.threads = check_integer("threads", number, 1, self.most)

    def layer(self) -> str:
        """Return the name of the thread layer; starts the pool if it is not running."""
        with self.lock:
            self._start()
        return str(numba.threading_layer())

    def run(
        self, parallel: Callable[..., Any], arguments: tuple[Any, ...], wait: bool = False
    ) -> bool:
        """Run a parallel kernel; return False if the pool is lost, or busy and we do not wait."""
        if not self.usable or not self.lock.acquire(blocking=wait):
            return False
        try:
            self._start()
            self._used_by_others |= threading.get_ident() != self._started_by
            callers = numba.get_num_threads()
            numba.set_num_threads(self.threads)
            try:
                parallel(*arguments, self.threads)
            except SystemError as error:  # a parallel loop reports an exception of its body so
                raise error.__cause__ or error from None
            finally:
                numba.set_num_threads(callers)
        finally:
            self.lock.release()
        return True

    def _start(self) -> None:
        """Start Numba's pool unless it is running."""
        if self._ready:
            return
        if _running_layer() is None:
            if str(numba.config.THREADING_LAYER).lower() not in ("omp", "workqueue"):
                load_tbb()
            with _sleeping_when_idle():
                numba.get_num_threads()
            self._started_by = threading.get_ident()
        self.waking = WAKING.get(str(_running_layer()), 1)
        self._ready = True
        _LOGGER.info(
            "thread layer %s, %d threads (%s)", _running_layer(), self.threads, _thread_limit()
        )

    def _before_fork(self) -> None:
        if self.lock.acquire(timeout=FORK_WAIT):
            self._forking = threading.get_ident()

    def _after_fork_in_parent(self) -> None:
        if self._forking == threading.get_ident():
            self._forking = None
            self.lock.release()

    def _after_fork_in_child(self) -> None:
        """Give the child a free lock, and decide whether it may use the pool.

        GNU OpenMP aborts a forked child that uses the pool of its parent. TBB stops its threads
        for the fork, but only if the thread that started them forks, and no other thread has used
        them. Otherwise a child may wait forever for threads that were not stopped.
        """
        me = threading.get_ident()
        idle = self._forking == me
        self.lock, self._forking = threading.Lock(), None
        layer = _running_layer()
        if layer == "omp":
            self.usable = False
        elif layer == "tbb":
            wound_up = self._started_by == me and not self._used_by_others
            self.usable = self.usable and idle and wound_up


POOL = Pool()
"""The pool of this process."""
