"""The extra ``dask``, and a cluster of two processes for these tests."""

from __future__ import annotations

import pytest

pytest.importorskip("distributed", reason="the extra 'dask' is not installed")


@pytest.fixture(scope="package")
def client():
    """A client of two worker processes with a thread each."""
    from fffcpu.dask.cluster import connect

    with connect("local:2") as found:
        yield found
