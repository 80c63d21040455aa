"""Folders of models in the published form: a config in JSON, and the weights.

::

    config.json                     config of the model, in the terms of arXiv 2212.14034
    model.safetensors               its arrays, by their published names
    model.safetensors.index.json    instead: the file of each array, if there are several files
"""

from __future__ import annotations

import json
import os
from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fffcpu.checkpoints.safetensors import SafetensorsFile, write_temporary
from fffcpu.config.bert import MODEL_TYPE, BertConfig
from fffcpu.config.encoder import EncoderConfig
from fffcpu.config.fastbert import FastBertConfig
from fffcpu.errors import CheckpointError, describe
from fffcpu.system.files import named_errors, read_json, write_in_folder, write_together

__all__ = [
    "CONFIG_FILE",
    "INDEX_FILE",
    "WEIGHTS_FILE",
    "open_config",
    "open_weights",
    "write_folder",
]

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
"""File that maps the names of a large model's arrays to the files that hold them."""

MODULES_FILE = "modules.json"
SENTENCE_FILE = "sentence_bert_config.json"
"""Files of sentence-transformers: what follows the encoder, and where it cuts texts."""

_POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "start"}
"""Our names of the poolings of sentence-transformers."""

_PICKLES = ("*.bin", "*.pt", "*.pth")
"""Weight files of PyTorch, which are Python pickles."""


def open_config(place: Path, dtype: DTypeLike = np.float32) -> FastBertConfig | BertConfig:
    """Return the config of the model in a folder: its ``model_type`` decides the class.

    Raises
    ------
    CheckpointError
        If there is none.
    OSError
        If the file cannot be read.
    """
    if place.is_file():
        raise CheckpointError(
            f"'{place}' must be a folder with '{CONFIG_FILE}' and '{WEIGHTS_FILE}', got a file"
        )
    path = place / CONFIG_FILE
    values = read_json(path)
    is_bert = isinstance(values, Mapping) and values.get("model_type") == MODEL_TYPE
    sentence = sentence_options(place) if is_bert and "fffcpu" not in values else {}
    with named_errors(path):
        if is_bert:
            return BertConfig.from_dict(values, sentence=sentence, dtype=dtype)
        return FastBertConfig.from_dict(values, dtype=dtype)


def sentence_options(place: Path) -> dict[str, Any]:
    """Return how a folder of sentence-transformers makes one vector of a text.

    ``modules.json`` lists what follows the encoder: a pooling, and maybe a normalization.

    Raises
    ------
    CheckpointError
        If something else follows, or another pooling.
    OSError
        If a file cannot be read.
    """
    options: dict[str, Any] = {}
    if (place / SENTENCE_FILE).exists():
        length = _entry(read_json(place / SENTENCE_FILE), "max_seq_length")
        options |= {} if length is None else {"cut": length}
    if not (place / MODULES_FILE).exists():
        return options
    modules = read_json(place / MODULES_FILE)
    for module in modules if isinstance(modules, list) else []:
        kind = str(_entry(module, "type")).rpartition(".")[2]
        if kind == "Pooling":
            folder = _entry(module, "path")
            if not _is_file_name(folder):
                raise CheckpointError(
                    f"file '{place / MODULES_FILE}' must name folders in its own, "
                    f"got {describe(folder)}"
                )
            options["pooling"] = _pooling(place / folder / CONFIG_FILE)
        elif kind == "Normalize":
            options["normalize"] = True
        elif kind != "Transformer":
            raise CheckpointError(
                f"file '{place / MODULES_FILE}' must list a Transformer, a Pooling and a "
                f"Normalize, got {describe(kind)}"
            )
    return options


