"""Requests and responses of the Open Inference Protocol, version 2, with its binary extension.

A request is a JSON object. With the binary extension, the object is followed by the raw bytes of
some tensors, little-endian and in row-major order, and a header says where they begin. Everything
is checked before arrays are made: types, shapes, sizes. Nothing in a request names a file or code.
"""

from __future__ import annotations

import math
import reprlib
import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from fffcpu.serve.errors import RequestError

__all__ = [
    "BYTES",
    "DATATYPES",
    "InferRequest",
    "RequestedOutput",
    "TensorSpec",
    "datatype_of",
    "decode_request",
    "encode_response",
]

Array = NDArray[Any]

BYTES = "BYTES"
"""Datatype of texts."""

DATATYPES = MappingProxyType(
    {
        "BOOL": np.dtype(np.bool_),
        **{f"UINT{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
        **{f"INT{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
        **{f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
    }
)
"""NumPy's type of each datatype of numbers."""

SHORT, SMALL = 4096, 6e4
"""Most numbers whose length as a vector Python computes, and a length below which FP16 holds each
of them."""

_TYPES = MappingProxyType(
    {
        "b": frozenset({bool}),
        "u": frozenset({int}),
        "i": frozenset({int}),
        "f": frozenset({int, float}),
    }
)
"""Types of JSON values by kind of numbers."""

_NAMES = MappingProxyType({dtype: name for name, dtype in DATATYPES.items()})

MAX_AXES = 8
"""Most axes of a tensor."""

MAX_NAME = 1000
"""Most characters of the name of an input or output."""

MAX_SIZE = 1 << 40
"""Largest product of a tensor's sizes, those of 0 left out."""


class TensorSpec(NamedTuple):
    """An input or an output of a model."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    """Its shape; -1 is any size."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as the metadata of a model show it."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


class RequestedOutput(NamedTuple):
    """An output that a request asks for."""

    name: str
    binary: bool
    """Whether its numbers come as raw bytes."""


class InferRequest(NamedTuple):
    """An inference request."""

    id: str | None
    inputs: Mapping[str, Array]
    """The tensors by name; texts are arrays of str objects."""
    outputs: tuple[RequestedOutput, ...] | None
    """What is asked for; None is all that the model gives."""
    parameters: Mapping[str, Any]

    @property
    def binary(self) -> bool:
        """Whether outputs that are not named come as raw bytes."""
        return self.parameters.get("binary_data_output") is True


def datatype_of(array: Array) -> str:
    """Return the datatype of an array of numbers or texts."""
    return _NAMES.get(array.dtype, BYTES)


def decode_request(body: bytes, header_length: str | None = None) -> InferRequest:
    """Return the request in a body.

    Parameters
    ----------
    body : bytes
        JSON, or JSON and then raw bytes.
    header_length : str, optional
        Number of bytes of the JSON: the value of ``Inference-Header-Content-Length``.

    Raises
    ------
    RequestError
        If the request violates the protocol.
    """
    json_part, raw = _split(body, header_length)
    values = decode_json(json_part)
    request_id = values.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise RequestError(f"'id' must be a text, got {_short(request_id)}")
    inputs = values.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise RequestError(f"'inputs' must be a list of tensors, got {_short(inputs)}")
    tensors: dict[str, Array] = {}
    at = 0
    for item in inputs:
        name, array, used = _tensor(item, raw, at)
        if name in tensors:
            raise RequestError(f"input '{name}' occurs twice")
        tensors[name], at = array, at + used
    if at != len(raw):
        raise RequestError(f"the raw tensors must take {at} bytes, got {len(raw)}")
    parameters = _mapping(values, "parameters")
    return InferRequest(request_id, tensors, _requested(values, parameters), parameters)


def decode_json(body: bytes) -> dict[str, Any]:
    """Return a JSON object.

    Raises
    ------
    RequestError
        If the body is none.
    """
    try:
        values = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        hint = ""
        if error.doc.startswith(("NaN", "Inf"), error.pos):
            hint = "; JSON has no NaN and no infinity, but raw bytes have"
        raise RequestError(f"the body must be JSON: {error}{hint}") from None
    if not isinstance(values, dict):
        raise RequestError(f"the body must be a JSON object, got {_short(values)}")
    return values


def encode_response(
    model: str,
    request: InferRequest,
    outputs: Mapping[str, Array],
) -> tuple[bytes, list[memoryview]]:
    """Return the JSON of a response, and the raw bytes that follow it, if any.

    Parameters
    ----------
    model : str
        Name of the model.
    request : InferRequest
        The request, whose id and outputs count.
    outputs : mapping of str to array
        What the model gave: at least what the request asks for.
    """
    wanted = request.outputs
    if wanted is None:
        wanted = tuple(RequestedOutput(name, request.binary) for name in outputs)
    tensors: list[dict[str, Any]] = []
    raw: list[memoryview] = []
    for name, binary in wanted:
        array = np.ascontiguousarray(outputs[name])
        tensor: dict[str, Any] = {
            "name": name,
            "datatype": datatype_of(array),
            "shape": array.shape,
        }
        if binary:
            raw.append(_raw(array))
            tensor["parameters"] = {"binary_data_size": raw[-1].nbytes}
        else:
            flat = array.reshape(-1)
            tensor["data"] = flat.tolist() if flat.dtype.kind in "OU" else flat
        tensors.append(tensor)
    values: dict[str, Any] = {"model_name": model, "outputs": tensors}
    if request.id is not None:
        values["id"] = request.id
    return orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY), raw


def _split(body: bytes, header_length: str | None) -> tuple[bytes, memoryview]:
    """Return the JSON and the raw bytes of a body."""
    if header_length is None:
        return body, memoryview(b"")
    # Not int() at once: it takes signs, spaces and digits of other scripts.
    if not (header_length.isascii() and header_length.isdigit() and len(header_length) < 16):
        raise RequestError(
            "header 'Inference-Header-Content-Length' must be a number of bytes, "
            f"got {_short(header_length)}"
        )
    length = int(header_length)
    if length > len(body):
        raise RequestError(
            f"header 'Inference-Header-Content-Length' must be at most the {len(body)} bytes of "
            f"the body, got {length}"
        )
    return body[:length], memoryview(body)[length:]


def _tensor(item: Any, raw: memoryview, at: int) -> tuple[str, Array, int]:
    """Return the name and the array of an input, and the number of its raw bytes."""
    if not isinstance(item, dict):
        raise RequestError(f"an input must be a JSON object, got {_short(item)}")
    name, datatype = item.get("name"), item.get("datatype")
    if not isinstance(name, str) or len(name) > MAX_NAME:
        raise RequestError(
            f"the name of an input must be a text of at most {MAX_NAME} characters, "
            f"got {_short(name)}"
        )
    if not isinstance(datatype, str) or (datatype not in DATATYPES and datatype != BYTES):
        raise RequestError(
            f"input '{name}': 'datatype' must be one of {', '.join((*DATATYPES, BYTES))}, "
            f"got {_short(datatype)}"
        )
    shape = _shape(name, item.get("shape"))
    size = _mapping(item, "parameters").get("binary_data_size")
    if size is None:
        if "data" not in item:
            raise RequestError(f"input '{name}' must have 'data', or 'binary_data_size'")
        return name, _from_json(name, datatype, shape, item["data"]), 0
    if "data" in item:
        raise RequestError(f"input '{name}' must not have both 'data' and 'binary_data_size'")
    if type(size) is not int or not 0 <= size <= len(raw) - at:
        raise RequestError(
            f"input '{name}': 'binary_data_size' must be at most the {len(raw) - at} bytes that "
            f"the body has left, got {_short(size)}"
        )
    own = raw[at : at + size]
    if datatype == BYTES:
        return name, _texts_from_raw(name, shape, own), size
    dtype, count = DATATYPES[datatype], math.prod(shape)
    if size != count * dtype.itemsize:
        raise RequestError(
            f"input '{name}' of shape {list(shape)} and {datatype} must have "
            f"{count * dtype.itemsize} bytes, got {size}"
        )
    return name, np.frombuffer(own, dtype).reshape(shape), size


def _shape(name: str, shape: Any) -> tuple[int, ...]:
    if isinstance(shape, list) and 1 <= len(shape) <= MAX_AXES:
        product = 1
        for size in shape:
            if type(size) is not int or size < 0:
                break
            product *= size or 1
        else:
            if product <= MAX_SIZE:
                return tuple(shape)
    raise RequestError(
        f"input '{name}': 'shape' must be a list of 1 to {MAX_AXES} sizes, got {_short(shape)}"
    )


def _from_json(name: str, datatype: str, shape: tuple[int, ...], data: Any) -> Array:
    """Return the array of JSON values, which are flat or nested as the shape is."""
    if not isinstance(data, list):
        raise RequestError(f"input '{name}': 'data' must be a list, got {_short(data)}")
    # An array of few values may have any number of axes of size 1, but 'data' has what it says.
    if data and isinstance(data[0], list):
        data = _flat(name, shape, data)
    if len(data) != math.prod(shape):
        raise RequestError(
            f"input '{name}' of shape {list(shape)} must have {math.prod(shape)} values, "
            f"got {len(data)}"
        )
    if datatype == BYTES:
        if not all(isinstance(value, str) for value in data):
            wrong = next(value for value in data if not isinstance(value, str))
            raise RequestError(f"input '{name}' must hold texts, got {_short(wrong)}")
        texts = np.empty(len(data), object)
        texts[:] = data
        return texts.reshape(shape)
    return _numbers(name, datatype, data).reshape(shape)


def _flat(name: str, shape: tuple[int, ...], data: list[Any]) -> list[Any]:
    """Return nested lists as one list, if they have the shape."""
    for axis in range(len(shape)):
        last = axis == len(shape) - 1
        if len(data) != math.prod(shape[: axis + 1]) or any(
            isinstance(item, list) == last or (not last and len(item) != shape[axis + 1])
            for item in data
        ):
            raise RequestError(
                f"input '{name}': 'data' must be flat, or nested as the shape {list(shape)}"
            )
        if not last:
            data = [value for item in data for value in item]
    return data


def _numbers(name: str, datatype: str, data: list[Any]) -> Array:
    """Return numbers of a datatype that can hold them."""
    dtype = DATATYPES[datatype]
    # Texts, null, lists and true are not made into numbers, and NumPy chooses no type: that of 0
    # and 2**63 would be float64.
    if not _TYPES[dtype.kind].issuperset(map(type, data)):
        types = _TYPES[dtype.kind]
        place, wrong = next((k, value) for k, value in enumerate(data) if type(value) not in types)
        raise RequestError(
            f"input '{name}' must hold numbers of {datatype} alone, got {_as_json(wrong)} at place "
            f"{place} (counted from 0)"
        )
    array: Array | None = None
    held = True
    if data and dtype.kind in "iu":
        whole = np.iinfo(dtype)
        held = int(whole.min) <= min(data) <= max(data) <= int(whole.max)
    elif dtype.kind == "f" and dtype.itemsize < 8:  # JSON has finite numbers alone
        # The short way is for a row: NumPy's calls take longer than that.
        held = len(data) <= SHORT and math.hypot(*data) < SMALL
        if data and not held:
            array, most = np.array(data, np.float64), float(np.finfo(dtype).max)
            held = -most <= float(array.min()) <= float(array.max()) <= most
    if not held:
        raise RequestError(f"input '{name}' must hold numbers that {datatype} can hold")
    return np.array(data, dtype) if array is None else array.astype(dtype)


def _texts_from_raw(name: str, shape: tuple[int, ...], raw: memoryview) -> Array:
    """Return texts, each of which follows the number of its bytes."""
    found: list[str] = []
    at = 0
    while at < len(raw):
        if len(raw) - at < 4:
            raise RequestError(f"input '{name}' ends within a length")
        (length,) = struct.unpack_from("<I", raw, at)
        at += 4
        if length > len(raw) - at:
            raise RequestError(
                f"input '{name}' must have texts of at most the {len(raw) - at} bytes that are "
                f"left, got {length}"
            )
        try:
            found.append(str(raw[at : at + length], "utf-8"))
        except UnicodeDecodeError:
            raise RequestError(f"input '{name}' must hold texts in UTF-8") from None
        at += length
    if len(found) != math.prod(shape):
        raise RequestError(
            f"input '{name}' of shape {list(shape)} must have {math.prod(shape)} texts, "
            f"got {len(found)}"
        )
    texts = np.empty(len(found), object)
    texts[:] = found
    return texts.reshape(shape)


def _requested(
    values: dict[str, Any], parameters: Mapping[str, Any]
) -> tuple[RequestedOutput, ...] | None:
    """Return the outputs that a request asks for."""
    outputs = values.get("outputs")
    if outputs is None or outputs == []:
        return None
    if not isinstance(outputs, list):
        raise RequestError(f"'outputs' must be a list, got {_short(outputs)}")
    binary = parameters.get("binary_data_output") is True
    found: dict[str, RequestedOutput] = {}
    for item in outputs:
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            raise RequestError(f"an output must be an object with a 'name', got {_short(item)}")
        name = item["name"][:MAX_NAME]
        if name in found:
            raise RequestError(f"output '{name}' occurs twice")
        own = _mapping(item, "parameters").get("binary_data", binary)
        found[name] = RequestedOutput(name, own is True)
    return tuple(found.values())


def _mapping(values: dict[str, Any], name: str) -> dict[str, Any]:
    found = values.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise RequestError(f"'{name}' must be a JSON object, got {_short(found)}")
    return found


def _raw(array: Array) -> memoryview:
    """Return the bytes of an output; those of numbers are not copied."""
    if array.dtype.kind not in "OU":
        numbers = array.astype(array.dtype.newbyteorder("<"), copy=False).reshape(-1)
        return numbers.view(np.uint8).data
    parts: list[bytes] = []
    for text in array.reshape(-1).tolist():
        coded = text.encode()
        parts += [struct.pack("<I", len(coded)), coded]
    return memoryview(b"".join(parts))


def _as_json(value: Any) -> str:
    """Return a value of JSON as the client wrote it, if that is short."""
    if value is None or isinstance(value, bool):
        return orjson.dumps(value).decode()
    return _short(value)


def _short(value: Any) -> str:
    """Return a value as a message shows it, however long or deep it is."""
    return reprlib.repr(value)
