"""The project's own files: a safetensors file that holds one layer, config and parameters.

The metadata has one key, ``fffcpu``, whose value is a JSON text::

    {"config": {...}, "kind": "FastFeedForward", "version": 1}

The config fixes the name, shape and dtype of every tensor, and ``load`` compares all of them with
the file's header before it reads, or allocates room for, a single number.

docs/formats.md describes the format byte by byte. It is written and read here, and not by the
safetensors library, because that has no bfloat16 for NumPy arrays.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.checkpoints.differences import check_arrays, list_differences
from fffcpu.config import (
    DenseFeedForwardConfig,
    FastFeedForwardConfig,
    LayerConfig,
    LeafFeedForwardConfig,
    QuantizedFastFeedForwardConfig,
    QuantizedLeafFeedForwardConfig,
)
from fffcpu.errors import ArgumentTypeError, CheckpointError, describe
from fffcpu.lowbit import numpy_dtype
from fffcpu.system.files import open_regular, parse_json, write_atomically

__all__ = [
    "KINDS",
    "METADATA_KEY",
    "READ_VERSIONS",
    "VERSION",
    "load",
    "read_header",
    "read_note",
    "save",
    "write_tensors",
]

METADATA_KEY = "fffcpu"
"""The metadata key that makes a safetensors file one of ours."""

VERSION = 1
"""The version of the format that ``save`` writes."""

READ_VERSIONS = (1,)
"""The versions that ``load`` reads."""

KINDS: Mapping[str, type[LayerConfig]] = MappingProxyType(
    {
        config.kind: config
        for config in (
            FastFeedForwardConfig,
            LeafFeedForwardConfig,
            DenseFeedForwardConfig,
            QuantizedFastFeedForwardConfig,
            QuantizedLeafFeedForwardConfig,
        )
    }
)
"""The config class of each kind of layer."""

_ABBREVIATIONS = MappingProxyType(
    {"float64": "F64", "float32": "F32", "bfloat16": "BF16", "int8": "I8"}
)
"""How safetensors abbreviates each type that a layer may have, the widest first."""

_DTYPES = MappingProxyType({short: name for name, short in _ABBREVIATIONS.items()})
"""Our name of each abbreviation; others belong to no layer."""

_LONGEST_HEADER = 1 << 20
"""Bytes. Ours take under a thousand; the bound keeps a hostile header from being parsed at all."""

_PICKLE = "is a Python pickle, as PyTorch writes it, and pickles are never opened here"
_ZIP = (
    "is a zip archive: a pickle, if PyTorch wrote it (.pt, .pth, .bin), and pickles are never "
    "opened here"
)
_FOREIGN_STARTS = (
    (b"PK\x03\x04", _ZIP),
    (b"\x80\x02", _PICKLE),
    (b"\x80\x03", _PICKLE),
    (b"\x80\x04", _PICKLE),
    (b"\x80\x05", _PICKLE),
)
"""How files start that people take for models, and what to say of them."""

_IMPORTERS = (
    "read it with safetensors.numpy.load_file and convert its arrays with from_state_dict of "
    "fffcpu.checkpoints.ultrafastbert, ultrafastbert_bmm or fastfeedforward, whichever it is"
)


def save(
    path: str | os.PathLike[str],
    config: LayerConfig,
    arrays: Mapping[str, NDArray[Any]],
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write one layer to a file, replacing what was there only once all of it is on the disk.

    Parameters
    ----------
    path : str or path
        The file, in a folder that exists.
    config : LayerConfig
        The layer's config.
    arrays : mapping of str to array
        Its parameters, of ``config.shapes()`` and ``config.dtypes()``.
    notes : mapping of str to str, optional
        Further metadata, for `read_note`; ``load`` passes over it.

    Raises
    ------
    ArgumentTypeError
        If ``config`` is not a layer's config.
    CheckpointError
        If the arrays do not fit the config.
    OSError
        If the file cannot be written: FileNotFoundError without the folder, IsADirectoryError,
        PermissionError and so on. The old file, if there was one, is then as it was.
    """
    if type(config) not in KINDS.values():
        raise ArgumentTypeError(f"argument 'config' must be a layer's, got {describe(config)}")
    checked = check_arrays(config, arrays)
    with write_atomically(path) as temporary:
        try:
            _write(temporary, config, checked, notes or {})
        except OSError as error:
            raise OSError(error.errno, error.strerror, os.fsdecode(path)) from error


