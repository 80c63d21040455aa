"""The benchmark of one row prints its table."""

from __future__ import annotations

import pytest

from tests.support.processes import run_module


@pytest.mark.slow
def test_benchmark_script_prints_its_table():
    done = run_module("benchmarks.speed.estimators", "--quick", "--seconds", "0.001")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
    names = [line.split("|")[1].strip() for line in lines[2:]]
    assert names[0] == "FFFClassifier.predict"
    assert names[2:] == ["Predictor.predict", "the layer"]
