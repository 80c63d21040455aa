"""How many threads kernels use, and on which layer they run; Numba is not imported before its time.

`fffcpu.system.pool` is the pool itself.
"""

from __future__ import annotations

from fffcpu.checks import check_integer
from fffcpu.system.compiler import has_numba

__all__ = ["get_num_threads", "get_thread_layer", "set_num_threads"]


def get_num_threads() -> int:
    """Return how many threads a kernel may use."""
    if not has_numba():
        return 1
    from fffcpu.system.pool import POOL

    return POOL.threads


def set_num_threads(threads: int) -> None:
    """Set how many threads a kernel may use, in this process, from now on.

    Results of layers do not depend on it, to the bit; those of models may, in the last digits,
    since their matrix products are cut otherwise. The default, and the most there can be, is
    Numba's: ``NUMBA_NUM_THREADS``, or the CPUs this process may run on.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If ``threads`` is not an integer from 1 to that number.
    """
    if not has_numba():
        check_integer("threads", threads, 1, 1)
        return
    from fffcpu.system.pool import POOL

    POOL.set_threads(threads)


def get_thread_layer() -> str:
    """Return the name of the thread layer that kernels run on; starts its pool.

    Returns
    -------
    str
        ``tbb``, ``omp`` (OpenMP) or ``workqueue``; ``none`` where Numba is not installed.
    """
    if not has_numba():
        return "none"
    from fffcpu.system.pool import POOL

    return POOL.layer()