def load(path: str | os.PathLike[str]) -> tuple[LayerConfig, dict[str, NDArray[Any]]]:
    """Read the layer that ``save`` wrote.

    Everything is checked against the file's size and header before any array is allocated.

    Parameters
    ----------
    path : str or path
        The file.

    Returns
    -------
    config : LayerConfig
        Of the class in ``KINDS``.
    arrays : dict of str to array
        Of ``config.shapes()``, in that order, and ``config.dtypes()``.

    Raises
    ------
    CheckpointError
        If the file is damaged, of another program or another version, a pickle, or does not hold
        what its config says; the message names the file and says what is wrong.
    OSError
        If the file cannot be read: FileNotFoundError, IsADirectoryError and so on.
    """
    name = os.fsdecode(path)
    try:
        return _load(name)
    except CheckpointError as error:
        raise CheckpointError(f"file {name!r} {error}") from error.__cause__


def read_note(path: str | os.PathLike[str], key: str) -> Any:
    """Return what a note of a layer's file says, JSON as it is.

    Parameters
    ----------
    path : str or path
        A file that ``load`` reads.
    key : str
        Which note.

    Returns
    -------
    object
        The value of the JSON text; None if there is no such note.

    Raises
    ------
    CheckpointError, OSError
        As ``load``, as far as the header goes; also if the note is no JSON.
    """
    name = os.fsdecode(path)
    try:
        with open_regular(name) as file:
            header = parse_json(read_header(file), "its header")
        metadata = header.get("__metadata__", {}) if isinstance(header, dict) else {}
        text = metadata.get(key) if isinstance(metadata, dict) else None
        return parse_json(text, f"metadata '{key}'") if isinstance(text, str) else None
    except CheckpointError as error:
        raise CheckpointError(f"file {name!r} {error}") from error.__cause__


def _describe_layer(config: LayerConfig) -> str:
    """Return the metadata of a layer's file, always the same text for the same config."""
    description = {"version": VERSION, "kind": config.kind, "config": config.to_dict()}
    return json.dumps(description, sort_keys=True)


def _write(
    path: Path,
    config: LayerConfig,
    arrays: Mapping[str, NDArray[Any]],
    notes: Mapping[str, str],
) -> None:
    """Write a layer's checked arrays as a safetensors file.

    The widest types come first, so that every array starts at a multiple of its numbers' bytes.
    """
    dtypes, widths = config.dtypes(), list(_ABBREVIATIONS)
    names = sorted(arrays, key=lambda name: (widths.index(dtypes[name]), name))
    tensors = {name: (_ABBREVIATIONS[dtypes[name]], arrays[name]) for name in names}
    write_tensors(path, tensors, {METADATA_KEY: _describe_layer(config), **notes})


