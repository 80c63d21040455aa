"""The project's own files: what is saved comes back, and nothing else is taken for one of them."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import pickle
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from fffcpu.checkpoints import native, safetensors
from fffcpu.checkpoints.safetensors import LONGEST_HEADER
from fffcpu.config import (
    DenseFeedForwardConfig,
    FastFeedForwardConfig,
    LayerConfig,
    LeafFeedForwardConfig,
    QuantizedFastFeedForwardConfig,
    QuantizedLeafFeedForwardConfig,
)
from fffcpu.errors import ArgumentError, ArgumentTypeError, CheckpointError
from fffcpu.lowbit import numpy_dtype, to_bfloat16

WIDTHS = st.integers(1, 5)
DEPTHS = st.integers(0, 4)
COMMON = {
    "activation": st.sampled_from(["gelu", "relu", "identity"]),
    "dtype": st.sampled_from(["float32", "float64"]),
}
NARROW = {"weights": st.sampled_from(["bfloat16", "int8"])}
FLOAT_CONFIGS = st.one_of(
    st.builds(
        FastFeedForwardConfig,
        *(WIDTHS, WIDTHS, DEPTHS, WIDTHS),
        bias=st.booleans(),
        two_sided=st.booleans(),
        **COMMON,
    ),
    st.builds(LeafFeedForwardConfig, WIDTHS, WIDTHS, DEPTHS, WIDTHS, **COMMON),
    st.builds(DenseFeedForwardConfig, WIDTHS, WIDTHS, WIDTHS, bias=st.booleans(), **COMMON),
)
CONFIGS = st.one_of(
    FLOAT_CONFIGS,
    st.builds(
        QuantizedFastFeedForwardConfig,
        *(WIDTHS, WIDTHS, DEPTHS, WIDTHS),
        bias=st.booleans(),
        two_sided=st.booleans(),
        **NARROW,
    ),
    st.builds(QuantizedLeafFeedForwardConfig, WIDTHS, WIDTHS, DEPTHS, WIDTHS, **NARROW),
)
SMALL = FastFeedForwardConfig(3, 2, 1)
SMALL_VALUES = {name: value for name, value in SMALL.to_dict().items() if name != "two_sided"}
"""Fields of SMALL in files of version 1."""
LEEWAY = 4 << 20
"""Bytes that refusing a file may take, whatever sizes the file claims."""


def random_arrays(config: LayerConfig, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, shape in config.shapes().items():
        numbers, dtype = rng.standard_normal(shape), config.dtypes()[name]
        if dtype == "bfloat16":
            arrays[name] = to_bfloat16(numbers)
        else:
            arrays[name] = (30 * numbers if dtype == "int8" else numbers).astype(dtype)
    return arrays


def small_file(folder: Path, config: LayerConfig = SMALL) -> Path:
    path = folder / "layer.safetensors"
    native.save(path, config, random_arrays(config))
    return path


def tensor_headers(config: LayerConfig = SMALL) -> dict[str, dict]:
    """Header entries as ``save`` writes them, to be spoilt by a test."""
    headers, start = {}, 0
    size = np.dtype(config.dtype).itemsize
    for name, shape in config.shapes().items():
        end = start + size * int(np.prod(shape))
        dtype = f"F{8 * size}"
        headers[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
        start = end
    return headers


def describe_layer(**changes: object) -> dict[str, object]:
    return {"version": 1, "kind": SMALL.kind, "config": SMALL_VALUES} | changes


def write_raw(
    folder: Path,
    headers: object,
    metadata: object = None,
    length: int | None = None,
    data: bytes | None = None,
) -> Path:
    """Write a file by hand, with as many data bytes as a file of SMALL has."""
    path = folder / "raw.safetensors"
    if isinstance(headers, dict):
        description = describe_layer() if metadata is None else metadata
        text = description if isinstance(description, str) else json.dumps(description)
        headers = json.dumps({"__metadata__": {"fffcpu": text}, **headers}).encode()
    if data is None:
        data = bytes(4 * sum(int(np.prod(shape)) for shape in SMALL.shapes().values()))
    path.write_bytes(struct.pack("<Q", len(headers) if length is None else length) + headers + data)
    return path


def refuse(path: Path | str) -> str:
    """Load a file that must be refused, without taking memory; return the message."""
    import safetensors.numpy  # noqa: F401 (so that the import is not counted)

    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as caught:
            native.load(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert repr(str(path)) in message
    assert "\n" not in message
    assert len(message) < 4000
    assert peak < LEEWAY
    return message


def leftovers(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir() if "tmp" in entry.name]


@settings(deadline=None)
@given(config=CONFIGS, seed=st.integers(0, 9))
def test_round_trip(config: LayerConfig, seed: int) -> None:
    arrays = random_arrays(config, seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer"
        native.save(path, config, arrays)
        first = path.read_bytes()
        loaded_config, loaded = native.load(path)
        native.save(path, loaded_config, dict(reversed(loaded.items())))
        assert path.read_bytes() == first
    assert loaded_config == config
    assert type(loaded_config) is type(config)
    assert list(loaded) == list(config.shapes())
    for name, array in loaded.items():
        assert array.dtype == numpy_dtype(config.dtypes()[name])
        assert array.flags.writeable
        np.testing.assert_array_equal(array, arrays[name])


@settings(deadline=None)
@given(config=FLOAT_CONFIGS)
def test_bytes_are_those_of_the_safetensors_library(config: LayerConfig) -> None:
    arrays = random_arrays(config)
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder) / "ours", Path(folder) / "theirs"
        native.save(ours, config, arrays)
        values = config.to_dict()
        version = 3 if values.get("two_sided") else 1
        if version == 1:
            values.pop("two_sided", None)
        description = {"version": version, "kind": config.kind, "config": values}
        metadata = {"fffcpu": json.dumps(description, sort_keys=True)}
        save_file(arrays, theirs, metadata=metadata)
        assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize(("weights", "abbreviation"), [("bfloat16", "BF16"), ("int8", "I8")])
def test_narrow_weights_have_the_types_of_the_library(
    tmp_path: Path, weights: str, abbreviation: str
) -> None:
    config = QuantizedFastFeedForwardConfig(3, 2, 1, weights=weights)
    native.save(tmp_path / "layer", config, random_arrays(config))
    with safe_open(tmp_path / "layer", framework="np") as file:
        types = {name: file.get_slice(name).get_dtype() for name in config.shapes()}
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in config.shapes()}
    assert types.pop("weights_in") == types.pop("weights_out") == abbreviation
    assert set(types.values()) == {"F32"}
    assert shapes == config.shapes()


def test_any_memory_layout_is_saved_by_value(tmp_path: Path) -> None:
    arrays = random_arrays(SMALL)
    layouts = {
        "weights_in": np.asfortranarray(arrays["weights_in"]),
        "bias_in": np.repeat(arrays["bias_in"], 2, axis=1)[:, ::2],
        "weights_out": arrays["weights_out"].astype(">f4"),
    }
    native.save(tmp_path / "layer", SMALL, layouts)
    for name, array in native.load(tmp_path / "layer")[1].items():
        np.testing.assert_array_equal(array, arrays[name])


def test_non_finite_numbers_are_read_and_not_written(tmp_path: Path) -> None:
    arrays = random_arrays(SMALL)
    arrays["bias_in"][0] = [np.nan, np.inf, -np.inf]
    with pytest.raises(ArgumentError) as caught:
        native.save(tmp_path / "layer", SMALL, arrays)
    assert str(caught.value) == (
        "parameter 'bias_in' must hold finite numbers to be saved, got nan at index (0, 0)"
    )
    assert not list(tmp_path.iterdir())
    data = b"".join(arrays[name].tobytes() for name in SMALL.shapes())
    path = write_raw(tmp_path, tensor_headers(), data=data)
    np.testing.assert_array_equal(native.load(path)[1]["bias_in"], arrays["bias_in"])


def test_bytes_as_documented(tmp_path: Path) -> None:
    """Read a file the way docs/formats.md describes it, without the library."""
    data = small_file(tmp_path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    layer = json.loads(header.pop("__metadata__")["fffcpu"])
    assert layer == {
        "version": 1,
        "kind": "FastFeedForward",
        "config": {
            "input_dim": 3,
            "output_dim": 2,
            "depth": 1,
            "trees": 1,
            "bias": True,
            "activation": "gelu",
            "dtype": "float32",
        },
    }
    for name, expected in random_arrays(SMALL).items():
        start, end = (8 + length + offset for offset in header[name]["data_offsets"])
        array = np.frombuffer(data[start:end], "<f4").reshape(header[name]["shape"])
        np.testing.assert_array_equal(array, expected)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = small_file(tmp_path)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=r"layer\.safetensors"):
            native.load(path)
    path.write_bytes(data + b"\0")
    refuse(path)


@functools.cache
def content_of(config: LayerConfig) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return small_file(Path(folder), config).read_bytes()


@settings(max_examples=200, deadline=None)
@given(
    data=st.data(),
    config=st.sampled_from(
        [
            SMALL,
            LeafFeedForwardConfig(2, 2, 1, 2),
            QuantizedFastFeedForwardConfig(3, 2, 1, weights="bfloat16"),
            QuantizedLeafFeedForwardConfig(2, 2, 1, 2, weights="int8"),
        ]
    ),
)
def test_flipped_bits_load_or_are_refused(data: st.DataObject, config: LayerConfig) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer"
        content = bytearray(content_of(config))
        header = 8 + int.from_bytes(content[:8], "little")
        places = st.one_of(st.integers(0, header - 1), st.integers(0, len(content) - 1))
        for place in data.draw(st.lists(places, min_size=1, max_size=4)):
            content[place] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
        tracemalloc.start()
        try:
            with contextlib.suppress(CheckpointError):
                native.load(path)
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < LEEWAY


@settings(deadline=None)
@given(content=st.binary(max_size=200))
def test_random_bytes_are_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "noise"
        path.write_bytes(content)
        refuse(path)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**40, 10**8, 10**6])
def test_header_lengths(tmp_path: Path, length: int) -> None:
    message = refuse(write_raw(tmp_path, tensor_headers(), length=length))
    assert str(length) in message


def test_long_header_is_not_parsed(tmp_path: Path) -> None:
    path = tmp_path / "layer"
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", LONGEST_HEADER + 1))
        file.truncate(2 * LONGEST_HEADER)
    assert f"more than {LONGEST_HEADER}" in refuse(path)


def test_by_hand_is_by_save(tmp_path: Path) -> None:
    """What the tests below spoil is right before they spoil it."""
    assert native.load(write_raw(tmp_path, tensor_headers()))[0] == SMALL


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("bias_in", {"data_offsets": [0, 12]}),
        ("bias_in", {"data_offsets": [32, 44]}),
        ("bias_in", {"data_offsets": [48, 36]}),
        ("bias_in", {"data_offsets": [2**63, 2**63 + 12]}),
        ("bias_in", {"data_offsets": [-12, 0]}),
        ("bias_in", {"data_offsets": [36.0, 48.0]}),
        ("bias_in", {"data_offsets": [36, 40, 48]}),
        ("bias_in", {"data_offsets": "36"}),
        ("bias_in", {"data_offsets": None}),
        ("bias_in", {"more": 1}),
        ("weights_in", {"data_offsets": [0, 35]}),
        ("weights_out", {"data_offsets": [52, 76]}),
    ],
)
def test_headers_that_do_not_fit_the_file(tmp_path: Path, name: str, change: dict) -> None:
    headers = tensor_headers()
    headers[name] |= change
    assert "not a whole safetensors file" in refuse(write_raw(tmp_path, headers))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shape": [3, 1]}, "'bias_in' must be float32 (1, 3), got float32 (3, 1)"),
        ({"shape": [3]}, "got float32 (3,)"),
        ({"shape": [1, 4]}, "got float32 (1, 4)"),
        ({"shape": [2**62, 4]}, f"got float32 ({2**62}, 4)"),
        ({"shape": [2**63, 2**63, 0]}, f"got float32 ({2**63}, {2**63}, 0)"),
        ({"shape": [-1, -3]}, "got float32 (-1, -3)"),
        ({"shape": [1.0, 3.0]}, "got float32 (1.0, 3.0)"),
        ({"shape": [True, 3]}, "got float32 (True, 3)"),
        ({"shape": "13"}, "got float32 13"),
        ({"shape": {"1": 3}}, "got float32 {'1': 3}"),
        ({"dtype": "O"}, "got O (1, 3)"),
        ({"dtype": None}, "got None (1, 3)"),
        ({"dtype": ["F32"]}, "got ['F32'] (1, 3)"),
        ({"dtype": "I32"}, "got int32 (1, 3)"),
        ({"dtype": "BF16", "shape": [1, 6]}, "got bfloat16 (1, 6)"),
        ({"dtype": "U8", "shape": [1, 12]}, "got uint8 (1, 12)"),
        ({"dtype": "F4", "shape": [1, 24]}, "got F4 (1, 24)"),
    ],
)
def test_tensors_that_do_not_fit_the_config(tmp_path: Path, change: dict, words: str) -> None:
    headers = tensor_headers()
    headers["bias_in"] |= change
    assert words in refuse(write_raw(tmp_path, headers))


def test_all_differences_are_listed(tmp_path: Path) -> None:
    headers = tensor_headers()
    headers["bias_out"] = headers.pop("bias_in")
    headers["weights_out"]["shape"].reverse()
    message = refuse(write_raw(tmp_path, headers))
    assert "missing 'bias_in'" in message
    assert "unexpected 'bias_out'" in message
    assert "'weights_out' must be float32 (1, 3, 2), got float32 (2, 3, 1)" in message


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[1]",
        b"null",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff\xfe{}",
        b'{"a": ' + b"9" * 10_000 + b"}",
        b'{"__metadata__": {"fffcpu": 1}}',
        b'{"__metadata__": []}',
        b'{"__metadata__": null}',
        b'{"__metadata__": {"fffcpu": ["a", "b"]}}',
    ],
)
def test_headers_that_are_no_headers(tmp_path: Path, text: bytes) -> None:
    refuse(write_raw(tmp_path, text))


@pytest.mark.parametrize("where", ["tensor", "metadata", "shape", "version", "depth"])
def test_repeated_keys(tmp_path: Path, where: str) -> None:
    """Whichever of the two a reader takes, another may take the other."""
    layer = json.dumps(describe_layer())
    if where == "version":
        layer = layer.replace('"version": 1', '"version": 1, "version": 1')
    if where == "depth":
        layer = layer.replace('"depth": 1', '"depth": 30, "depth": 1')
    header = json.dumps({"__metadata__": {"fffcpu": layer}, **tensor_headers()})
    if where == "tensor":
        bias = json.dumps(tensor_headers()["bias_in"])
        header = header[:-1] + f', "bias_in": {bias}}}'
    if where == "metadata":
        header = header.replace('{"fffcpu"', '{"fffcpu": "", "fffcpu"')
    if where == "shape":
        header = header.replace('"shape": [1, 3]', '"shape": [1, 3], "shape": [1, 3]')
    assert "more than once" in refuse(write_raw(tmp_path, header.encode()))


@pytest.mark.parametrize("version", [0, 4, 10**30, "1", 1.0, True, None, [1]])
def test_other_versions(tmp_path: Path, version: object) -> None:
    message = refuse(write_raw(tmp_path, tensor_headers(), describe_layer(version=version)))
    assert f"has version {version!r}" in message
    assert "reads 1, 2, 3" in message


@pytest.mark.parametrize("kind", ["fastfeedforward", "", "LayerConfig", None, ["FastFeedForward"]])
def test_other_kinds(tmp_path: Path, kind: object) -> None:
    message = refuse(write_raw(tmp_path, tensor_headers(), describe_layer(kind=kind)))
    assert "known kinds are FastFeedForward, LeafFeedForward, DenseFeedForward" in message


@pytest.mark.parametrize("metadata", ["", "{", "[]", "1", '"x"', "null", '{"version": 1}'])
def test_metadata_that_describes_no_layer(tmp_path: Path, metadata: str) -> None:
    assert "fffcpu" in refuse(write_raw(tmp_path, tensor_headers(), metadata))


@pytest.mark.parametrize(
    "change",
    [
        {"depth": -1},
        {"depth": 31},
        {"depth": 1.0},
        {"depth": "1"},
        {"depth": True},
        {"trees": 0},
        {"input_dim": None},
        {"input_dim": 1e400},
        {"bias": 1},
        {"activation": "GELU"},
        {"activation": "swish"},
        {"activation": []},
        {"dtype": "float16"},
        {"dtype": "f4"},
        {"dtype": None},
        {"dtype": "(1,"},
        {"dtype": "1" * 5000 + "f4"},
        {"dtype": {"names": 1}},
        {"rate": 1},
        {"two_sided": False},
    ],
)
def test_invalid_configs(tmp_path: Path, change: dict) -> None:
    config = SMALL_VALUES | change
    message = refuse(write_raw(tmp_path, tensor_headers(), describe_layer(config=config)))
    assert "config" in message
    assert next(iter(change)) in message


@pytest.mark.parametrize("two_sided", [True, False])
def test_version_3_says_whether_nodes_are_two_sided(tmp_path: Path, two_sided: bool) -> None:
    config = FastFeedForwardConfig(3, 2, 1, two_sided=two_sided)
    headers, values = tensor_headers(config), config.to_dict()
    data = b"".join(array.tobytes() for array in random_arrays(config).values())
    description = describe_layer(version=3, config=values)
    found, _ = native.load(write_raw(tmp_path, headers, description, data=data))
    assert found == config
    del values["two_sided"]
    description = describe_layer(version=3, config=values)
    message = refuse(write_raw(tmp_path, headers, description, data=data))
    assert "missing 'two_sided'" in message


@pytest.mark.parametrize("config", [None, 1, [], "x", {}, {"depth": 1}])
def test_configs_without_fields(tmp_path: Path, config: object) -> None:
    assert "config" in refuse(write_raw(tmp_path, tensor_headers(), describe_layer(config=config)))


@pytest.mark.parametrize(
    "change",
    [{"depth": 29}, {"trees": 10**9}, {"input_dim": 10**4000}, {"depth": 29, "trees": 10**15}],
)
def test_claimed_sizes_are_not_allocated(tmp_path: Path, change: dict) -> None:
    config = SMALL_VALUES | change
    message = refuse(write_raw(tmp_path, tensor_headers(), describe_layer(config=config)))
    assert (
        "'weights_in' must be" in message or "too large for the parameter 'weights_in'" in message
    )


def test_many_foreign_tensors_make_a_short_message(tmp_path: Path) -> None:
    path = tmp_path / "many"
    arrays = {f"layer\n{i}": np.zeros(1, np.float32) for i in range(1000)}
    metadata = {"fffcpu": json.dumps(describe_layer())}
    save_file(arrays, path, metadata=metadata)
    assert "more" in refuse(path)


def test_foreign_safetensors(tmp_path: Path) -> None:
    for metadata in (None, {"format": "pt"}):
        save_file({"w1s": np.zeros((3, 2))}, tmp_path / "foreign", metadata=metadata)
        message = refuse(tmp_path / "foreign")
        assert "another program" in message
        assert "ultrafastbert_bmm or fastfeedforward" in message


def test_other_metadata_is_ignored(tmp_path: Path) -> None:
    metadata = {"fffcpu": json.dumps(describe_layer()), "note": "x"}
    save_file(random_arrays(SMALL), tmp_path / "noted", metadata=metadata)
    assert native.load(tmp_path / "noted")[0] == SMALL


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("value", [None, {}, {"w1s": [1.0] * 1000}, 119547037146038801333356])
def test_pickles(tmp_path: Path, protocol: int, value: object) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(pickle.dumps(value, protocol))
    message = refuse(path)
    assert "is a Python pickle" in message
    assert "never opened" in message
    assert "convert it to safetensors" in message


def test_zip_archives(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    message = refuse(path)
    assert "is a zip archive" in message
    assert "convert it to safetensors" in message


def test_header_as_long_as_a_pickle_mark_is_no_pickle(tmp_path: Path) -> None:
    """The bytes 80 02 begin a pickle, and also a safetensors file whose header takes 640 bytes."""
    text = json.dumps(
        {"__metadata__": {"fffcpu": json.dumps(describe_layer())}, **tensor_headers()}
    )
    path = write_raw(tmp_path, text.encode().ljust(640))
    assert path.read_bytes()[:2] == b"\x80\x02"
    assert native.load(path)[0] == SMALL


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing"):
        native.load(tmp_path / "nothing")
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        native.load(tmp_path)
    (tmp_path / "empty").touch()
    assert "is empty" in refuse(tmp_path / "empty")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_do_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refuse(tmp_path / "pipe")
    with pytest.raises(FileExistsError):
        native.save(tmp_path / "pipe", SMALL, random_arrays(SMALL))


def test_save_refuses_other_arrays(tmp_path: Path) -> None:
    arrays = random_arrays(SMALL)
    arrays["bias_in"] = arrays["bias_in"].astype(np.float64)
    arrays["extra"] = arrays.pop("weights_in")
    with pytest.raises(CheckpointError) as caught:
        native.save(tmp_path / "layer", SMALL, arrays)
    assert "missing 'weights_in'; unexpected 'extra'; 'bias_in' must be float32" in str(
        caught.value
    )
    with pytest.raises(ArgumentTypeError, match="'config'"):
        native.save(tmp_path / "layer", None, arrays)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_save_says_which_folder_is_missing(tmp_path: Path) -> None:
    arrays = random_arrays(SMALL)
    with pytest.raises(FileNotFoundError, match="missing'"):
        native.save(tmp_path / "missing" / "layer", SMALL, arrays)
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        native.save(tmp_path, SMALL, arrays)
    path = small_file(tmp_path)
    with pytest.raises(NotADirectoryError, match=path.name):
        native.save(path / "layer", SMALL, arrays)
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError(errno.ENOSPC, "full")])
def test_failed_save_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    path = small_file(tmp_path)
    before = path.read_bytes()

    def write_half(name: Path, *_: object, **__: object) -> None:
        name.write_bytes(before[: len(before) // 2])
        raise error

    monkeypatch.setattr(safetensors, "write_temporary", write_half)
    expected = error if isinstance(error, type) else type(error)
    with pytest.raises(expected):
        native.save(path, SMALL, random_arrays(SMALL, 1))
    assert path.read_bytes() == before
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
def test_failed_replacement_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = small_file(tmp_path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "broken disk")

    arrays = random_arrays(SMALL, 1)
    with monkeypatch.context() as patch:
        patch.setattr(native.os, step, fail)
        with pytest.raises(OSError, match="broken disk"):
            native.save(path, SMALL, arrays)
    assert path.read_bytes() == before
    assert not leftovers(tmp_path)


def test_full_disk_is_an_os_error(tmp_path: Path) -> None:
    """A process that may write 1,000 bytes a file stands for a disk that is full."""
    resource = pytest.importorskip("resource", reason="this system has no resource limits")
    assert resource
    path = small_file(tmp_path)
    before = path.read_bytes()
    code = f"""
