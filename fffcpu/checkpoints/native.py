"""The project's own files: a safetensors file that holds one layer, with config and parameters.

The metadata has one key, ``fffcpu``, whose value is a JSON text::

    {"config": {...}, "kind": "FastFeedForward", "version": 1}

The config determines the name, shape and dtype of every tensor. ``load`` compares all of them with
the file's header before it reads, or allocates memory for, any number. docs/formats.md describes
the format byte by byte; `fffcpu.checkpoints.safetensors` reads and writes it.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.checkpoints.differences import check_arrays, list_differences
from fffcpu.checkpoints.safetensors import DTYPES, read_array, read_header, write_tensors
from fffcpu.config import (
    DenseFeedForwardConfig,
    FastFeedForwardConfig,
    LayerConfig,
    LeafFeedForwardConfig,
    QuantizedDenseFeedForwardConfig,
    QuantizedFastFeedForwardConfig,
    QuantizedLeafFeedForwardConfig,
)
from fffcpu.config.memory import check_fits
from fffcpu.errors import ArgumentTypeError, CheckpointError, describe
from fffcpu.system.files import named_errors, open_regular, parse_json

__all__ = [
    "FORMER_ARRAYS",
    "KINDS",
    "METADATA_KEY",
    "READ_VERSIONS",
    "VERSION",
    "load",
    "read_note",
    "read_notes",
    "save",
]

METADATA_KEY = "fffcpu"
"""Metadata key that identifies a safetensors file as one of ours."""

VERSION = 3
"""The newest version of the format. ``save`` writes it for two-sided layers, 2 for other int8
layers, and 1 for all others, so that older programs read what they can."""

READ_VERSIONS = (1, 2, 3)
"""Versions of the format that ``load`` reads."""

KINDS: Mapping[str, type[LayerConfig]] = MappingProxyType(
    {
        config.kind: config
        for config in (
            FastFeedForwardConfig,
            LeafFeedForwardConfig,
            DenseFeedForwardConfig,
            QuantizedDenseFeedForwardConfig,
            QuantizedFastFeedForwardConfig,
            QuantizedLeafFeedForwardConfig,
        )
    }
)
"""Config class by name of the layer's class."""

FORMER_ARRAYS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "terms": ("scale_in", "bias_in", "scale_out"),
        "leaf_terms": ("leaf_scale_in", "leaf_bias_in", "leaf_scale_out"),
    }
)
"""Arrays of int8 layers that version 1 stores as one array, concatenated along its last axis."""

FIRST_VERSIONS: Mapping[str, int] = MappingProxyType({"QuantizedDenseFeedForward": 2})
"""First version of the format that has a layer, if it is not 1."""

ADDED_IN = 3
"""Version from which on files have `ADDED_FIELDS`."""

ADDED_FIELDS: Mapping[str, Any] = MappingProxyType({"two_sided": False})
"""Fields of configs that files before version 3 do not have, and the values that they mean."""

_IMPORTERS = (
    "read it with safetensors.numpy.load_file and convert its arrays with from_state_dict of "
    "fffcpu.checkpoints.ultrafastbert, ultrafastbert_bmm or fastfeedforward, as its format requires"
)