def _pooling(path: Path) -> str:
    """Return the pooling that a file of sentence-transformers describes."""
    values = read_json(path)
    chosen = [name for name, on in values.items() if on is True] if _is_table(values) else []
    poolings = [name for name in chosen if name.startswith("pooling_mode_")]
    if len(poolings) != 1 or poolings[0] not in _POOLINGS:
        raise CheckpointError(
            f"file '{path}' must have one of {', '.join(_POOLINGS)}, got {describe(poolings)}"
        )
    return _POOLINGS[poolings[0]]


def _is_table(values: Any) -> bool:
    return isinstance(values, Mapping)


def _entry(values: Any, name: str) -> Any:
    """Return an entry of a table; None if there is no table, or no such entry."""
    return values.get(name) if _is_table(values) else None


def open_weights(place: Path) -> Mapping[str, NDArray[Any]]:
    """Return the arrays of the model in a folder by their published names, mapped from the disk.

    Raises
    ------
    CheckpointError
        If there are none, or a file is damaged.
    OSError
        If a file cannot be read.
    """
    path, index = place / WEIGHTS_FILE, place / INDEX_FILE
    if path.exists():
        return SafetensorsFile(path)
    if index.exists():
        return _joined([(name, SafetensorsFile(place / name)) for name in _shards(index)], place)
    pickles = sorted(found.name for pattern in _PICKLES for found in place.glob(pattern))
    if pickles:
        raise CheckpointError(
            f"folder '{place}' has no '{WEIGHTS_FILE}', but '{pickles[0]}', which is a Python "
            "pickle, as PyTorch writes it, and pickles are never opened here; convert it to "
            "safetensors first, as 'fffcpu convert --help' shows"
        )
    return SafetensorsFile(path)  # raises the error for a missing file


def _joined(shards: list[tuple[str, SafetensorsFile]], place: Path) -> Mapping[str, NDArray[Any]]:
    """Return the arrays of several files, each of which is in one file only."""
    owners: dict[str, str] = {}
    for shard, file in shards:
        for name in file:
            if name in owners:
                raise CheckpointError(
                    f"folder '{place}' must have array {describe(name)} in one file, "
                    f"got it in '{owners[name]}' and '{shard}'"
                )
            owners[name] = shard
    return ChainMap(*(file for _, file in shards))  # type: ignore[arg-type]


def _shards(index: Path) -> list[str]:
    """Return the names of the files that an index lists, all in its own folder."""
    values = read_json(index)
    table = values.get("weight_map") if isinstance(values, dict) else None
    names = list(table.values()) if isinstance(table, dict) else []
    if not names or not all(map(_is_file_name, names)):
        raise CheckpointError(f"file '{index}' must name files in its own folder in 'weight_map'")
    return sorted(set(names))


def _is_file_name(name: Any) -> bool:
    """Whether a value is the name of a file, without a folder, that a system can have."""
    if not isinstance(name, str) or Path(name).name != name or "\0" in name:
        return False
    try:
        os.fsencode(name)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def write_folder(
    place: Path,
    config: EncoderConfig,
    state: Mapping[str, NDArray[Any]],
    files: Mapping[str, str] | None = None,
) -> None:
    """Write a model to a folder, made if it is missing; all files appear complete or not at all.

    Parameters
    ----------
    place : Path
        The folder.
    config : EncoderConfig
        Config of the model.
    state : mapping of str to array
        Arrays of the model by their published names.
    files : mapping of str to str, optional
        Texts of further files by name, such as that of the tokenizer.

    Raises
    ------
    ArgumentError
        If a number is not finite.
    OSError
        If a file cannot be written. Old files are then unchanged.
    """
    texts = {CONFIG_FILE: f"{json.dumps(config.to_dict(), indent=2, sort_keys=True)}\n"}
    texts |= files or {}
    with (
        write_in_folder(place) as folder,
        write_together(*(folder / name for name in (WEIGHTS_FILE, *texts))) as (weights, *others),
    ):
        write_temporary(weights, state, {"format": "pt"})
        for path, text in zip(others, texts.values(), strict=True):
            path.write_text(text, encoding="utf-8")
