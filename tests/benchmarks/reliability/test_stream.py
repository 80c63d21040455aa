"""Rows predicted on a cluster are counted rightly, and memory is watched."""

from __future__ import annotations

import pytest

from tests.support.processes import run_module

pytest.importorskip("distributed", reason="the extra 'dask' is not installed")


@pytest.mark.slow
@pytest.mark.thorough
def test_counts_are_right():
    options = ("--rows", "200000", "--chunk", "5000", "--workers", "1")
    done = run_module("benchmarks.reliability.stream", *options)
    assert "counts are right; memory grew" in done.stdout, done.stderr
