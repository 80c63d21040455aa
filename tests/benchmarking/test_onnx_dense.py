"""onnxruntime's dense layer computes what ours does, where it is installed."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from fffcpu import DenseFeedForward
from fffcpu.benchmarking.onnx_dense import onnx_dense
from fffcpu.errors import MissingExtraError


@pytest.mark.parametrize("activation", ["gelu", "relu", "identity"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("options", "tolerance"), [({}, 1e-6), ({"int8": True}, 0.04)])
def test_it_is_the_dense_layer(activation, bias, options, tolerance):
    pytest.importorskip("onnx", reason="the extra 'bench' is not installed")
    pytest.importorskip("onnxruntime", reason="the extra 'bench' is not installed")
    layer = DenseFeedForward(7, 5, 33, bias=bias, activation=activation, rng=0)
    run = onnx_dense(layer.params, activation, 1, spinning=False, **options)
    for rows in (1, 9):
        x = np.random.default_rng(rows).standard_normal((rows, 7)).astype(np.float32)
        expected = layer(x)
        assert np.abs(run(x) - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("module", ["onnxruntime", "onnx"])
def test_the_missing_extra_is_named(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"fffcpu\[bench\]"):
        onnx_dense(DenseFeedForward(2, 2, 2, rng=0).params)
