"""The benchmark of exported layers prints its table, and times no wrong output."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from benchmarks.speed.onnx import check_agreement
from fffcpu import FastFeedForward
from fffcpu.errors import WrongOutputError
from tests.support.processes import run_module


@pytest.mark.slow
def test_the_benchmark_prints_its_table():
    done = run_module("benchmarks.speed.onnx", "--quick")
    assert done.returncode == 0, done.stderr
    lines = [line.split("|") for line in done.stdout.splitlines() if line.startswith("|")]
    assert [cells[3].strip() for cells in lines] == ["rows", "---", "1", "8"]


def test_rows_that_differ_are_an_error():
    layer = FastFeedForward(6, 4, 3, rng=0)
    batches = [np.random.default_rng(0).standard_normal((1000, 6), dtype=np.float32)]
    check_agreement(layer, layer, batches)

    def wrong(x):
        y = layer(x)
        y[:3] += 1.0
        return y

    with pytest.raises(WrongOutputError, match=r"99\.8% of the rows must agree, got 99\.70%"):
        check_agreement(wrong, layer, batches)
