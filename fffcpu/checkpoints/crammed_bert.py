"""The models of UltraFastBERT: a crammedBERT whose feedforwards may be FastFeedForward layers.

Published with "Exponentially Faster Language Modelling" (Belcak and Wattenhofer, 2023,
arXiv:2311.10770), after "Cramming" (Geiping and Goldstein, 2022, arXiv:2212.14034). The decoder of
the masked language model has the weights of the word embedding; a state dict holds them under one
of the two names, or both.

State dicts are mappings from published names to arrays; see docs/formats.md. The config determines
the model: a masked language model, or with ``classes`` a classifier.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.checkpoints.differences import check_arrays, list_differences
from fffcpu.checkpoints.keymap import Entry, as_array, check_mapping, shape_text, type_text
from fffcpu.config.fastbert import FastBertConfig
from fffcpu.config.memory import check_fits
from fffcpu.errors import ArgumentTypeError, CheckpointError, describe
from fffcpu.lowbit import numpy_dtype
from fffcpu.parameters import aligned_empty

__all__ = [
    "CLASSIFIER",
    "DENSE_FEEDFORWARD",
    "DENSE_SCALES",
    "ENCODER",
    "FAST_FEEDFORWARD",
    "FAST_SCALES",
    "LAYER",
    "LAYER_SCALES",
    "TWO_SIDED_FEEDFORWARD",
    "TWO_SIDED_SCALES",
    "entries",
    "from_state_dict",
    "to_state_dict",
    "views",
]

ENCODER = (
    Entry("embedding.word_embedding.weight", ("V", "D"), "embedding.words", "VD"),
    Entry("embedding.pos_embedding.scale_factor", ("U",), "embedding.position_scale", "U"),
    Entry("embedding.norm.weight", ("D",), "embedding.norm.scale", "D"),
    Entry("embedding.norm.bias", ("D",), "embedding.norm.bias", "D"),
    Entry("final_norm.weight", ("D",), "final_norm.scale", "D"),
    Entry("final_norm.bias", ("D",), "final_norm.bias", "D"),
)
"""Names and axes of the encoder, without the layers; all names start with ``encoder.``."""

LAYER = (
    Entry("norm1.weight", ("D",), "norm1.scale", "D"),
    Entry("norm1.bias", ("D",), "norm1.bias", "D"),
    Entry("attn.self_attention.query_key_value.weight", ("P", "D"), "attention.weights_qkv", "PD"),
    Entry("attn.dense.weight", ("D", "C"), "attention.weights_out", "DC"),
    Entry("norm2.weight", ("D",), "norm2.scale", "D"),
    Entry("norm2.bias", ("D",), "norm2.bias", "D"),
)
"""Names and axes of a layer, without the feedforward; all names start with ``encoder.layers.``, its
number and a dot."""

FAST_FEEDFORWARD = (
    Entry("ffn.linear_in.weight", ("TN", "I"), "feedforward.weights_in", "TNI"),
    Entry("ffn.linear_in.bias", ("TN",), "feedforward.bias_in", "TN"),
    Entry("ffn.linear_out.weight", ("O", "TN"), "feedforward.weights_out", "TNO"),
)
"""Names and axes of a layer's FastFeedForward, as in `fffcpu.checkpoints.ultrafastbert`."""

TWO_SIDED_FEEDFORWARD = (
    *FAST_FEEDFORWARD[:2],
    Entry("ffn.linear_out.weight", ("O", "TNS"), "feedforward.weights_out", "TNSO"),
)
"""The same for two-sided nodes, which published models do not have: two columns per node."""

DENSE_FEEDFORWARD = (
    Entry("ffn.dense_in.weight", ("W", "I"), "feedforward.weights_in", "WI"),
    Entry("ffn.dense_out.weight", ("O", "W"), "feedforward.weights_out", "WO"),
)
"""Names and axes of a layer's dense feedforward."""

