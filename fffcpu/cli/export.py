"""``fffcpu export``: a model as an ONNX file."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from typing import Any

from fffcpu.cli.support.outputs import check_output
from fffcpu.errors import ArgumentError, require_extra
from fffcpu.inference.predictor import load_model
from fffcpu.onnx.exporting import to_model, write_model
from fffcpu.system.terminal import format_table

__all__ = ["DESCRIPTION", "add_arguments", "run"]

DESCRIPTION = """\
Write a model as an ONNX file, which onnxruntime and other programs run without fffcpu. The file
has standard operators only. It needs the extra 'onnx'.

examples:
  fffcpu export digits.safetensors digits.onnx
  fffcpu export judge judge.onnx
  fffcpu export bert encoder.onnx --encoder

what the file takes and gives:
  a layer         x, and y
  a model of      x, or a tensor per column where columns hold texts or dates; label and
  'fffcpu train'  probabilities, or prediction
  a text model    input_ids and attention_mask; logits, or last_hidden_state with --encoder
Numbers of rows, of sequences and of their positions are free. The tokenizer of a text model is
not part of the file. docs/onnx.md describes each kind.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument(
        "model", metavar="MODEL", help="file of a layer or a predictor, or folder of a text model"
    )
    parser.add_argument("out", metavar="OUT", help=".onnx file to write; replaced if it exists")
    parser.add_argument(
        "--encoder", action="store_true", help="export a text model's encoder, without the head"
    )


def run(options: argparse.Namespace) -> None:
    """Export the model."""
    require_extra("onnx", "onnx")
    if not options.out.lower().endswith(".onnx"):
        raise ArgumentError(f"argument 'OUT' must end in .onnx, got '{options.out}'")
    check_output(options.out, options.model, name="OUT")
    proto = to_model(_open(options.model, options.encoder))
    write_model(proto, options.out)
    rows = [*_described("input", proto.graph.input), *_described("output", proto.graph.output)]
    print(format_table(("", "name", "type", "shape"), rows))
    print(f"{options.out}: {os.path.getsize(options.out):,} bytes")


def _open(path: str, encoder: bool) -> Any:
    """Return the model at a path."""
    if os.path.isdir(path):
        from fffcpu.models.opening import open_model

        model = open_model(path)
        return getattr(model, "encoder", model) if encoder else model
    if encoder:
        raise ArgumentError(
            f"argument '--encoder' is for folders of text models, got the file '{path}'"
        )
    layer, predictor = load_model(path)
    return layer if predictor is None else predictor


def _described(role: str, values: Iterable[Any]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table about inputs or outputs."""
    kinds = require_extra("onnx", "onnx").TensorProto.DataType
    for value in values:
        kind = value.type.tensor_type
        lengths = (axis.dim_param or str(axis.dim_value) for axis in kind.shape.dim)
        yield role, value.name, kinds.Name(kind.elem_type).lower(), f"({', '.join(lengths)})"
