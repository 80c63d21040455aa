"""Requests and responses: what is right arrives unchanged, and what is wrong is named."""

from __future__ import annotations

import contextlib
import json
import struct

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fffcpu.serve.errors import RequestError
from fffcpu.serve.tensors import (
    DATATYPES,
    InferRequest,
    RequestedOutput,
    datatype_of,
    decode_request,
    encode_response,
)

SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)
NUMBERS = st.sampled_from(list(DATATYPES.values())).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        SHAPES,
        elements={"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else None,
    )
)
TEXTS = hnp.arrays(object, SHAPES, elements=st.text(st.characters(exclude_categories=["Cs"])))


def text_bytes(texts):
    return b"".join(struct.pack("<I", len(t.encode())) + t.encode() for t in texts.ravel())


def request(array, *, binary, nested=False):
    """A request with one input; and the length of its JSON."""
    item = {"name": "x", "datatype": datatype_of(array), "shape": array.shape}
    raw = b""
    if binary:
        raw = text_bytes(array) if array.dtype == object else array.tobytes()
        item["parameters"] = {"binary_data_size": len(raw)}
    else:
        item["data"] = (array if nested else array.ravel()).tolist()
    header = json.dumps({"inputs": [item]}).encode()
    return header + raw, str(len(header)) if binary else None


@given(st.one_of(NUMBERS, TEXTS), st.booleans(), st.booleans())
@example(np.array([0, 1 << 63], np.uint64), False, False)  # NumPy makes float64 of these
def test_tensors_arrive_unchanged(array, binary, nested):
    found = decode_request(*request(array, binary=binary, nested=nested)).inputs["x"]
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert np.array_equal(found, array)


@given(st.one_of(NUMBERS, TEXTS), st.booleans())
def test_outputs_are_read_as_inputs_are(array, binary):
    wanted = InferRequest("7", {}, (RequestedOutput("x", binary),), {})
    first, raw = encode_response("m", wanted, {"x": array, "unasked": array})
    assert bool(raw) == binary
    length, body = len(first), b"".join([first, *raw])
    values = json.loads(body[:length])
    (output,) = values.pop("outputs")
    assert values == {"model_name": "m", "id": "7"}
    body = json.dumps({"inputs": [output]}).encode() + body[length:] * binary
    header = str(len(json.dumps({"inputs": [output]}))) if binary else None
    found = decode_request(body, header).inputs["x"]
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert np.array_equal(found, array)


@given(hnp.arrays(np.float32, 3, elements=st.floats(width=32)))
def test_numbers_that_are_not_finite_are_null_in_json_and_whole_in_bytes(array):
    wanted = InferRequest(None, {}, None, {})
    text, _ = encode_response("m", wanted, {"y": array})
    values = json.loads(text)["outputs"][0]["data"]
    assert [value is None for value in values] == (~np.isfinite(array)).tolist()
    binary = wanted._replace(parameters={"binary_data_output": True})
    _, (raw,) = encode_response("m", binary, {"y": array})
    assert raw == array.tobytes()


