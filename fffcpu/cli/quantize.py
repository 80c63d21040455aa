"""``fffcpu quantize``: a saved layer with bfloat16 or int8 weights."""

from __future__ import annotations

import argparse
import json
import os

import fffcpu
from fffcpu.checkpoints import native
from fffcpu.errors import CheckpointError
from fffcpu.inference.predictor import NOTE
from fffcpu.system.terminal import format_table

__all__ = ["DESCRIPTION", "add_arguments", "run"]

DESCRIPTION = """\
Read a float layer from a file, round its weights to bfloat16 or int8, and write the result to
another file, which fffcpu.load, 'fffcpu info' and 'fffcpu predict' read. It is for inference only:
keep the first file if you may train on.

examples:
  fffcpu quantize digits.safetensors small.safetensors --weights int8
  fffcpu info small.safetensors

which to take:
  bfloat16  half the bytes; each weight is off by 0.4% of itself at most.
  int8      a quarter of the bytes, and a scale for each neuron; each weight is off by 0.4% of the
            neuron's largest at most.
Rounding may send a row down another path of a FastFeedForward where its logit was near 0, so
compare the accuracy of both files on rows of your own. docs/benchmarks.md says what it cost on the
digits.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("file", metavar="IN", help="a file that a layer's save wrote")
    parser.add_argument("out", metavar="OUT", help="the file to write; replaced if it exists")
    parser.add_argument(
        "--weights", required=True, metavar="TYPE", help="bfloat16 or int8, of the weights in OUT"
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
    meaning = native.read_note(options.file, NOTE)
    small.save(options.out, {} if meaning is None else {NOTE: json.dumps(meaning)})
    before, after = os.path.getsize(options.file), os.path.getsize(options.out)
    rows = [
        (options.file, layer.config.dtype, f"{layer.nbytes:,}", f"{before:,}"),
        (options.out, options.weights, f"{small.nbytes:,}", f"{after:,}"),
    ]
    print(format_table(("file", "weights", "bytes of parameters", "of the file"), rows))
    print(f"{small.nbytes / layer.nbytes:.1%} of the parameters' bytes are left")
