"""``fffcpu info``: describe a saved layer and its costs."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from fffcpu.checkpoints import native
from fffcpu.columns.encoding import KINDS
from fffcpu.config import DenseFeedForwardConfig
from fffcpu.errors import list_names
from fffcpu.inference.predictor import Schema, load_model
from fffcpu.system.terminal import format_number, format_table

__all__ = ["DESCRIPTION", "add_arguments", "describe_file", "describe_folder", "run"]

DESCRIPTION = """\
Describe the layer in a file: its task, columns and classes, its class, config and parameters, the
neurons that it holds and those that a row uses, and the arithmetic per row, compared with a dense
layer of as many neurons. Or describe the text model in a folder. All is read and checked; the error
for a damaged or foreign file names the fault.

examples:
  fffcpu info digits.safetensors
  fffcpu info digits.safetensors --json
  fffcpu info MODEL_FOLDER

how to read the output: multiply-adds count the weights that inference multiplies per row, without
biases and activations. Their ratio is an upper limit of the speed-up over the dense layer.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("file", metavar="MODEL", help="file of a layer, or folder of a text model")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> None:
    """Describe the file or the folder."""
    is_folder = os.path.isdir(options.file)
    description = describe_folder(options.file) if is_folder else describe_file(options.file)
    if options.json:
        print(json.dumps(description, indent=2))
    else:
        print(_format_folder(description) if is_folder else _format(description))


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
        (``held``, ``used``), ``parameters`` (a list of ``name``, ``shape``, ``dtype``, ``bytes``),
        ``multiply_adds`` (``layer``, ``dense``, ``ratio``) and ``schema``: ``task``, ``target``,
        ``classes`` and ``columns`` (``name``, ``kind``, ``inputs``); None for a layer alone.

    Raises
    ------
    CheckpointError, OSError
        If the file cannot be read or is not a layer's.
    """
    layer, predictor = load_model(path)
    config = layer.config
    own = config.multiply_adds
    dense = DenseFeedForwardConfig(config.input_dim, config.output_dim, config.neurons)
    return {
        "file": os.fspath(path),
        "bytes": os.path.getsize(path),
        "format_version": _format_version(path),
        "schema": None if predictor is None else _describe_schema(predictor.schema),
        "kind": config.kind,
        "config": config.to_dict(),
        "neurons": {"held": config.neurons, "used": config.active_neurons},
        "parameters": _describe_arrays(layer.params, config.dtypes()),
        "multiply_adds": {
            "layer": own,
            "dense": dense.multiply_adds,
            "ratio": dense.multiply_adds / own,
        },
    }


def describe_folder(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Describe the text model in a folder, in plain JSON values.

    Returns
    -------
    dict
        With the keys ``folder``, ``kind`` (the class that opens it), ``config``, ``classes`` (None
        for a masked language model), ``distilled`` (the report of its distillation, None for other
        models), ``parameters`` and ``numbers``, their number in all.

    Raises
    ------
    CheckpointError, OSError
        If the folder cannot be read or holds no model.
    """
    from fffcpu.models.opening import open_model
    from fffcpu.recipes.distillation_report import read_report

    model = open_model(path)
    config = model.config
    return {
        "folder": os.fspath(path),
        "kind": type(model).__name__,
        "config": {
            "width": config.width,
            "layers": config.layers,
            "heads": config.heads,
            "vocabulary": config.vocabulary,
            "positions": config.positions,
            "feedforward": config.feedforward,
            "feedforward_size": config.feedforward_size,
            "depth": config.depth,
            **({} if config.weights is None else {"weights": config.weights}),
        },
        "classes": None if config.labels is None else list(config.labels),
        "distilled": read_report(path, model),
        "parameters": _describe_arrays(model.params, {}),
        "numbers": model.params.count,
    }


def _describe_arrays(
    params: Mapping[str, NDArray[Any]], dtypes: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return name, shape, dtype and bytes of each array; ``dtypes`` has those NumPy lacks."""
    return [
        {
            "name": name,
            "shape": list(array.shape),
            "dtype": dtypes.get(name, str(array.dtype)),
            "bytes": array.nbytes,
        }
        for name, array in params.items()
    ]


def _describe_schema(schema: Schema) -> dict[str, Any]:
    """Return the meaning of a layer's inputs and outputs."""
    encoding = schema.table_encoding
    pairs = () if encoding is None else zip(encoding.names, encoding.columns, strict=True)
    return {
        "task": schema.task,
        "target": None if schema.target is None else list(schema.target),
        "classes": list(schema.classes),
        "columns": [
            {"name": name, "kind": column.kind, "inputs": column.inputs(name)}
            for name, column in pairs
        ],
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
    return "\n".join(
        [
            description["file"],
            *_format_schema(description["schema"]),
            f"  kind           {description['kind']}",
            f"  config         {config}",
            f"  neurons        {neurons['used']:,} used of {neurons['held']:,} held, per row",
            f"  multiply-adds  {cost['layer']:,} per row; {dense} ({ratio}x)",
            f"  file           {description['bytes']:,} bytes, format version {version}",
            "",
            _format_arrays(description["parameters"]),
        ]
    )


def _format_schema(schema: dict[str, Any] | None) -> list[str]:
    """Return the lines about the meaning of inputs and outputs."""
    if schema is None:
        return []
    target = f" of {', '.join(schema['target'])}" if schema["target"] else ""
    lines = [f"  task           {schema['task']}{target}"]
    if schema["classes"]:
        lines.append(f"  classes        {list_names(schema['classes'])}")
    columns = schema["columns"]
    for kind in KINDS:
        names = [column["name"] for column in columns if column["kind"] == kind]
        if names:
            title = "categories" if kind == "category" else f"{kind}s"
            lines.append(f"  {title:13}  {list_names(names)}")
    return lines


def _format_folder(description: dict[str, Any]) -> str:
    """Return the description of a text model for people."""
    lines = [f"{description['folder']}", f"  kind              {description['kind']}"]
    if description["classes"]:
        lines.append(f"  classes           {list_names(description['classes'])}")
    lines += [f"  {name:16}  {value}" for name, value in description["config"].items()]
    lines.append(f"  parameters        {description['numbers']:,}")
    lines += _format_distilled(description["distilled"])
    return "\n".join([*lines, "", _format_arrays(description["parameters"])])


def _format_distilled(report: dict[str, Any] | None) -> list[str]:
    """Return the lines about a distillation."""
    if report is None:
        return []
    teacher, hours = report["teacher"]["name"], format_number(report["seconds"] / 3600)
    lines = [
        f"  distilled from    {teacher}, with {report['texts']:,} texts",
        f"  training          {report['tokens_seen']:,} tokens seen in {hours} hours",
    ]
    results = ("similarity", "cosine", "agreement", "output_r2")
    figures = [f"{name} {report[name]:.4f}" for name in results if report.get(name) is not None]
    if figures:
        lines.append(f"  held-out texts    {', '.join(figures)}")
    return lines


def _format_arrays(arrays: list[dict[str, Any]]) -> str:
    """Return a table of arrays."""
    rows = [
        (item["name"], str(tuple(item["shape"])), item["dtype"], f"{item['bytes']:,}")
        for item in arrays
    ]
    return format_table(("parameter", "shape", "dtype", "bytes"), rows)
