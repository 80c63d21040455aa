"""BERT, as Hugging Face's ``transformers`` names its arrays (arXiv 1810.04805).

State dicts are mappings from published names to arrays; see docs/formats.md. Those of a model with
a head have the prefix ``bert.``. Queries, keys and values are three matrices there, and one here::

    theirs  attention.self.query.weight  ("AW", "D")
            attention.self.key.weight                   ours  weights_qkv (A, [q k v], W, D)
            attention.self.value.weight

Layers whose feedforwards are trees are ours alone. Their arrays have our names and shapes.

Shapes: V tokens, D width, A heads of width W, F neurons.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.checkpoints.differences import check_arrays, list_differences
from fffcpu.checkpoints.keymap import as_array, check_mapping, shape_text, type_text
from fffcpu.config.bert import BertConfig
from fffcpu.config.memory import check_fits
from fffcpu.errors import CheckpointError
from fffcpu.lowbit import numpy_dtype
from fffcpu.parameters import aligned_empty

__all__ = ["from_state_dict", "views"]

Array = NDArray[Any]

PREFIX = "bert."
"""Beginning of the names of the encoder in a model with a head."""

_HEADS = ("pooler.", "cls.", "classifier.", "qa_outputs.", "dropout.")
"""Beginnings of the names of heads, and what some programs keep beside them."""

_IGNORED = ("embeddings.position_ids",)
"""Arrays that say nothing: the numbers from 0 on."""

_OLD = {"gamma": "weight", "beta": "bias"}
"""Ends of the names of norms in the first files, and what followed them."""

_NORMS = {
    "encoder.embedding.norm": "embeddings.LayerNorm",
    "encoder.layers.{}.norm1": "encoder.layer.{}.attention.output.LayerNorm",
    "encoder.layers.{}.norm2": "encoder.layer.{}.output.LayerNorm",
}

_EMBEDDING = {"words": "word", "positions": "position", "types": "token_type"}

_ATTENTION = ("query", "key", "value")

SCALE = "weight_scale"
"""Our end of the names of int8 weights' scales, which published models do not have."""


def from_state_dict(
    config: BertConfig, state: Mapping[str, Any], *, encoder_only: bool = False
) -> dict[str, Array]:
    """Return the parameters of an encoder from a published state dict.

    Parameters
    ----------
    config : BertConfig
        Config of the model.
    state : mapping of str to array
        Arrays by published names.
    encoder_only : bool
        Whether to ignore arrays of a head.

    Returns
    -------
    dict of str to array
        Copies with ``config.shapes()`` and ``config.dtype``, aligned to cache lines.

    Raises
    ------
    CheckpointError
        If the state dict is not that of such a model. The message lists all differences: names that
        are missing, unexpected or of the wrong shape.
    ArgumentTypeError
        If an argument has the wrong type.
    """
    check_mapping(state)
    check_fits(config, doing="reading ")
    names = {_own_name(name): name for name in state}
    if encoder_only:
        names = {own: name for own, name in names.items() if not own.startswith(_HEADS)}
    shells = views(config, _shells(config))
    types = {name: shell.dtype.name for name, shell in shells.items()}
    expected = {
        name: type_text(shell.shape, types[name], types[name]) for name, shell in shells.items()
    }
    came = {
        own: shape_text(as_array(name, state[name]), types[own]) if own in shells else ""
        for own, name in names.items()
        if own not in _IGNORED
    }
    if differences := list_differences(expected, came):
        raise CheckpointError(f"the state dict is not a BERT of {config}: {differences}")
    dtypes = config.dtypes()
    arrays = {
        name: aligned_empty(shape, numpy_dtype(dtypes[name]))
        for name, shape in config.shapes().items()
    }
    for name, view in _split_views(config, arrays).items():
        view[...] = as_array(name, state[names[name]]).reshape(view.shape)
    return arrays


def views(config: BertConfig, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return the published arrays of a model: views of ours, and copies where axes join."""
    ours = check_arrays(config, arrays)
    return {
        name: view.reshape(-1, *view.shape[2:]) if _is_split(name) else view
        for name, view in _split_views(config, ours).items()
    }


def _split_views(config: BertConfig, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return views of our arrays by published names; queries, keys and values have axes (A, W)."""
    found = {
        f"embeddings.{theirs}_embeddings.weight": arrays[f"encoder.embedding.{ours}"]
        for ours, theirs in _EMBEDDING.items()
    }
    for i in range(config.layers):
        found |= dict(_layer_views(config, arrays, i))
    for ours, theirs in _NORMS.items():
        for i in range(config.layers if "{}" in ours else 1):
            found[f"{theirs.format(i)}.weight"] = arrays[f"{ours.format(i)}.scale"]
            found[f"{theirs.format(i)}.bias"] = arrays[f"{ours.format(i)}.bias"]
    return found


def _layer_views(
    config: BertConfig, arrays: Mapping[str, Array], number: int
) -> Iterator[tuple[str, Array]]:
    """Yield the published names of a layer, and views of our arrays."""
    ours, theirs = f"encoder.layers.{number}", f"encoder.layer.{number}"
    kinds = [("weights", "weight"), ("bias", "bias")]
    if config.weights is not None:
        kinds.append(("scale", SCALE))
    for kind, name in kinds:
        fused = arrays[f"{ours}.attention.{kind}_qkv"]
        heads = fused.reshape(config.heads, 3, -1, *fused.shape[1:])
        for k, part in enumerate(_ATTENTION):
            yield f"{theirs}.attention.self.{part}.{name}", heads[:, k]
        out = arrays[f"{ours}.attention.{kind}_out"]
        yield f"{theirs}.attention.output.dense.{name}", out
    own = f"{ours}.feedforward"
    if config.feedforward == "ff":
        yield f"{theirs}.intermediate.dense.weight", arrays[f"{own}.weights_in"]
        yield f"{theirs}.intermediate.dense.bias", arrays[f"{own}.bias_in"]
        yield f"{theirs}.output.dense.weight", arrays[f"{own}.weights_out"].T
        if config.weights is not None:
            yield f"{theirs}.intermediate.dense.{SCALE}", arrays[f"{own}.scale_in"]
            yield f"{theirs}.output.dense.{SCALE}", arrays[f"{own}.scale_out"]
    else:
        for name in config.modules()[own].shapes():
            yield f"{theirs}.feedforward.{name}", arrays[f"{own}.{name}"]
    yield f"{theirs}.output.dense.bias", arrays[f"{ours}.bias_out"]


def _is_split(name: str) -> bool:
    return ".attention.self." in name


def _own_name(name: str) -> str:
    """Return a name without the prefix of models with a head, as newer files write it."""
    own = name.removeprefix(PREFIX)
    stem, _, end = own.rpartition(".")
    return f"{stem}.{_OLD[end]}" if end in _OLD and stem.endswith("LayerNorm") else own


def _shells(config: BertConfig) -> dict[str, Array]:
    """Return arrays of the shapes of a config that take no memory."""
    dtypes = config.dtypes()
    return {
        name: np.broadcast_to(np.zeros((), numpy_dtype(dtypes[name])), shape)
        for name, shape in config.shapes().items()
    }
