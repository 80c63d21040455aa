"""The dense layer in onnxruntime, the fastest dense runtime on CPUs that we know, for comparison.

The extra ``bench`` installs what this module needs. The graph is the layer's mathematics and
nothing else; onnxruntime fuses operators where it can::

    x (B, I) --MatMul--> + bias --GELU--> (B, W) --MatMul--> y (B, O)

The weights are those of `fffcpu.layers.DenseFeedForward`, in float32, or in int8 if onnxruntime
quantizes them. It then computes the scale of each row of x at run time ("dynamic").
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.errors import require_extra

__all__ = ["MODEL_BYTES", "onnx_dense", "onnx_model"]

Array = NDArray[Any]

OPERATORS = {"gelu": "Gelu", "relu": "Relu", "identity": "Identity"}
"""Names of the activations in ONNX."""

OPSET = 20
"""Version of the operator set. It is the first with GELU."""

IR_VERSION = 10
"""Version of the file format. Every onnxruntime with these operators reads it."""

MODEL_BYTES = (1 << 31) - (1 << 20)
"""Most bytes of weights in a model of one piece."""


def onnx_dense(
    params: Mapping[str, Array],
    activation: str = "gelu",
    threads: int = 1,
    *,
    int8: bool = False,
    spinning: bool = True,
) -> Callable[[Array], Array]:
    """Return a function that runs a dense layer in onnxruntime.

    Parameters
    ----------
    params : mapping of str to float32 array
        ``weights_in`` (W, I), ``weights_out`` (W, O) and optionally ``bias_in`` (W,).
    activation : {"gelu", "relu", "identity"}
        Activation of the neurons.
    threads : int
        Threads of onnxruntime's pool.
    int8 : bool
        Whether onnxruntime quantizes the weights to int8.
    spinning : bool
        Whether idle threads spin for a while, which is onnxruntime's default. They then take the
        cores from the code that runs next.

    Returns
    -------
    callable
        Function that takes a float32 array (B, I) and returns one (B, O).

    Raises
    ------
    MissingExtraError
        If the extra ``bench`` is not installed.
    """
    runtime = require_extra("onnxruntime", "bench")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    if not spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    model = onnx_model(params, activation)
    content = _quantize(model) if int8 else model.SerializeToString()
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(x: Array) -> Array:
        result: Array = session.run(None, {"x": x})[0]
        return result

    return run


def onnx_model(params: Mapping[str, Array], activation: str) -> Any:
    """Return the layer as an ``onnx.ModelProto``. The arguments are those of `onnx_dense`."""
    onnx = require_extra("onnx", "bench")
    helper, numbers = onnx.helper, onnx.numpy_helper
    _, inner = params["weights_in"].shape
    _, outer = params["weights_out"].shape
    weights = {
        "weights_in": np.ascontiguousarray(params["weights_in"].T),
        "weights_out": params["weights_out"],
    }
    nodes = [helper.make_node("MatMul", ["x", "weights_in"], ["logits"])]
    logits = "logits"
    if "bias_in" in params:
        weights["bias_in"] = params["bias_in"]
        nodes.append(helper.make_node("Add", ["logits", "bias_in"], ["biased"]))
        logits = "biased"
    nodes += [
        helper.make_node(OPERATORS[activation], [logits], ["active"]),
        helper.make_node("MatMul", ["active", "weights_out"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["B", inner])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["B", outer])],
        [numbers.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def _quantize(model: Any) -> bytes:
    """Return the model with int8 weights, as bytes; onnxruntime's tool writes files only."""
    quantization = require_extra("onnxruntime.quantization", "bench")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "dense.onnx")
        logging.disable(logging.WARNING)  # it advises a step that changes nothing here
        try:
            # Without VNNI, sums of two products of 8 bits overflow; with 7 bits they do not.
            kind = quantization.QuantType.QInt8
            quantization.quantize_dynamic(model, path, weight_type=kind, reduce_range=True)
        finally:
            logging.disable(logging.NOTSET)
        return path.read_bytes()