def save(
    path: str | os.PathLike[str],
    config: LayerConfig,
    arrays: Mapping[str, NDArray[Any]],
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write one layer to a file, replacing an old file only after all is on the disk.

    Parameters
    ----------
    path : str or path
        Path of the file, in an existing folder.
    config : LayerConfig
        Config of the layer.
    arrays : mapping of str to array
        Parameters of the layer, with ``config.shapes()`` and ``config.dtypes()``.
    notes : mapping of str to str, optional
        Further metadata, for `read_note`; ``load`` ignores it.

    Raises
    ------
    ArgumentTypeError
        If ``config`` is not a layer's config.
    CheckpointError
        If the arrays do not fit the config.
    OSError
        If the file cannot be written: FileNotFoundError without the folder, IsADirectoryError,
        PermissionError and so on. An old file is then unchanged.
    """
    if type(config) not in KINDS.values():
        raise ArgumentTypeError(f"argument 'config' must be a layer's, got {describe(config)}")
    checked = check_arrays(config, arrays)
    metadata = {METADATA_KEY: _describe_layer(config), **(notes or {})}
    write_tensors(path, dict(sorted(checked.items())), metadata, config.dtypes())


def load(path: str | os.PathLike[str]) -> tuple[LayerConfig, dict[str, NDArray[Any]]]:
    """Read a layer that ``save`` wrote.

    Everything is checked against the file's size and header before any array is allocated.

    Parameters
    ----------
    path : str or path
        Path of the file.

    Returns
    -------
    config : LayerConfig
        Config, of a class in ``KINDS``.
    arrays : dict of str to array
        Parameters with ``config.shapes()``, in that order, and ``config.dtypes()``.

    Raises
    ------
    CheckpointError
        If the file is damaged, of another program or another version, a pickle, or does not hold
        the arrays of its config; the message names the file and the error.
    OSError
        If the file cannot be read: FileNotFoundError, IsADirectoryError and so on.
    """
    with named_errors(path), open_regular(path) as file:
        header = read_header(file)
        config, version = _parse_layer(header.metadata)
        shapes = _stored_shapes(config, version)
        _check_tensors(config, shapes, header.entries)
        tensors = header.tensors()
        check_fits(config, doing="reading ")
        arrays = {name: read_array(file, tensors[name]) for name in shapes}
    for name in set(FORMER_ARRAYS) & set(arrays):
        columns = np.moveaxis(arrays[name], -1, 0)
        arrays.update(zip(FORMER_ARRAYS[name], map(np.ascontiguousarray, columns), strict=True))
    return config, {name: arrays[name] for name in config.shapes()}


def read_note(path: str | os.PathLike[str], key: str) -> Any:
    """Return the value of a note in a layer's file, parsed as JSON.

    Parameters
    ----------
    path : str or path
        A file that ``load`` reads.
    key : str
        Name of the note.

    Returns
    -------
    object
        Value of the JSON text; None if there is no such note.

    Raises
    ------
    CheckpointError, OSError
        Same as for ``load``, as far as the header is concerned; also if the note is not JSON.
    """
    return read_notes(path, key)[key]


def read_notes(path: str | os.PathLike[str], *keys: str) -> dict[str, Any]:
    """Return the values of several notes by their names, as `read_note` does, in one reading.

    Raises
    ------
    CheckpointError, OSError
        Same as for `read_note`.
    """
    with named_errors(path):
        with open_regular(path) as file:
            metadata = read_header(file).metadata
        texts = {key: metadata.get(key) for key in keys}
        return {
            key: None if text is None else parse_json(text, f"metadata '{key}'")
            for key, text in texts.items()
        }


def _describe_layer(config: LayerConfig) -> str:
    """Return the metadata of a layer's file; the text is always the same for the same config."""
    version, values = _version_for(config), config.to_dict()
    if version < ADDED_IN:
        values = {name: value for name, value in values.items() if name not in ADDED_FIELDS}
    description = {"version": version, "kind": config.kind, "config": values}
    return json.dumps(description, sort_keys=True)


def _version_for(config: LayerConfig) -> int:
    """Return the lowest version of the format that can hold a layer."""
    values = config.to_dict()
    if any(values.get(name, value) != value for name, value in ADDED_FIELDS.items()):
        return ADDED_IN
    scales = [names[0] for names in FORMER_ARRAYS.values()]
    return 2 if any(name in config.shapes() for name in scales) else 1


def _parse_layer(metadata: Mapping[str, str]) -> tuple[LayerConfig, int]:
    """Return the config in a file's metadata, and the format version of the file."""
    if METADATA_KEY not in metadata:
        raise CheckpointError(
            f"is a safetensors file of another program: it has no metadata '{METADATA_KEY}'. "
            f"If it holds a published layer, {_IMPORTERS}"
        )
    what = f"metadata '{METADATA_KEY}'"
    values = parse_json(metadata[METADATA_KEY], what)
    if not isinstance(values, dict):
        raise CheckpointError(f"is damaged: {what} must be an object, got {describe(values)}")
    _check_version(values.get("version"))
    differences = list_differences(
        dict.fromkeys(("version", "kind", "config"), ""), dict.fromkeys(values, "")
    )
    if differences:
        raise CheckpointError(f"is damaged: {what} does not fit: {differences}")
    return _parse_config(values["kind"], values["config"], values["version"]), values["version"]


def _check_version(version: Any) -> None:
    """Raise unless files of this version can be read."""
    if type(version) is not int or version not in READ_VERSIONS:
        readable = ", ".join(map(str, READ_VERSIONS))
        raise CheckpointError(
            f"has version {describe(version)} of the format, but this fffcpu reads {readable}"
        )


def _parse_config(kind: Any, values: Any, version: int) -> LayerConfig:
    """Return the config of a layer of class ``kind`` from its JSON values in such a file."""
    if not isinstance(kind, str) or kind not in KINDS:
        known = ", ".join(KINDS)
        raise CheckpointError(f"holds a layer of kind {describe(kind)}; known kinds are {known}")
    if version < FIRST_VERSIONS.get(kind, version):
        raise CheckpointError(f"has version {version} of the format, which has no {kind}")
    # NumPy parses some dtype texts as Python; a file's text must not reach that parser.
    dtypes = ("float32", "float64")
    if isinstance(values, dict) and values.get("dtype", dtypes[0]) not in dtypes:
        raise CheckpointError(
            f"has an invalid config: 'dtype' must be {' or '.join(dtypes)}, "
            f"got {describe(values['dtype'])}"
        )
    if version < ADDED_IN and isinstance(values, dict):
        values = _with_added_fields(KINDS[kind], values)
    try:
        config = KINDS[kind].from_dict(values)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"has an invalid config: {error}") from error
    # A config also accepts 'GELU' for gelu; a file has only one spelling of each value.
    differences = list_differences(_texts(config.to_dict()), _texts(values))
    if differences:
        raise CheckpointError(f"has an invalid config: {differences}")
    return config


