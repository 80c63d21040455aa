"""Files of the safetensors library, read array by array, and files that are none."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from fffcpu.checkpoints.safetensors import SafetensorsFile
from fffcpu.errors import CheckpointError

DTYPES = ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"]


def test_files_of_the_library_are_read(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {name: rng.integers(0, 2, (3, 4)).astype(name) for name in DTYPES}
    arrays |= {"scalar": np.array(1.5), "empty": np.empty((0, 4), np.float32)}
    save_file(arrays, tmp_path / "a", {"format": "pt"})
    file = SafetensorsFile(tmp_path / "a")
    assert set(file) == set(arrays)
    assert len(file) == len(arrays)
    assert repr(file).endswith(f"a'): {len(arrays)} arrays>")
    for name, array in arrays.items():
        assert file[name].dtype == array.dtype
        np.testing.assert_array_equal(file[name], array)
    with pytest.raises(KeyError):
        file["other"]


def test_arrays_are_mapped_and_read_only(tmp_path):
    save_file({"x": np.ones((3, 4))}, tmp_path / "a")
    x = SafetensorsFile(tmp_path / "a")["x"]
    assert isinstance(x, np.memmap)
    assert not x.flags.writeable


def write(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_bfloat16_is_widened(tmp_path):
    bits = np.array([0x3F80, 0xC000, 0x3E80], "<u2")
    header = {"x": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}
    x = SafetensorsFile(write(tmp_path / "a", header, bits.tobytes()))["x"]
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, [1, -2, 0.25])


def entry(**changes):
    return {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ([1], "is damaged: its header must be an object"),
        (b"{", "is damaged: its header is not valid JSON"),
        ({"x": [1]}, "'x' must have a dtype, a shape and offsets"),
        (entry(more=1), "'x' must have a dtype, a shape and offsets"),
        (entry(dtype="F8_E4M3"), "cannot be read: 'x' has the type 'F8_E4M3'"),
        (entry(shape=[-2]), "'x' must have a shape and offsets of integers of at least 0"),
        (entry(shape="2"), "'x' must have a shape and offsets of integers"),
        (entry(data_offsets=[0]), "'x' must have a shape and offsets of integers"),
        (entry(data_offsets=[0, 4]), "'x' must take 8 bytes of 8, got those from 0 to 4"),
        (entry(shape=[3], data_offsets=[0, 12]), "'x' must take 12 bytes of 8, got those from 0"),
    ],
)
def test_damaged_files_are_errors(header, message, tmp_path):
    path = write(tmp_path / "a", header, bytes(8))
    with pytest.raises(CheckpointError, match="file .*a' .*" + message):
        SafetensorsFile(path)


def test_pickles_are_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(CheckpointError, match="convert it to safetensors first, as docs/formats"):
        SafetensorsFile(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        SafetensorsFile(tmp_path / "b")
