"""The threads that kernels share: Numba's pool, the layer it stands on, how many, and forks.

Numba knows three thread layers. `Pool` takes the first that loads, unless the user's
``NUMBA_THREADING_LAYER`` or ``NUMBA_THREADING_LAYER_PRIORITY`` says otherwise:

=============  =====================================================================================
``tbb``        idle threads hand their cores back within microseconds, and wake as fast
``omp``        GNU OpenMP; told to sleep when idle, since its spinning threads would take the cores
               from the caller's matrix products; a forked child cannot use it
``workqueue``  comes with Numba, always there; slow to wake
=============  =====================================================================================

The wheel ``tbb`` puts its library where no dynamic loader looks, so `Pool` loads it by its path,
just before Numba's pool starts. Importing this module starts nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba

from fffcpu.checks import check_integer
from fffcpu.system.cpus import default_threads

__all__ = ["POOL", "Pool", "load_tbb"]

TBB_LIBRARY = {"win32": "tbb12.dll", "darwin": "libtbb.12.dylib"}.get(sys.platform, "libtbb.so.12")
"""File name under which Numba asks for TBB."""

WAKING = {"tbb": 1, "omp": 2, "workqueue": 4}
"""What waking each layer's threads takes, in terms of TBB's; measured on 64 to 192 rows."""

FORK_WAIT = 1.0
"""Seconds that a fork waits for a running kernel, so that no lock of the pool is held in a child
whose holder was left behind."""


def _tbb_paths() -> Iterator[Path]:
    """Yield where TBB's library may lie: as its wheel tells, else as environments lay it out."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("tbb") or ():
            if file.name == TBB_LIBRARY:
                yield Path(str(file.locate()))
    folder = "Library/bin" if sys.platform == "win32" else "lib"
    yield Path(sys.prefix, folder, TBB_LIBRARY)


def load_tbb() -> bool:
    """Load TBB's library, so that Numba finds it by name; return False if there is none that loads.

    One that the loader would find by itself is left to Numba.
    """
    for path in _tbb_paths():
        with contextlib.suppress(OSError):
            ctypes.CDLL(str(path))
            return True
    return False


@contextlib.contextmanager
def _sleeping_when_idle() -> Iterator[None]:
    """Set ``OMP_WAIT_POLICY``, unless the user has, while a pool starts.

    GNU OpenMP reads it once, when it is loaded; nobody else need see it.
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
    """Return the thread layer of the pool that runs, ours or one that the caller's code started."""
    try:
        return str(numba.threading_layer())
    except ValueError:
        return None


def _keep_to_the_end(module: str) -> None:
    """Keep a loaded extension module alive until the process has ended, with all it holds.

    Numba's ``tbbpool`` waits for TBB's threads when Python ends. In a child of a fork it may wait
    forever, for a lock that a thread of the parent held when the process forked.
    """
    loaded = sys.modules.get(module)
    if loaded is not None:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(loaded))


class Pool:
    """Numba's thread pool as kernels use it: one call at a time, the others run serially.

    A call that finds the pool busy has nothing to gain from it, and Numba's ``workqueue`` layer
    would end the process. Results have the same bits either way.
    """

    def __init__(self) -> None:
        self.threads = default_threads(int(numba.config.NUMBA_NUM_THREADS))
        self.usable = True
        self.waking = 1
        self.lock = threading.Lock()
        self._started_by: int | None = None  # a thread; None while we have not started the pool
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
        """Set how many threads a kernel may use; see `fffcpu.set_num_threads`."""
        most = int(numba.config.NUMBA_NUM_THREADS)
        self.threads = check_integer("threads", number, 1, most)

    def layer(self) -> str:
        """Return the name of the thread layer, which starts the pool if it does not run."""
        with self.lock:
            self._start()
        return str(numba.threading_layer())

    def run(
        self, parallel: Callable[..., Any], arguments: tuple[Any, ...], wait: bool = False
    ) -> bool:
        """Run a parallel kernel; return False if the pool is lost or, unless we wait, busy."""
        if not self.usable or not self.lock.acquire(blocking=wait):
            return False
        try:
            self._start()
            self._used_by_others |= threading.get_ident() != self._started_by
            callers = numba.get_num_threads()
            numba.set_num_threads(self.threads)
            try:
                parallel(*arguments, self.threads)
            except SystemError as error:  # how a parallel loop reports what its body raised
                raise error.__cause__ or error from None
            finally:
                numba.set_num_threads(callers)
        finally:
            self.lock.release()
        return True

    def _start(self) -> None:
        """Start Numba's pool, unless it runs."""
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

    def _before_fork(self) -> None:
        if self.lock.acquire(timeout=FORK_WAIT):
            self._forking = threading.get_ident()

    def _after_fork_in_parent(self) -> None:
        if self._forking == threading.get_ident():
            self._forking = None
            self.lock.release()

    def _after_fork_in_child(self) -> None:
        """Give the child a free lock, and decide whether it may use the pool.

        GNU OpenMP ends a forked child that uses the pool of its parent. TBB winds its threads up
        for the fork, but only where the thread that started them forks, and no other thread has
        used them: a child may wait forever for threads that were not wound up.
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
            if not self.usable:
                _keep_to_the_end("numba.np.ufunc.tbbpool")


POOL = Pool()
"""The pool of this process."""
