"""``fffcpu convert``: published formats to files of fffcpu, and back; folders of models."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.checkpoints import fastfeedforward, native, ultrafastbert, ultrafastbert_bmm
from fffcpu.checkpoints.safetensors import SafetensorsFile, write_tensors
from fffcpu.cli.convert.folders import FORMATS, convert_folder
from fffcpu.cli.support.outputs import check_output
from fffcpu.config import FastFeedForwardConfig, LayerConfig, LeafFeedForwardConfig
from fffcpu.errors import ArgumentError, CheckpointError, describe
from fffcpu.inference.predictor import NOTE
from fffcpu.system.memory import check_memory

__all__ = ["DESCRIPTION", "add_arguments", "run"]

Arrays = Mapping[str, NDArray[Any]]

NATIVE = "native"
PUBLISHED: dict[str, ModuleType] = {
    "ultrafastbert": ultrafastbert,
    "ultrafastbert_bmm": ultrafastbert_bmm,
    "fastfeedforward": fastfeedforward,
}
"""The modules that translate state dicts, by format."""

UNDETERMINED = {
    "ultrafastbert": ("depth", "trees", "activation"),
    "fastfeedforward": ("activation",),
}
"""Fields that the files of a format do not store, and options give."""

DESCRIPTION = """\
Convert one layer from a published format to a file of fffcpu, or from a file of fffcpu to a
published format. All are safetensors files: a published one holds the state dict of one layer, with
the published names. IN is read before OUT is written, and OUT appears complete or not at all.
If IN is a folder, its whole model is written to the folder OUT.

formats of layers:
  native             files of fffcpu: what a layer's save writes
  ultrafastbert      UltraFastBERT's training layer: linear_in, linear_out (FastFeedForward)
  ultrafastbert_bmm  UltraFastBERT's inference benchmark layer: w1s, w2s (FastFeedForward)
  fastfeedforward    the fastfeedforward package's layer: node_weights, w1s, b1s (LeafFeedForward)

formats of folders (config.json and model.safetensors, in one file or in several with an index):
  crammed_bert          without the decoder, whose weights are the word embedding's (default)
  crammed_bert_decoder  with the decoder, for programs that look for every name
  bert                  a BERT of Hugging Face; what this package does not use is left out
OUT's numbers are float32, or float64 if any of IN's are. tokenizer.json is copied. A model in OUT
is replaced, with its tokenizer.

examples:
  fffcpu convert published.safetensors layer.safetensors --depth 11
  fffcpu convert leaves.safetensors layer.safetensors --activation gelu
  fffcpu convert layer.safetensors published.safetensors --to ultrafastbert
  fffcpu convert published-folder/ model/
  fffcpu convert model/ for-pytorch/ --to crammed_bert_decoder

The names of IN's arrays determine its format. From the state dict of a whole model, extract one
layer first, and remove the prefix of its names; docs/formats.md shows how. PyTorch's own files
(.pt, .pth, .bin) are pickles, which can run any code when they are opened, so they are rejected.
Convert a layer to safetensors where PyTorch is installed:
  python -c "import torch, safetensors.torch as s; s.save_file(
      torch.load('layer.pt', weights_only=True), 'layer.safetensors')"
Convert a model in its folder, without the decoder, which shares the word embedding's memory:
  python -c "import torch, safetensors.torch as s; d = torch.load(
      'pytorch_model.bin', weights_only=True); d.pop('decoder.weight', None); s.save_file(
      d, 'model.safetensors')"

how to read the output: each line names a difference between the two formats other than names.
Numbers in float32 or float64 do not change: a layer that is converted back has the same bits.
Numbers in bfloat16 become float32.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("file", metavar="IN", help="a safetensors file with one layer, or a folder")
    parser.add_argument("out", metavar="OUT", help="the .safetensors file or folder to write")
    names = (NATIVE, *PUBLISHED, *FORMATS)
    parser.add_argument(
        "--from",
        dest="source",
        choices=names,
        metavar="FORMAT",
        help="format of IN (default: by the names of its arrays)",
    )
    parser.add_argument(
        "--to",
        dest="target",
        choices=names,
        metavar="FORMAT",
        help="format of OUT (native, or for a folder crammed_bert or bert, as IN is)",
    )
    parser.add_argument(
        "--depth",
        type=int,
        metavar="D",
        help="depth of IN's trees, which ultrafastbert does not store",
    )
    parser.add_argument(
        "--trees", type=int, metavar="T", help="number of IN's trees; this or --depth is enough"
    )
    parser.add_argument(
        "--activation",
        metavar="NAME",
        help="activation of IN's layer, which ultrafastbert (gelu) and fastfeedforward (relu) do "
        "not store",
    )