LAYER_SCALES = (
    Entry("attn.self_attention.query_key_value.weight_scale", ("P",), "attention.scale_qkv", "P"),
    Entry("attn.dense.weight_scale", ("D",), "attention.scale_out", "D"),
)
"""The scales of int8 weights, which published models do not have; for a layer's attention."""

FAST_SCALES = (
    Entry("ffn.linear_in.weight_scale", ("TN",), "feedforward.scale_in", "TN"),
    Entry("ffn.linear_out.weight_scale", ("TN",), "feedforward.scale_out", "TN"),
)
TWO_SIDED_SCALES = (
    FAST_SCALES[0],
    Entry("ffn.linear_out.weight_scale", ("TNS",), "feedforward.scale_out", "TNS"),
)
DENSE_SCALES = (
    Entry("ffn.dense_in.weight_scale", ("W",), "feedforward.scale_in", "W"),
    Entry("ffn.dense_out.weight_scale", ("O",), "feedforward.scale_out", "O"),
)
"""The scales of a layer's feedforward, for each of its types."""

CLASSIFIER = (
    Entry("pooler.dense.weight", ("H", "D"), "pooler.weights", "HD"),
    Entry("pooler.dense.bias", ("H",), "pooler.bias", "H"),
    Entry("head.weight", ("C", "H"), "head.weights", "CH"),
    Entry("head.bias", ("C",), "head.bias", "C"),
)
"""Names and axes of a classifier's head."""

_WORDS = "encoder.embedding.word_embedding.weight"
_DECODER = "decoder.weight"
_NORM_FACTOR = "encoder.layers.{}.attn.self_attention.norm_factor"
"""Name of the factor of attention's scores, 1 / sqrt(head width), stored next to the weights."""

_FACTOR_MARGIN = 0.01
"""Tolerance for a stored factor, which may be rounded to bfloat16."""

_HEADS = ("decoder.", "pooler.", "head.")
"""Prefixes of the names of heads."""


def entries(config: FastBertConfig) -> list[Entry]:
    """Return the key map of a model, in the order of ``config.shapes()``."""
    feedforward: tuple[Entry, ...] = DENSE_FEEDFORWARD
    scales: tuple[Entry, ...] = DENSE_SCALES
    if config.feedforward == "fff":
        feedforward = TWO_SIDED_FEEDFORWARD if config.two_sided else FAST_FEEDFORWARD
        scales = TWO_SIDED_SCALES if config.two_sided else FAST_SCALES
    if config.weights is not None:
        feedforward += LAYER_SCALES + scales
    found = [_under("encoder.", entry) for entry in ENCODER]
    for i in range(config.layers):
        found += [_under(f"encoder.layers.{i}.", entry) for entry in LAYER + feedforward]
    found += CLASSIFIER if config.classes is not None else ()
    by_name = {entry.ours: entry for entry in found}
    return [by_name[name] for name in config.shapes()]


def from_state_dict(
    config: FastBertConfig, state: Mapping[str, Any], *, encoder_only: bool = False
) -> dict[str, NDArray[Any]]:
    """Return the parameters of a model from a published state dict.

    Parameters
    ----------
    config : FastBertConfig
        Config of the model.
    state : mapping of str to array
        Arrays by published names, as docs/formats.md lists them. They are looked up one after the
        other, so a mapping that reads them on demand never has all of them in memory.
    encoder_only : bool
        Whether to ignore arrays of a head; ``config.classes`` must then be None.

    Returns
    -------
    dict of str to array
        Copies with ``config.shapes()`` and ``config.dtype``, aligned to cache lines.

    Raises
    ------
    CheckpointError
        If the state dict is not that of such a model. The message lists all differences: names that
        are missing, unexpected or of the wrong shape, and factors and decoders with wrong numbers.
    ArgumentTypeError
        If an argument has the wrong type.
    """
    _check_config(config)
    check_mapping(state)
    key_map, shapes, dtypes = entries(config), config.shapes(), config.dtypes()
    _check_state(config, key_map, state, encoder_only)
    check_fits(config, doing="reading ")
    arrays = {}
    for entry in key_map:
        key = _DECODER if entry.theirs == _WORDS and _WORDS not in state else entry.theirs
        array = aligned_empty(shapes[entry.ours], numpy_dtype(dtypes[entry.ours]))
        array[...] = entry.to_ours(as_array(key, state[key]), array.shape)
        arrays[entry.ours] = array
    return arrays


