"""Files of the safetensors library, read array by array, and files that are none."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save, save_file

import fffcpu
from fffcpu.checkpoints import safetensors
from fffcpu.checkpoints.safetensors import DTYPES, SafetensorsFile, write_tensors
from fffcpu.cli import main
from fffcpu.errors import CheckpointError
from fffcpu.lowbit import to_bfloat16
from fffcpu.models import FastBertConfig, FastBertForMaskedLM

NUMPY_DTYPES = [name for name in DTYPES.values() if name != "bfloat16"]


def test_files_of_the_library_are_read(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {name: rng.integers(0, 2, (3, 4)).astype(name) for name in NUMPY_DTYPES}
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
        (entry(shape=[0, 2**62, 2**62], data_offsets=[0, 0]), "'x' must have a possible shape"),
        (entry(shape=[1] * 70, data_offsets=[0, 4]), "'x' must have a possible shape"),
        (entry(shape=[0, 2**64], data_offsets=[0, 0]), "'x' must have a possible shape"),
        (entry(shape=[3], data_offsets=[0, 12]), "'x' must take 12 bytes of 8, got those from 0"),
    ],
)
def test_damaged_files_are_errors(header, message, tmp_path):
    path = write(tmp_path / "a", header, bytes(8))
    with pytest.raises(CheckpointError, match="file .*a' .*" + message):
        SafetensorsFile(path)


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([(0, 8), (0, 8)], "'y' must start at byte 8, got 0"),
        ([(0, 8), (4, 12)], "'y' must start at byte 8, got 4"),
        ([(0, 8), (12, 20)], "'y' must start at byte 8, got 12"),
        ([(4, 12), (12, 20)], "'x' must start at byte 0, got 4"),
        ([(0, 8), (8, 16)], "its arrays take 16 bytes, but 20 follow its header"),
    ],
)
def test_arrays_that_overlap_or_leave_a_gap_are_errors(spans, message, tmp_path):
    header = {
        name: {"dtype": "F32", "shape": [2], "data_offsets": span}
        for name, span in zip("xy", spans, strict=True)
    }
    path = write(tmp_path / "a", header, bytes(20))
    with pytest.raises(CheckpointError, match="is not a whole safetensors file: " + message):
        SafetensorsFile(path)


def overlapping(path):
    """Make the second of a file's arrays that have one shape begin where the first does."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    shapes = {}
    for name, item in header.items():
        if name != "__metadata__" and item["data_offsets"][0] != item["data_offsets"][1]:
            first = shapes.setdefault(str(item["shape"]), name)
            if first != name:
                item["data_offsets"] = header[first]["data_offsets"]
                write(path, header, content[8 + length :])
                return
    raise AssertionError("no two arrays have one shape")


def test_every_reader_refuses_arrays_that_overlap(tmp_path, capsys):
    layer, published = tmp_path / "layer.safetensors", tmp_path / "published.safetensors"
    fffcpu.FastFeedForward(3, 3, 2, bias=False, rng=0).save(layer)
    assert main(["convert", str(layer), str(published), "--to", "ultrafastbert_bmm"]) == 0
    model = FastBertForMaskedLM(FastBertConfig(9, 4, 1, 2, feedforward_size=1, depth=1), rng=0)
    model.save_pretrained(tmp_path / "model")
    for path in (layer, published, tmp_path / "model" / "model.safetensors"):
        overlapping(path)
    message = "is not a whole safetensors file: .* must start at byte"
    with pytest.raises(CheckpointError, match=message):
        fffcpu.load(layer)
    with pytest.raises(CheckpointError, match=message):
        FastBertForMaskedLM.from_pretrained(tmp_path / "model")
    capsys.readouterr()
    for source, target in ((layer, "a"), (published, "b"), (tmp_path / "model", "folder")):
        out = tmp_path / (target if source.is_dir() else f"{target}.safetensors")
        arguments = ["--to", "ultrafastbert"] if source == layer else []
        assert main(["convert", str(source), str(out), *arguments]) != 0
        assert "must start at byte" in capsys.readouterr().err
        assert not out.exists()


# Writing


def test_the_bytes_are_those_of_the_library(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"b": rng.random((3, 2)), "a": rng.random(4), "c": rng.random(3).astype(np.float32)}
    write_tensors(tmp_path / "a", dict(sorted(arrays.items())))
    assert (tmp_path / "a").read_bytes() == save(arrays)
    write_tensors(tmp_path / "a", dict(sorted(arrays.items())), {"format": "pt"})
    assert (tmp_path / "a").read_bytes() == save(arrays, {"format": "pt"})


def test_arrays_come_back(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {name: rng.integers(0, 2, (3, 4)).astype(name) for name in NUMPY_DTYPES}
    arrays |= {"transposed": arrays["float32"].T, "swapped": arrays["int32"].astype(">i4")}
    arrays |= {"scalar": np.array(1.5), "empty": np.empty((0, 4), np.float32)}
    write_tensors(tmp_path / "a", arrays)
    for found in (SafetensorsFile(tmp_path / "a"), load_file(tmp_path / "a")):
        assert set(found) == set(arrays)
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype.newbyteorder("=")
            np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("shape", [(3,), (0, 2)])
def test_bfloat16_is_written_by_its_name(shape, tmp_path):
    numbers = np.full(shape, 0.75, np.float32)
    write_tensors(tmp_path / "a", {"x": to_bfloat16(numbers)}, dtypes={"x": "bfloat16"})
    x = SafetensorsFile(tmp_path / "a")["x"]
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, numbers)


def test_pickles_are_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(CheckpointError, match="convert it to safetensors first, as docs/formats"):
        SafetensorsFile(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        SafetensorsFile(tmp_path / "b")


def test_a_header_that_could_not_be_read_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(safetensors, "_LONGEST_HEADER", 400)
    path = tmp_path / "file"
    safetensors.write_tensors(path, {"a": np.zeros(3)}, {"note": "n" * 100})
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="header of a file must take at most 400 bytes, got"):
        safetensors.write_tensors(path, {"a": np.zeros(3)}, {"note": "n" * 400})
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["file"]