def run(options: argparse.Namespace) -> None:
    """Convert."""
    if os.path.isdir(options.file):
        convert_folder(options)
        return
    if not options.out.endswith(".safetensors"):
        raise ArgumentError(f"argument 'OUT' must end in .safetensors, got '{options.out}'")
    check_output(options.out)
    for name, value in (("--to", options.target), ("--from", options.source)):
        if value in FORMATS:
            raise ArgumentError(
                f"argument '{name}' must be the format of a layer where IN is a file, got {value}"
            )
    source, target = options.source or _recognise(options.file), options.target or NATIVE
    if source == target:
        raise ArgumentError(
            f"argument '--to' must be another format than IN's, got {target} for both"
        )
    config, arrays = _read(options, source)
    notes = _notes(options, source, target, config)
    if target == NATIVE:
        native.save(options.out, config, arrays)
    else:
        state = _to_state_dict(options.file, target, config, arrays)
        write_tensors(options.out, dict(sorted(state.items())))
    fields = ", ".join(f"{name} {value}" for name, value in config.to_dict().items())
    print(f"{options.file} ({source}) -> {options.out} ({target})")
    print(f"  {config.kind}: {fields}")
    for note in notes:
        print(f"  {note}")


def _recognise(path: str) -> str:
    """Return the format of a safetensors file, by its metadata and names."""
    if native.read_note(path, native.METADATA_KEY) is not None:
        return NATIVE
    names = set(SafetensorsFile(path))
    if "linear_in.weight" in names:
        return "ultrafastbert"
    # At depth 0 there need be no gates, but the leaves have biases.
    if names & {"node_weights", "b1s"}:
        return "fastfeedforward"
    if names >= {"w1s", "w2s"}:
        return "ultrafastbert_bmm"
    raise CheckpointError(
        f"file {path!r} must hold one layer of a known format ({', '.join((NATIVE, *PUBLISHED))}), "
        f"got the names {describe(sorted(names))[:200]}; 'fffcpu convert --help' describes them"
    )


def _read(options: argparse.Namespace, source: str) -> tuple[LayerConfig, Arrays]:
    """Return the layer in IN."""
    names = ("depth", "trees", "activation")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    for name, value in given.items():
        if name not in UNDETERMINED.get(source, ()):
            raise ArgumentError(
                f"argument '--{name}' must be left out, because format {source} determines it, "
                f"got {describe(value)}"
            )
    if source == NATIVE:
        return native.load(options.file)
    stored = SafetensorsFile(options.file)
    check_memory(2 * os.path.getsize(options.file), f"converting file {options.file!r}")
    # Copies, because OUT may be IN, and some systems cannot replace a mapped file.
    state = {name: np.array(array) for name, array in stored.items()}
    module = PUBLISHED[source]
    try:
        config: LayerConfig = module.infer_config(state, **given)
        return config, module.from_state_dict(config, state)
    except CheckpointError as error:
        raise CheckpointError(f"file {options.file!r}: {error}") from error


def _to_state_dict(path: str, target: str, config: LayerConfig, arrays: Arrays) -> Arrays:
    """Return the state dict of a layer; raise if the format cannot hold it."""
    module = PUBLISHED[target]
    kind = module.KEY_MAP.config_type
    if type(config) is not kind:
        raise CheckpointError(
            f"file {path!r} must hold a {kind.kind} to become {target}, got a {config.kind}"
        )
    state: Arrays = module.to_state_dict(config, arrays)
    return state


def _notes(options: argparse.Namespace, source: str, target: str, config: LayerConfig) -> list[str]:
    """Return the differences between the formats, other than names, that affect this layer."""
    notes = [_ties(name, config) for name in (source, target) if name != NATIVE]
    if "fastfeedforward" in (source, target):
        notes.append(
            "output biases: the published inference leaves b2s out; LeafFeedForward adds them, as "
            "published training does"
        )
    if "activation" in UNDETERMINED.get(source, ()) and options.activation is None:
        notes.append(
            f"activation: taken to be {config.activation}, which IN does not store (--activation)"
        )
    if "activation" in UNDETERMINED.get(target, ()):
        notes.append(f"activation: {config.activation}, which OUT does not store")
    biased = not isinstance(config, FastFeedForwardConfig) or config.bias
    if not biased and "ultrafastbert" in (source, target):
        notes.append("biases: there is no linear_in.bias; the published layer always has one")
    if target == "ultrafastbert" and config.input_dim != config.output_dim:
        notes.append("widths: the published layer runs only if input and output are equally wide")
    return notes + (_schema_notes(options.file, config) if source == NATIVE else [])


def _schema_notes(path: str, config: LayerConfig) -> list[str]:
    """Return what a published format cannot hold of a predictor."""
    schema = native.read_note(path, NOTE)
    if schema is None:
        return []
    lost = (
        "schema: names of classes and features, and the offset of a regression's outputs, "
        "are not part of OUT's format"
    )
    notes = [lost]
    if schema.get("columns"):
        notes.append(
            "columns: categories, dates, filled values, limits and exact scaling are not part of "
            f"OUT's format; the published layer takes the {config.input_dim} inputs that the "
            "columns become (Predictor.schema.encoding)"
        )
    return notes


def _ties(name: str, config: LayerConfig) -> str:
    """Return a line on whether a format and a layer send a logit of 0 to the same side."""
    theirs, own = (
        PUBLISHED[name].TIE_RULE,
        ">=" if isinstance(config, LeafFeedForwardConfig) else ">",
    )
    if theirs == own:
        return f"ties: {name} and {config.kind} go right on logit {own} 0"
    return (
        f"ties: {name} goes right on logit {theirs} 0, {config.kind} on logit {own} 0; a row with "
        "a logit of exactly 0 takes the other path"
    )
