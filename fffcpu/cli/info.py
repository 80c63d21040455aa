"""``fffcpu info``: describe a saved layer and its costs."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

import fffcpu
from fffcpu.checkpoints import native
from fffcpu.config import DenseFeedForwardConfig
from fffcpu.system.terminal import format_number, format_table

__all__ = ["DESCRIPTION", "add_arguments", "describe_file", "run"]

DESCRIPTION = """\
Describe the layer in a file: its class, config and parameters, the neurons that it holds and those
that a row uses, and the arithmetic per row, compared with a dense layer of as many neurons. The
whole file is read and checked; the error for a damaged or foreign file names the fault.

examples:
  fffcpu info digits.safetensors
  fffcpu info digits.safetensors --json

how to read the output: multiply-adds count the weights that inference multiplies per row, without
biases and activations. Their ratio is an upper limit of the speed-up over the dense layer.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("file", metavar="FILE", help="file that a layer's save wrote")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> None:
    """Describe the file."""
    description = describe_file(options.file)
    if options.json:
        print(json.dumps(description, indent=2))
    else:
        print(_format(description))


def describe_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Describe the layer in a file, in plain JSON values.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    dict
        With the keys ``file``, ``bytes``, ``format_version``, ``kind``, ``config``, ``neurons``
        (``held``, ``used``), ``parameters`` (a list of ``name``, ``shape``, ``dtype``, ``bytes``)
        and ``multiply_adds`` (``layer``, ``dense``, ``ratio``).

    Raises
    ------
    CheckpointError, OSError
        If the file cannot be read or is not a layer's.
    """
    layer = fffcpu.load(path)
    config = layer.config
    own = config.multiply_adds
    dense = DenseFeedForwardConfig(config.input_dim, config.output_dim, config.neurons)
    return {
        "file": os.fspath(path),
        "bytes": os.path.getsize(path),
        "format_version": _format_version(path),
        "kind": config.kind,
        "config": config.to_dict(),
        "neurons": {"held": config.neurons, "used": config.active_neurons},
        "parameters": [
            {
                "name": name,
                "shape": list(array.shape),
                "dtype": config.dtypes()[name],
                "bytes": array.nbytes,
            }
            for name, array in layer.params.items()
        ],
        "multiply_adds": {
            "layer": own,
            "dense": dense.multiply_adds,
            "ratio": dense.multiply_adds / own,
        },
    }


def _format_version(path: str | os.PathLike[str]) -> int:
    """Return the format version of a file that was read without error."""
    return int(native.read_note(path, native.METADATA_KEY)["version"])


def _format(description: dict[str, Any]) -> str:
    """Return the description for people."""
    neurons, cost = description["neurons"], description["multiply_adds"]
    config = ", ".join(f"{name} {value}" for name, value in description["config"].items())
    dense = f"{cost['dense']:,} in a dense layer of {neurons['held']:,} neurons"
    ratio, version = format_number(cost["ratio"]), description["format_version"]
    parameters = [
        (item["name"], str(tuple(item["shape"])), item["dtype"], f"{item['bytes']:,}")
        for item in description["parameters"]
    ]
    return "\n".join(
        [
            description["file"],
            f"  kind           {description['kind']}",
            f"  config         {config}",
            f"  neurons        {neurons['used']:,} used of {neurons['held']:,} held, per row",
            f"  multiply-adds  {cost['layer']:,} per row; {dense} ({ratio}x)",
            f"  file           {description['bytes']:,} bytes, format version {version}",
            "",
            format_table(("parameter", "shape", "dtype", "bytes"), parameters),
        ]
    )