import resource, signal
from fffcpu.checkpoints import native
from fffcpu.config import FastFeedForwardConfig
import numpy as np
config = FastFeedForwardConfig(300, 300, 3)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
arrays = {{name: np.zeros(shape, "float32") for name, shape in config.shapes().items()}}
try:
    native.save({str(path)!r}, config, arrays)
except OSError as error:
    assert "layer.safetensors" in str(error), error
    raise SystemExit(7)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 7
    assert path.read_bytes() == before
    assert not leftovers(tmp_path)


def test_killed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = small_file(tmp_path)
    before = path.read_bytes()
    code = f"""
import os
from fffcpu.system.files import write_atomically
with write_atomically({str(path)!r}) as temporary:
    temporary.write_bytes(b"half of it")
    os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert path.read_bytes() == before
    native.load(path)


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_permissions(tmp_path: Path) -> None:
    for umask in (0o022, 0o077, 0o002):
        before = os.umask(umask)
        try:
            path = tmp_path / f"{umask}"
            native.save(path, SMALL, random_arrays(SMALL))
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    path.chmod(0o640)
    native.save(path, SMALL, random_arrays(SMALL, 1))
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.skipif(os.name != "posix", reason="symbolic links may need a privilege elsewhere")
def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real" / "layer")
    native.save(link, SMALL, random_arrays(SMALL))
    assert link.is_symlink()
    assert native.load(tmp_path / "real" / "layer")[0] == SMALL


@pytest.mark.parametrize("name", ["ä ö.safetensors", "'", "-", "x" * 255, "new\nline"])
def test_odd_names(tmp_path: Path, name: str) -> None:
    native.save(str(tmp_path / name), SMALL, random_arrays(SMALL))
    assert native.load(str(tmp_path / name))[0] == SMALL
    (tmp_path / name).write_bytes(b"")
    refuse(tmp_path / name)


def test_many_writers_of_one_file(tmp_path: Path) -> None:
    path = small_file(tmp_path)
    failures = []

    def work(seed: int) -> None:
        try:
            for _ in range(5):
                native.save(path, SMALL, random_arrays(SMALL, seed))
                native.load(path)
        except (OSError, ValueError) as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert not leftovers(tmp_path)


def test_import_does_not_load_safetensors() -> None:
    code = "import sys, fffcpu.checkpoints; raise SystemExit('safetensors' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
