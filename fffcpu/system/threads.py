"""Number of threads and thread layer of kernels; Numba is not imported until it is needed.

`fffcpu.system.pool` is the pool itself.
"""

from __future__ import annotations

from fffcpu.checks import check_integer
from fffcpu.system.compiler import has_numba

__all__ = ["get_num_threads", "get_thread_layer", "set_num_threads"]


def get_num_threads() -> int:
    """Return the number of threads that a kernel may use."""
    if not has_numba():
        return 1
    from fffcpu.system.pool import POOL

    return POOL.threads


def set_num_threads(threads: int) -> None:
    """Set the number of threads that a kernel may use, for this process from now on.

    The bits of layers' and models' results do not depend on it. Gradients of models may, because
    they are summed over the sequences of each thread. The default is the maximum: the number
    of CPUs that this process may use by its affinity and the quotas of its control groups, or
    ``NUMBA_NUM_THREADS`` if that is less. All are read once, when the first call needs kernels or
    their number of threads; the variable, when Numba is imported.

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
    """Return the name of the thread layer of kernels; starts its pool.

    Returns
    -------
    str
        ``tbb``, ``omp`` (OpenMP) or ``workqueue``; ``none`` if Numba is not installed.
    """
    if not has_numba():
        return "none"
    from fffcpu.system.pool import POOL

    return POOL.layer()
