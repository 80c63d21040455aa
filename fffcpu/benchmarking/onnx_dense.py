"""The dense layer in onnxruntime, the fastest dense runtime on CPUs that we know, for comparison.

The extra ``bench`` installs what this module needs. The graph is that of an exported layer, the
mathematics and nothing else; onnxruntime fuses operators where it can::

    x (B, I) --MatMul--> + bias --GELU--> (B, W) --MatMul--> y (B, O)

The weights are those of `fffcpu.layers.DenseFeedForward`, in float32, or in int8 if onnxruntime
quantizes them. It then computes the scale of each row of x at run time ("dynamic").
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.errors import require_extra
from fffcpu.onnx.graph import Graph
from fffcpu.onnx.layers import add_dense

__all__ = ["in_onnxruntime", "onnx_dense", "quantized"]

Array = NDArray[Any]


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
    for module in ("onnx", "onnxruntime"):
        require_extra(module, "bench")
    model = _model(params, activation)
    content = quantized(model) if int8 else model.SerializeToString()
    return in_onnxruntime(content, threads, spinning=spinning)


def in_onnxruntime(
    content: bytes, threads: int = 1, *, spinning: bool = True
) -> Callable[[Array], Array]:
    """Return a function that runs a model with one input and one output in onnxruntime.

    Parameters
    ----------
    content : bytes
        The model.
    threads, spinning
        As for `onnx_dense`.

    Returns
    -------
    callable
        Function of the input, an array, that returns the output.

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
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()

    def run(x: Array) -> Array:
        result: Array = session.run(None, {given.name: x})[0]
        return result

    return run


def _model(params: Mapping[str, Array], activation: str) -> Any:
    """Return the layer as an ``onnx.ModelProto``."""
    graph = Graph()
    x = graph.input("x", np.float32, ("rows", params["weights_in"].shape[1]))
    shape = ("rows", params["weights_out"].shape[1])
    graph.output("y", add_dense(graph, x, params, activation), np.float32, shape)
    return graph.model()


def quantized(model: Any, *, reduce_range: bool = True, per_channel: bool = False) -> bytes:
    """Return a model with int8 weights, as bytes; onnxruntime's tool writes files only.

    Parameters
    ----------
    model : onnx.ModelProto
        The model.
    reduce_range : bool
        Whether weights have 7 bits, as machines without VNNI need.
    per_channel : bool
        Whether each column of weights has a scale, which loses much less than one per matrix.
    """
    quantization = require_extra("onnxruntime.quantization", "bench")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # older ones use former names of onnx
        path, rounded = Path(folder, "model.onnx"), Path(folder, "rounded.onnx")
        path.write_bytes(model.SerializeToString())
        logging.disable(logging.WARNING)  # it advises a step that changes nothing here
        try:
            quantization.quantize_dynamic(
                path,
                rounded,
                weight_type=quantization.QuantType.QInt8,
                # Without VNNI, sums of two products of 8 bits overflow; with 7 bits they do not.
                reduce_range=reduce_range,
                per_channel=per_channel,
            )
        finally:
            logging.disable(logging.NOTSET)
        return rounded.read_bytes()
