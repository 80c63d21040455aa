"""A cluster to compute on: a scheduler by its address, or processes on this machine.

``local:N`` starts a scheduler in this process and N worker processes, without a dashboard, on free
ports that only this machine can reach. They end with the context.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from fffcpu.errors import ArgumentError, require_extra

__all__ = ["connect"]

LOCAL = "local:"

IGNORE_CTRL_C = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
"""What local workers run first. A terminal sends Ctrl-C to all processes; this one decides."""

CONNECT_SECONDS = 30
"""How long to try to reach a scheduler."""


@contextlib.contextmanager
def connect(address: str) -> Iterator[Any]:
    """Context with a client of a cluster.

    Parameters
    ----------
    address : str
        The address of a scheduler, such as ``tcp://10.0.0.5:8786``, or ``local:N`` for N processes
        on this machine.

    Yields
    ------
    distributed.Client

    Raises
    ------
    ArgumentError
        If the address has another form.
    MissingExtraError
        If Dask is not installed.
    OSError
        If no scheduler answers.
    """
    distributed = require_extra("distributed", "dask")
    with contextlib.ExitStack() as stack:
        where: Any = address
        if address.startswith(LOCAL):
            where = stack.enter_context(
                distributed.LocalCluster(
                    n_workers=_count(address),
                    threads_per_worker=1,
                    processes=True,
                    host="127.0.0.1",
                    dashboard_address=None,
                    # Without a dashboard there still is a port for it, which may be taken.
                    scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                    worker_dashboard_address=None,
                    preload=[IGNORE_CTRL_C],
                    # Dask sets what NumPy's BLAS reads; kernels have a variable of their own.
                    env={"NUMBA_NUM_THREADS": "1"},
                )
            )
        # Straight to the workers: what a training sends would take twice the way by the scheduler.
        how = {"timeout": CONNECT_SECONDS, "set_as_default": False, "direct_to_workers": True}
        yield stack.enter_context(distributed.Client(where, **how))


def _count(address: str) -> int:
    """Return the number of processes of a local cluster."""
    text = address.removeprefix(LOCAL)
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentError(
            "argument 'address' must be that of a scheduler, or local:N for N processes, "
            f"got {address!r}"
        )
    return int(text)