RIGHT = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": 3}, "name of an input must be a text"),
        ({"datatype": "FP31"}, "'datatype' must be one of BOOL"),
        ({"datatype": ["FP32"]}, "'datatype' must be one of BOOL"),
        ({"shape": None}, "'shape' must be a list"),
        ({"shape": []}, "'shape' must be a list"),
        ({"shape": [2.0]}, "'shape' must be a list"),
        ({"shape": [-2]}, "'shape' must be a list"),
        ({"shape": [True]}, "'shape' must be a list"),
        ({"shape": [1 << 50]}, "'shape' must be a list"),
        ({"shape": [1 << 30, 1 << 30]}, "'shape' must be a list"),
        ({"shape": [0, 1 << 50]}, "'shape' must be a list"),
        ({"shape": [1] * 9}, "'shape' must be a list"),
        ({"shape": [3]}, "must have 3 values, got 2"),
        ({"data": None}, "'data' must be a list"),
        ({"data": "12"}, "'data' must be a list"),
        ({"data": [1, "2"]}, "must hold numbers of FP32 alone, got '2' at place 1"),
        ({"data": [1, None]}, "must hold numbers of FP32 alone, got null at place 1"),
        ({"data": [1, {}]}, "must hold numbers of FP32 alone"),
        ({"data": [1, [2]]}, "must hold numbers of FP32 alone"),
        ({"data": [True, False]}, "must hold numbers of FP32 alone, got true at place 0"),
        ({"data": [1, True]}, "must hold numbers of FP32 alone"),
        ({"data": [1, 1e300]}, "must hold numbers that FP32 can hold"),
        ({"data": [[1, 2]]}, "flat, or nested as the shape"),
        ({"data": [[1], [2]]}, "flat, or nested as the shape"),
        ({"datatype": "INT8", "data": [1, 200]}, "must hold numbers that INT8 can hold"),
        ({"datatype": "UINT8", "data": [1, -1]}, "must hold numbers that UINT8 can hold"),
        ({"datatype": "UINT8", "data": [1, True]}, "must hold numbers of UINT8 alone"),
        ({"datatype": "INT64", "data": [0, 1 << 63]}, "must hold numbers that INT64 can hold"),
        ({"datatype": "INT64", "data": [1, 1.5]}, "must hold numbers of INT64 alone"),
        ({"datatype": "UINT64", "data": [1, 1 << 70]}, "must"),
        ({"datatype": "BOOL", "data": [1, 0]}, "must hold numbers of BOOL alone, got 1 at place 0"),
        ({"datatype": "BYTES", "data": ["a", 1]}, "must hold texts, got 1"),
        ({"parameters": []}, "'parameters' must be a JSON object"),
        ({"parameters": {"binary_data_size": 8}}, "both 'data' and 'binary_data_size'"),
    ],
)
def test_wrong_inputs_are_named(changes, message):
    body = json.dumps({"inputs": [{**RIGHT, **changes}]}).encode()
    with pytest.raises(RequestError, match=message) as error:
        decode_request(body)
    assert error.value.status == 400


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_have_are_named(number):
    body = json.dumps({"inputs": [{**RIGHT, "data": [1.0, 7.0]}]}).replace("7.0", number)
    with pytest.raises(RequestError, match=r"must be JSON: .*; JSON has no NaN"):
        decode_request(body.encode())
    with pytest.raises(RequestError, match="must be JSON") as error:
        decode_request(body.replace(number, "").encode())
    assert "NaN" not in str(error.value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "must be JSON"),
        (b"{", "must be JSON"),
        (b"[" * 100_000, "must be JSON"),
        (b'{"inputs": [' + b"[" * 900 + b"]" * 900 + b"]}", "must be a JSON object"),
        (b'{"inputs": [NaN]}', "must be JSON"),
        (b"\xff", "must be JSON"),
        (b"[]", "must be a JSON object"),
        (b"{}", "'inputs' must be a list"),
        (b'{"inputs": []}', "'inputs' must be a list"),
        (b'{"inputs": [1]}', "must be a JSON object"),
        (b'{"id": 1, "inputs": [1]}', "'id' must be a text"),
    ],
)
def test_wrong_bodies_are_named(body, message):
    with pytest.raises(RequestError, match=message):
        decode_request(body)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outputs": 1}, "'outputs' must be a list"),
        ({"outputs": ["y"]}, "an object with a 'name'"),
        ({"outputs": [{"name": "y"}, {"name": "y"}]}, "output 'y' occurs twice"),
        ({"inputs": [RIGHT, RIGHT]}, "input 'x' occurs twice"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [2]}]}, "must have 'data'"),
    ],
)
def test_wrong_requests_are_named(changes, message):
    with pytest.raises(RequestError, match=message):
        decode_request(json.dumps({"inputs": [RIGHT], **changes}).encode())


@pytest.mark.parametrize(
    ("length", "message"),
    [
        ("-1", "must be a number of bytes"),
        ("+5", "must be a number of bytes"),
        ("1e3", "must be a number of bytes"),
        ("", "must be a number of bytes"),
        ("٣", "must be a number of bytes"),
        ("9" * 30, "must be a number of bytes"),
        ("100000", "must be at most the"),
        ("3", "must be JSON"),
    ],
)
def test_a_wrong_length_of_the_header_is_named(length, message):
    body, _ = request(np.zeros(2, np.float32), binary=True)
    with pytest.raises(RequestError, match=message):
        decode_request(body, length)


@pytest.mark.parametrize(
    ("size", "raw", "message"),
    [
        (7, b"1234567", "must have 8 bytes, got 7"),
        (8, b"1234567", "at most the 7 bytes"),
        (8, b"123456789", "must take 8 bytes, got 9"),
        (-1, b"", "at most the 0 bytes"),
        (8.0, b"12345678", "at most the 8 bytes"),
        (True, b"1", "at most the 1 bytes"),
    ],
)
def test_wrong_sizes_of_raw_tensors_are_named(size, raw, message):
    item = {"name": "x", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": size}}
    header = json.dumps({"inputs": [item]}).encode()
    with pytest.raises(RequestError, match=message):
        decode_request(header + raw, str(len(header)))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\x01\x00", "ends within a length"),
        (b"\x05\x00\x00\x00abc", "at most the 3 bytes"),
        (b"\xff\xff\xff\xffabc", "at most the 3 bytes"),
        (b"\x01\x00\x00\x00\xff", "texts in UTF-8"),
        (b"\x01\x00\x00\x00a", "must have 2 texts, got 1"),
    ],
)
def test_wrong_raw_texts_are_named(raw, message):
    item = {"name": "x", "datatype": "BYTES", "shape": [2]}
    item["parameters"] = {"binary_data_size": len(raw)}
    header = json.dumps({"inputs": [item]}).encode()
    with pytest.raises(RequestError, match=message):
        decode_request(header + raw, str(len(header)))


@given(st.binary(max_size=200), st.one_of(st.none(), st.integers(0, 250).map(str)))
def test_whatever_comes_is_a_request_or_an_error(body, length):
    with contextlib.suppress(RequestError):
        decode_request(body, length)
