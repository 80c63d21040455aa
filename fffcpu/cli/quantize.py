"""``fffcpu quantize``: a saved layer with bfloat16 or int8 weights."""

from __future__ import annotations

import argparse
import json
import os

import fffcpu
from fffcpu.checkpoints import native
from fffcpu.errors import CheckpointError
from fffcpu.inference.predictor import NOTE, ROUTES_NOTE
from fffcpu.system.terminal import format_table

__all__ = ["DESCRIPTION", "add_arguments", "run"]

DESCRIPTION = """\
Read a float layer from a file, round its weights to bfloat16 or int8, and write the result to
another file, which fffcpu.load, 'fffcpu info' and 'fffcpu predict' read. The result is for
inference only: keep the first file to train further.

examples:
  fffcpu quantize digits.safetensors small.safetensors --weights int8
  fffcpu info small.safetensors

which type to choose:
  bfloat16  half the bytes. The error of a weight is at most 0.4% of the weight.
  int8      a quarter of the bytes, and scales. The error of a weight is at most 0.4% of the largest
            input weight of its neuron, or output weight of its side.
The file keeps names, classes and statistics of training rows. Rounding may send a row down another
path of a FastFeedForward, where a logit was near 0. Compare the accuracy of both files on your own
rows. docs/benchmarks.md gives the loss of accuracy on the digits.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("file", metavar="IN", help="file that a layer's save wrote")
    parser.add_argument("out", metavar="OUT", help="file to write; replaced if it exists")
    parser.add_argument(
        "--weights",
        required=True,
        metavar="TYPE",
        help="type of the weights in OUT: bfloat16 or int8",
    )


def run(options: argparse.Namespace) -> None:
    """Quantize the layer."""
    layer = fffcpu.load(options.file)
    if not hasattr(layer, "quantize"):
        raise CheckpointError(
            f"file '{options.file}' must hold a FastFeedForward or a LeafFeedForward, "
            f"got a {layer.config.kind}"
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
    before, after = os.path.getsize(options.file), os.path.getsize(options.out)
    rows = [
        (options.file, layer.config.dtype, f"{layer.nbytes:,}", f"{before:,}"),
        (options.out, options.weights, f"{small.nbytes:,}", f"{after:,}"),
    ]
    print(format_table(("file", "weights", "bytes of parameters", "bytes of file"), rows))
    print(f"the parameters take {small.nbytes / layer.nbytes:.1%} of their former bytes")
