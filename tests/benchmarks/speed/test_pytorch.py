"""The benchmark of the modules for PyTorch prints its table."""

from __future__ import annotations

import pytest

from tests.support.processes import run_module


@pytest.mark.slow
def test_benchmark_script_prints_its_table():
    pytest.importorskip("torch")
    options = ("--quick", "--repeats", "1", "--seconds", "0.001")
    done = run_module("benchmarks.speed.pytorch", *options)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    table = [line.split("|")[1:-1] for line in lines if line.startswith("|")]
    assert len(table) == 2 + 7
    assert {len(row) for row in table} == {5}
