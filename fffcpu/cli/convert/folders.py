"""The conversion of model folders by ``fffcpu convert``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.cli.support.outputs import check_folder, read_tokenizer, report_tokenizer
from fffcpu.errors import ArgumentError

__all__ = ["FORMATS", "convert_folder"]

FORMATS = ("crammed_bert", "crammed_bert_decoder", "bert")
"""A model folder's formats: a FastBERT without the decoder's weights (the word embedding's), a
FastBERT with both, and a BERT."""


def convert_folder(options: argparse.Namespace) -> None:
    """Write a folder's model to another folder."""
    from fffcpu.models.folders import open_config, open_weights
    from fffcpu.models.opening import model_class

    source, place = Path(options.file), Path(options.out)
    _check(options)
    check_folder(options.out, options.file, name="OUT")
    config = open_config(source)
    state = open_weights(source)
    found = _format(config, state)
    target = options.target or (FORMATS[0] if found in FORMATS[:2] else found)
    if options.source not in (None, found):
        raise ArgumentError(f"argument '--from' must be {found}, as IN is, got {options.source}")
    if (target == FORMATS[2]) != (found == FORMATS[2]):
        fits = FORMATS[2] if found == FORMATS[2] else " or ".join(FORMATS[:2])
        raise ArgumentError(f"argument '--to' must be {fits}, since IN is {found}, got {target}")
    if target == FORMATS[1] and config.classes is not None:
        raise ArgumentError(
            f"argument '--to' must be {FORMATS[0]} for a classifier, which has no decoder, "
            f"got {target}"
        )
    stored = _dtypes(state)
    dtype = np.float64 if "float64" in stored else np.float32
    model = model_class(config).from_pretrained(source, dtype)
    files = read_tokenizer(source)
    own: dict[str, Any] = {"store_decoder": True} if target == FORMATS[1] else {}
    model.save_pretrained(place, files=files, **own)
    tokenizer = report_tokenizer(place, files)
    print(f"{source} ({found}, {stored}) -> {place} ({target}, {model.config.dtype})")
    print(f"  {repr(model)[1:-1]}")
    print(f"  {tokenizer}")


def _check(options: argparse.Namespace) -> None:
    """Raise if an option is for layers only."""
    for name, value in (("--to", options.target), ("--from", options.source)):
        if value not in (None, *FORMATS):
            raise ArgumentError(
                f"argument '{name}' must be {', '.join(FORMATS[:-1])} or {FORMATS[-1]} where IN "
                f"is a folder, got {value}"
            )
    for name in ("depth", "trees", "activation"):
        if getattr(options, name) is not None:
            raise ArgumentError(
                f"argument '--{name}' must be left out where IN is a folder, because its "
                f"'config.json' determines it, got {getattr(options, name)!r}"
            )
    if options.out.endswith(".safetensors"):
        raise ArgumentError(f"argument 'OUT' must be a folder, as IN is, got '{options.out}'")


def _format(config: Any, state: Mapping[str, Any]) -> str:
    """Return the format of a folder."""
    from fffcpu.config.bert import BertConfig

    return FORMATS[2] if isinstance(config, BertConfig) else FORMATS["decoder.weight" in state]


def _dtypes(state: Mapping[str, NDArray[Any]]) -> str:
    """Return the dtypes of a state dict; bfloat16 is reported as float32, as it is read."""
    return ", ".join(sorted({str(array.dtype) for array in state.values()}))