def _with_added_fields(config: type[LayerConfig], values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a file before version 3, with the fields that it does not have."""
    names = {field.name for field in dataclasses.fields(config)} & set(ADDED_FIELDS)
    wrong = sorted(names & set(values))
    if wrong:
        raise CheckpointError(f"config of {config.kind} does not fit: unknown '{wrong[0]}'")
    return values | {name: ADDED_FIELDS[name] for name in names}


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Return a description of each value, which differs for 1 and True."""
    return {name: repr(value) for name, value in values.items()}


def _stored_shapes(config: LayerConfig, version: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the arrays in a file of this version."""
    shapes = dict(config.shapes())
    if version > 1:
        return shapes
    for former, names in FORMER_ARRAYS.items():
        if names[0] in shapes:
            stacked = (*shapes[names[0]], len(names))
            shapes = {name: shape for name, shape in shapes.items() if name not in names}
            shapes[former] = stacked
    return shapes


def _check_tensors(
    config: LayerConfig,
    shapes: Mapping[str, tuple[int, ...]],
    entries: Mapping[str, Mapping[str, Any]],
) -> None:
    """Raise unless a header's entries have exactly these names and shapes, and the right types."""
    dtypes = config.dtypes() | dict.fromkeys(FORMER_ARRAYS, "float32")
    expected = {name: f"{dtypes[name]} {shape}" for name, shape in shapes.items()}
    differences = list_differences(
        expected, {name: _describe_entry(entry) for name, entry in entries.items()}
    )
    if differences:
        raise CheckpointError(f"does not hold the arrays of its config: {differences}")


def _describe_entry(entry: Mapping[str, Any]) -> str:
    """Return the type and shape in a header's entry, whose values may have any type."""
    dtype, shape = entry["dtype"], entry["shape"]
    shape = tuple(shape) if isinstance(shape, list) else shape
    return f"{DTYPES.get(dtype, dtype) if isinstance(dtype, str) else dtype} {shape}"