def to_state_dict(
    config: FastBertConfig, arrays: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Return a published state dict, the inverse of ``from_state_dict``.

    Parameters
    ----------
    config : FastBertConfig
        Config of the model.
    arrays : mapping of str to array
        Parameters of the model, or their gradients.

    Returns
    -------
    dict of str to array
        Copies, by published name. The decoder, which has the weights of the word embedding, has no
        array of its own. The factors of attention, which are not parameters, are included.

    Raises
    ------
    CheckpointError
        If the arrays do not fit the config.
    ArgumentTypeError
        If the config is not that of a model.
    """
    return {name: np.array(array, order="C") for name, array in views(config, arrays).items()}


def views(config: FastBertConfig, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the result of `to_state_dict`, but with views of the arrays instead of copies."""
    _check_config(config)
    ours = check_arrays(config, arrays)
    state = {entry.theirs: entry.to_theirs(ours[entry.ours]) for entry in entries(config)}
    factor = np.array(_factor(config), config.dtype)
    return state | {_NORM_FACTOR.format(i): factor for i in range(config.layers)}


def _under(prefix: str, entry: Entry) -> Entry:
    """Return an entry with a prefix before both names."""
    return entry._replace(theirs=prefix + entry.theirs, ours=prefix + entry.ours)


def _factor(config: FastBertConfig) -> float:
    return 1 / math.sqrt(config.width // config.heads)


def _check_config(config: Any) -> None:
    """Raise unless the config is that of a model."""
    if not isinstance(config, FastBertConfig):
        raise ArgumentTypeError(
            f"argument 'config' must be a FastBertConfig, got {describe(config)}"
        )


def _check_state(
    config: FastBertConfig, key_map: list[Entry], state: Mapping[str, Any], encoder_only: bool
) -> None:
    """Raise unless a state dict is that of a model of this config, without reading weights."""
    shapes, dtypes = config.shapes(), config.dtypes()
    types = {entry.theirs: dtypes[entry.ours] for entry in key_map}
    expected = {
        entry.theirs: type_text(entry.their_shape(shapes[entry.ours]), own, own)
        for entry, own in zip(key_map, types.values(), strict=True)
    }
    twice = _DECODER in state and _WORDS in state and config.classes is None
    if twice:
        expected[_DECODER] = expected[_WORDS]
    elif _DECODER in state and config.classes is None:
        expected[_DECODER] = expected.pop(_WORDS)
    came = {}
    for name in state:
        if not (encoder_only and name.startswith(_HEADS) and name not in expected):
            array = as_array(name, state[name]) if name in expected else None
            came[name] = "" if array is None else shape_text(array, types.get(name, ""))
    for name, value in _factors(config, state):
        expected[name] = f"a factor of {_factor(config):.6g}"
        close = math.isclose(value, _factor(config), rel_tol=_FACTOR_MARGIN)
        came[name] = expected[name] if close else f"a factor of {value:.6g}"
    differences = list_differences(expected, came)
    if differences:
        raise CheckpointError(f"the state dict is not a crammedBERT of {config}: {differences}")
    if twice and not np.array_equal(state[_DECODER], state[_WORDS]):
        raise CheckpointError(
            f"the state dict has different numbers for '{_DECODER}' and '{_WORDS}', "
            "which must be the same weights"
        )


def _factors(config: FastBertConfig, state: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the name and value of each stored factor of attention; NaN if it is not a number."""
    for i in range(config.layers):
        name = _NORM_FACTOR.format(i)
        if name in state:
            array = as_array(name, state[name])
            number = array.size == 1 and array.dtype.kind in "fiu"
            yield name, float(array.reshape(())) if number else math.nan
