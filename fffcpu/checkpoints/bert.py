"""BERT, as Hugging Face's ``transformers`` names its arrays (arXiv 1810.04805).

State dicts are mappings from published names to arrays; see docs/formats.md. In those of a model
with a head, the encoder and the pooler have the prefix ``bert.``. Queries, keys and values are
three matrices there, and one here::

    theirs  attention.self.query.weight  ("AW", "D")
            attention.self.key.weight                   ours  weights_qkv (A, [q k v], W, D)
            attention.self.value.weight

Layers whose feedforwards are trees are ours alone. Their arrays have our names and shapes.

Shapes: V tokens, D width, A heads of width W, F neurons.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
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

__all__ = ["from_state_dict", "has_pooler", "views"]

Array = NDArray[Any]

PREFIX = "bert."
"""Beginning of the names of the encoder in a model with a head."""

_HEADS = ("pooler.", "cls.", "classifier.", "qa_outputs.", "dropout.")
"""Beginnings of the names of heads, and of other arrays of some programs."""

_HEAD_NAMES = ("cls.", "classifier.")
"""Beginnings of the names of heads, which have no prefix; the pooler has one."""

_BESIDE_MASKED_LM = ("pooler.", "cls.seq_relationship.")
"""Beginnings of the names of what was pretrained beside a masked language model."""

_POOLER = "pooler.dense.weight"

_PROJECTIONS = {
    "pooler": "pooler.dense",
    "head": "classifier",
    "decoder.transform": "cls.predictions.transform.dense",
}

_TWINS = {
    "cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
"""Second names of arrays, under which a file may hold them too, or only."""

_IGNORED = ("embeddings.position_ids",)
"""Arrays without information: the numbers from 0 on."""

_OLD = {"gamma": "weight", "beta": "bias"}
"""Ends of the names of norms in the first files, and what followed them."""

_NORMS = {
    "encoder.embedding.norm": "embeddings.LayerNorm",
    "encoder.layers.{}.norm1": "encoder.layer.{}.attention.output.LayerNorm",
    "encoder.layers.{}.norm2": "encoder.layer.{}.output.LayerNorm",
    "decoder.norm": "cls.predictions.transform.LayerNorm",
}

_EMBEDDING = {"words": "word", "positions": "position", "types": "token_type"}

_ATTENTION = ("query", "key", "value")

SCALE = "weight_scale"
"""Our end of the names of int8 weights' scales, which published models do not have."""


def from_state_dict(
    config: BertConfig, state: Mapping[str, Any], *, encoder_only: bool = False
) -> dict[str, Array]:
    """Return the parameters of a model from a published state dict.

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
        are missing, unexpected or of the wrong shape. Or if it holds the same weights twice, with
        different numbers.
    ArgumentTypeError
        If an argument has the wrong type.
    """
    check_mapping(state)
    check_fits(config, doing="reading ")
    shells = {_own_name(n): view for n, view in views(config, _shells(config)).items()}
    types = {name: shell.dtype.name for name, shell in shells.items()}
    expected = {
        name: type_text(shell.shape, types[name], types[name]) for name, shell in shells.items()
    }
    masked = config.head == "masked_lm"
    ignored = _HEADS if encoder_only else _BESIDE_MASKED_LM if masked else ()
    names = {_own_name(name): name for name in state}
    names = {own: n for own, n in names.items() if own in expected or not own.startswith(ignored)}
    if masked:
        _join_twins(names, state)
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
        _full_name(config, name): view.reshape(-1, *view.shape[2:]) if _is_split(name) else view
        for name, view in _split_views(config, ours).items()
    }


def has_pooler(names: Collection[str]) -> bool:
    """Whether a state dict with these names has a pooler."""
    return _POOLER in names or PREFIX + _POOLER in names


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
            if f"{ours.format(i)}.scale" in arrays:
                found[f"{theirs.format(i)}.weight"] = arrays[f"{ours.format(i)}.scale"]
                found[f"{theirs.format(i)}.bias"] = arrays[f"{ours.format(i)}.bias"]
    for ours, theirs in _PROJECTIONS.items():
        if f"{ours}.weights" in arrays:
            found[f"{theirs}.weight"] = arrays[f"{ours}.weights"]
            found[f"{theirs}.bias"] = arrays[f"{ours}.bias"]
    if "decoder.bias" in arrays:
        found["cls.predictions.bias"] = arrays["decoder.bias"]
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


def _join_twins(names: dict[str, str], state: Mapping[str, Any]) -> None:
    """Leave one name of weights that may be there twice; raise if their numbers differ."""
    for twin, own in _TWINS.items():
        if twin not in names:
            continue
        stored = names.pop(twin)
        if not np.array_equal(state[names.setdefault(own, stored)], state[stored]):
            raise CheckpointError(
                f"the state dict has different numbers for '{stored}' and '{names[own]}', "
                "which must be the same weights"
            )


def _full_name(config: BertConfig, name: str) -> str:
    """Return a name with the prefix that the encoder has in a model with a head."""
    alone = config.classes is None and config.head != "masked_lm"
    return name if alone or name.startswith(_HEAD_NAMES) else PREFIX + name


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