def write_tensors(
    path: Path, tensors: Mapping[str, tuple[str, NDArray[Any]]], metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file, one array after the other.

    Parameters
    ----------
    path : Path
        The file.
    tensors : mapping of str to (str, array)
        What the format calls each array's type, and the array. One that is not contiguous is copied
        when its turn comes.
    metadata : mapping of str to str
        For the header.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    start = 0
    for name, (dtype, array) in tensors.items():
        offsets = (start, start + array.nbytes)
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": offsets}
        start += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for _, array in tensors.values():
            file.write(_bytes(np.ascontiguousarray(array, array.dtype.newbyteorder("<"))))


def _bytes(array: NDArray[Any]) -> memoryview:
    """Return the memory of a contiguous array."""
    return array.reshape(-1).view(np.uint8).data


def _load(name: str) -> tuple[LayerConfig, dict[str, NDArray[Any]]]:
    """Read a file; complaints are worded to follow its name."""
    with open_regular(name) as file:
        header = parse_json(read_header(file), "its header")
        if not isinstance(header, dict):
            raise CheckpointError(f"is damaged: its header must be an object, {_got(header)}")
        config = _parse_layer(header.pop("__metadata__", {}))
        _check_tensors(config, header)
        start = file.tell()
        _check_layout(config, header, os.fstat(file.fileno()).st_size - start)
        return config, {
            key: _read_array(file, start + header[key]["data_offsets"][0], shape, dtype)
            for (key, shape), dtype in zip(
                config.shapes().items(), config.dtypes().values(), strict=True
            )
        }


def read_header(file: io.BufferedReader) -> bytes:
    """Return the JSON text at the start of a file, having checked its length."""
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > _LONGEST_HEADER:
        raise CheckpointError(_explain_start(start))
    header = file.read(length)
    if len(header) < length:
        raise CheckpointError(
            f"is truncated: its header should take {length} bytes, and {len(header)} are there"
        )
    return header


def _read_array(
    file: io.BufferedReader, at: int, shape: tuple[int, ...], dtype: str
) -> NDArray[Any]:
    """Read the array that starts at a byte of a file."""
    native = numpy_dtype(dtype)
    array = np.empty(shape, native.newbyteorder("<"))
    file.seek(at)
    if file.readinto(_bytes(array)) < array.nbytes:
        raise CheckpointError("was made shorter while it was read")
    return array.astype(native, copy=False)


def _explain_start(start: bytes) -> str:
    """Say what a file is whose first eight bytes are not the length of a header."""
    for magic, meaning in _FOREIGN_STARTS:
        if start.startswith(magic):
            return f"{meaning}; convert it to safetensors first, as docs/formats.md shows"
    if not start:
        return "is empty"
    if len(start) < 8:
        return f"is not a safetensors file: it has only {len(start)} bytes"
    return (
        f"is not a safetensors file of fffcpu: its header would take "
        f"{int.from_bytes(start, 'little')} bytes, more than {_LONGEST_HEADER}"
    )


def _parse_layer(metadata: Any) -> LayerConfig:
    """Return the config in a file's metadata."""
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CheckpointError(f"is damaged: its metadata must be texts by name, {_got(metadata)}")
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
    return _parse_config(values["kind"], values["config"])


def _check_version(version: Any) -> None:
    """Raise unless files of this version can be read."""
    if type(version) is not int or version not in READ_VERSIONS:
        readable = ", ".join(map(str, READ_VERSIONS))
        raise CheckpointError(
            f"has version {describe(version)} of the format, and this fffcpu reads {readable}"
        )


def _parse_config(kind: Any, values: Any) -> LayerConfig:
    """Return the config of a kind of layer from its JSON values."""
    if not isinstance(kind, str) or kind not in KINDS:
        known = ", ".join(KINDS)
        raise CheckpointError(f"holds a layer of kind {describe(kind)}; known are {known}")
    # NumPy would read some texts, taken for a dtype, as Python: a file's text does not get there.
    dtypes = ("float32", "float64")
    if isinstance(values, dict) and values.get("dtype", dtypes[0]) not in dtypes:
        raise CheckpointError(
            f"has an invalid config: 'dtype' must be {' or '.join(dtypes)}, "
            f"got {describe(values['dtype'])}"
        )
    try:
        config = KINDS[kind].from_dict(values)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"has an invalid config: {error}") from error
    # A config also takes 'GELU' for gelu; a file spells each value in one way only.
    differences = list_differences(_texts(config.to_dict()), _texts(values))
    if differences:
        raise CheckpointError(f"has an invalid config: {differences}")
    return config


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Return a description of each value, different for 1 and True."""
    return {name: repr(value) for name, value in values.items()}


def _check_tensors(config: LayerConfig, header: Mapping[str, Any]) -> None:
    """Raise unless a header's tensors are just the config's."""
    dtypes = config.dtypes()
    expected = {name: f"{dtypes[name]} {shape}" for name, shape in config.shapes().items()}
    came = {}
    for name, tensor in header.items():
        if not isinstance(tensor, dict) or set(tensor) != {"dtype", "shape", "data_offsets"}:
            raise CheckpointError(
                f"is not a whole safetensors file: {describe(name)} must have a dtype, a shape "
                f"and offsets, {_got(tensor)}"
            )
        shape, dtype = tensor["shape"], tensor["dtype"]
        shape = tuple(shape) if isinstance(shape, list) else shape
        came[name] = f"{_DTYPES.get(dtype, dtype) if isinstance(dtype, str) else dtype} {shape}"
    differences = list_differences(expected, came)
    if differences:
        raise CheckpointError(f"does not hold the arrays of its config: {differences}")


def _check_layout(config: LayerConfig, header: Mapping[str, Any], size: int) -> None:
    """Raise unless the config's arrays fill ``size`` bytes, one after the other."""
    dtypes, shapes = config.dtypes(), config.shapes()
    spans = {}
    for name, tensor in header.items():
        span = tensor["data_offsets"]
        length = math.prod(shapes[name]) * numpy_dtype(dtypes[name]).itemsize
        if (
            not isinstance(span, list)
            or [type(offset) for offset in span] != [int, int]
            or span[1] - span[0] != length
        ):
            raise CheckpointError(
                f"is not a whole safetensors file: the offsets of '{name}' must be {length} bytes "
                f"apart, {_got(span)}"
            )
        spans[name] = span
    end = 0
    for name, span in sorted(spans.items(), key=lambda item: item[1]):
        if span[0] != end:
            raise CheckpointError(
                f"is not a whole safetensors file: '{name}' must start at byte {end}, "
                f"{_got(span[0])}"
            )
        end = span[1]
    if end != size:
        raise CheckpointError(
            f"is not a whole safetensors file: its arrays take {end} bytes, and {size} are there"
        )


def _got(value: Any) -> str:
    """Return the end of a complaint about a value, which may be as long as the header."""
    return f"got {describe(value)[:200]}"
