"""Exported models in onnxruntime, and rows that reach every leaf."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime

from fffcpu.onnx import to_model

__all__ = ["assert_close", "reaching", "run", "session"]

DOMAINS = {"", "ai.onnx.ml"}
"""The sets of operators of the standard."""

AGREEING = 0.998
"""Least share of rows that must agree: others took another way, at a logit near 0."""


def session(model):
    """Return a session with an ``onnx.ModelProto`` that was checked in full."""
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} <= DOMAINS
    assert {name.domain for name in model.opset_import} <= DOMAINS
    assert not model.functions
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run(model, **inputs):
    """Return the outputs of an exported model, by name."""
    found = session(to_model(model))
    names = [output.name for output in found.get_outputs()]
    return dict(zip(names, found.run(names, inputs), strict=True))


def reaching(layer, rows=4000):
    """Return rows of a layer that, together, reach every leaf of every tree."""
    config = layer.config
    x = np.random.default_rng(3).normal(0.0, 4.0, (rows, config.input_dim)).astype(config.dtype)
    if hasattr(layer, "route"):
        leaves = layer.route(x).reshape(rows, getattr(config, "trees", 1), -1)[:, :, -1]
        counts = [len(np.unique(tree)) for tree in leaves.T]
        assert counts == [2**config.depth] * leaves.shape[1]
    return x


def assert_close(found, expected, tolerance=1e-4):
    """Fail unless nearly all rows agree, relative to the largest number."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    error = np.abs(found - expected).reshape(len(expected), -1).max(axis=1)
    assert (error <= tolerance * np.abs(expected).max()).mean() >= AGREEING
