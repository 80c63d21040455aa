"""A cluster on this machine: on free ports, without a dashboard, gone with its context."""

from __future__ import annotations

import os
import threading

import pytest

from fffcpu.dask import connect
from fffcpu.errors import ArgumentError, MissingExtraError

pytestmark = pytest.mark.slow


def environment():
    """What a worker is told about threads, how many kernels take, and its number."""
    import fffcpu

    return os.environ.get("OMP_NUM_THREADS"), fffcpu.get_num_threads(), os.getpid()


def test_local_workers_are_processes_that_end_with_the_context():
    with connect("local:2") as client:
        assert list(client.nthreads().values()) == [1, 1]
        found = list(client.run(environment).values())
        addresses = list(client.nthreads())
    assert all(address.startswith("tcp://127.0.0.1:") for address in addresses)
    for threads, taken, pid in found:
        assert (threads, taken) == ("1", 1)
        assert pid != os.getpid()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("Nanny")]


@pytest.mark.thorough
def test_two_clusters_find_ports_of_their_own():
    with connect("local:1") as first, connect("local:1") as second:
        assert first.scheduler.address != second.scheduler.address
        with connect(first.scheduler.address) as again:
            assert list(again.nthreads()) == list(first.nthreads())


@pytest.mark.parametrize("address", ["local:", "local:0", "local:-1", "local:two"])
def test_a_number_of_processes_is_needed(address):
    with (
        pytest.raises(ArgumentError, match=r"'address' must be that of a scheduler, or local:N"),
        connect(address),
    ):
        pass


def test_without_dask_the_extra_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtraError, match=r"fffcpu\[dask\]"), connect("local:1"):
        pass
