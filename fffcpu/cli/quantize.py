"""``fffcpu quantize``: a saved layer with bfloat16 or int8 weights, or a model with int8 ones."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import fffcpu
from fffcpu.checkpoints import native
from fffcpu.cli.support.outputs import check_folder, read_tokenizer, report_tokenizer
from fffcpu.errors import CheckpointError
from fffcpu.inference.predictor import NOTE, ROUTES_NOTE
from fffcpu.system.terminal import format_table

__all__ = ["DESCRIPTION", "add_arguments", "run"]

DESCRIPTION = """\
Read a float layer from a file, round its weights to bfloat16 or int8, and write the result to
another file, which fffcpu.load, 'fffcpu info' and 'fffcpu predict' read. Or read the model of texts
in a folder, round the weights of its attentions and feedforwards to int8, and write the result to
another folder, which 'fffcpu embed', 'classify', 'fill-mask' and 'serve' read. The result is for
inference only: keep the first file to train further.

examples:
  fffcpu quantize digits.safetensors small.safetensors --weights int8
  fffcpu info small.safetensors
  fffcpu quantize all-MiniLM-L6-v2 minilm-int8 --weights int8

which type to choose:
  bfloat16  half the bytes. The error of a weight is at most 0.4% of the weight.
  int8      a quarter of the bytes, and scales. The error of a weight is at most 0.4% of the largest
            input weight of its neuron, or output weight of its side.
  Dense feedforwards and models take int8 only: their products are of integers, and each row of
  their inputs is rounded to int8 as well.
The file keeps names, classes and statistics of training rows. Rounding may send a row down another
path of a FastFeedForward, where a logit was near 0. Compare the accuracy of both files on your own
rows. docs/benchmarks.md gives the loss of accuracy on the digits.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("file", metavar="IN", help="file that a layer's save wrote, or a folder")
    parser.add_argument(
        "out", metavar="OUT", help="file or folder to write; a file is replaced if it exists"
    )
    parser.add_argument(
        "--weights",
        required=True,
        metavar="TYPE",
        help="type of the weights in OUT: bfloat16 or int8",
    )


def run(options: argparse.Namespace) -> None:
    """Quantize the layer, or the model."""
    if os.path.isdir(options.file):
        _quantize_folder(options)
    else:
        _quantize_file(options)


def _quantize_folder(options: argparse.Namespace) -> None:
    """Write a folder's model with int8 weights to another folder."""
    from fffcpu.models.opening import open_model

    source, place = Path(options.file), check_folder(options.out, options.file, name="OUT")
    model = open_model(source)
    small = model.quantize(options.weights)
    files = read_tokenizer(source)
    small.save_pretrained(place, files=files)
    tokenizer = report_tokenizer(place, files)
    _report(options, model, small, _size(source), _size(place))
    print(tokenizer)


def _size(folder: Path) -> int:
    """Return the bytes of a folder's weights."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _quantize_file(options: argparse.Namespace) -> None:
    """Write a file's layer with narrow weights to another file."""
    layer = fffcpu.load(options.file)
    if not hasattr(layer, "quantize"):
        raise CheckpointError(
            f"file '{options.file}' must hold a layer with float weights, got a {layer.config.kind}"
        )
    small = layer.quantize(options.weights)
    notes = native.read_notes(options.file, NOTE, ROUTES_NOTE)
    small.save(
        options.out,
        {
            key: json.dumps(value, sort_keys=True)
            for key, value in notes.items()
            if value is not None
        },
    )
    _report(options, layer, small, os.path.getsize(options.file), os.path.getsize(options.out))


def _report(options: argparse.Namespace, layer: Any, small: Any, before: int, after: int) -> None:
    """Print the bytes before and after."""
    rows = [
        (options.file, layer.config.dtype, f"{layer.nbytes:,}", f"{before:,}"),
        (options.out, options.weights, f"{small.nbytes:,}", f"{after:,}"),
    ]
    print(format_table(("file", "weights", "bytes of parameters", "bytes of file"), rows))
    print(f"the parameters take {small.nbytes / layer.nbytes:.1%} of their former bytes")
