"""ONNX files: a model as a graph of standard operators, checked and written."""

from __future__ import annotations

import json
import os
from typing import Any

from fffcpu.config import LayerConfig
from fffcpu.errors import ArgumentTypeError, describe, require_extra
from fffcpu.inference.predictor import Predictor
from fffcpu.layers import Layer
from fffcpu.models.model import Model
from fffcpu.onnx.graph import Graph
from fffcpu.onnx.layers import add_layer
from fffcpu.onnx.models import add_model
from fffcpu.onnx.predictors import ROWS, add_inputs, add_outputs
from fffcpu.system.files import write_atomically

__all__ = ["export", "to_model", "write_model"]


def export(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a model as an ONNX file.

    Parameters
    ----------
    model : layer, Predictor, fitted estimator, FastBERT or BERT
        The model. docs/onnx.md lists the inputs and outputs of each kind.
    path : path
        File to write. An existing file is replaced once the whole new file is on the disk.

    Raises
    ------
    ArgumentTypeError
        If the model is none of these.
    ArgumentError
        If an ONNX file cannot hold the model: its weights take 2 GiB, or a column has no name or
        that of an output.
    MissingExtraError
        If the extra ``onnx`` is not installed.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import fffcpu, fffcpu.onnx
    >>> layer = fffcpu.FastFeedForward(16, 4, depth=3, rng=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fffcpu.onnx.export(layer, f"{folder}/layer.onnx")
    """
    write_model(to_model(model), path)


def write_model(proto: Any, path: str | os.PathLike[str]) -> None:
    """Write an ``onnx.ModelProto`` to a file, which appears complete or not at all."""
    with write_atomically(path) as temporary:
        temporary.write_bytes(proto.SerializeToString())


def to_model(model: Any) -> Any:
    """Return a model as an ``onnx.ModelProto``, without a file.

    Parameters
    ----------
    model : layer, Predictor, fitted estimator, FastBERT or BERT
        The model.

    Returns
    -------
    onnx.ModelProto
        The model, after ONNX's checker found nothing wrong with it.

    Raises
    ------
    ArgumentTypeError, ArgumentError, MissingExtraError
        As for `export`.
    """
    if hasattr(model, "to_predictor"):
        model = model.to_predictor()
    graph = Graph()
    if isinstance(model, Model):
        add_model(graph, model)
    elif isinstance(model, Predictor):
        _add_predictor(graph, model)
    else:
        _add_layer(graph, model)
    texts = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in _metadata(model).items()
        if value
    }
    proto = graph.model(texts, repr(model))
    require_extra("onnx.checker", "onnx").check_model(proto.SerializeToString())
    return proto


def _metadata(model: Any) -> dict[str, Any]:
    """Return the metadata of a model's file."""
    if isinstance(model, Model):
        return {"kind": type(model).__name__, "classes": model.config.labels}
    if isinstance(model, Predictor):
        schema, kind = model.schema, model.layer.config.kind
        lists = {name: getattr(schema, name) for name in ("classes", "features", "target")}
        return {"kind": kind, "task": schema.task, **lists}
    return {"kind": model.config.kind}


def _add_layer(graph: Graph, layer: Layer[Any]) -> None:
    """Add a layer: ``x`` (rows, I) to ``y`` (rows, O)."""
    config = getattr(layer, "config", None)
    if not isinstance(config, LayerConfig):
        raise ArgumentTypeError(
            "argument 'model' must be a layer, a predictor, a fitted estimator, a FastBERT or a "
            f"BERT, got {describe(layer)}"
        )
    x = graph.input("x", config.dtype, (ROWS, config.input_dim))
    graph.output("y", add_layer(graph, x, layer), config.dtype, (ROWS, config.output_dim))


def _add_predictor(graph: Graph, predictor: Predictor) -> None:
    """Add a predictor: its columns to ``label`` and ``probabilities``, or ``prediction``."""
    inputs = add_inputs(graph, predictor)
    for output in add_outputs(graph, inputs, predictor):
        graph.output(*output)
