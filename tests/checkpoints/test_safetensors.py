"""Files of the safetensors library, read array by array, and files that are none."""

from __future__ import annotations

import errno
import json

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import load_file, save, save_file

import fffcpu
from fffcpu.checkpoints import safetensors
from fffcpu.checkpoints.safetensors import (
    DTYPES,
    LONGEST_HEADER,
    SafetensorsFile,
    write_tensors,
)
from fffcpu.cli import main
from fffcpu.errors import ArgumentError, CheckpointError, NotEnoughMemoryError
from fffcpu.lowbit import to_bfloat16
from fffcpu.models import FastBertConfig, FastBertForMaskedLM
from fffcpu.system import memory
from fffcpu.system.memory import Available

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
    with pytest.raises(CheckpointError, match="safetensors first, as 'fffcpu convert --help'"):
        SafetensorsFile(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        SafetensorsFile(tmp_path / "b")


def test_a_header_that_could_not_be_read_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(safetensors, "LONGEST_HEADER", 400)
    path = tmp_path / "file"
    safetensors.write_tensors(path, {"a": np.zeros(3)}, {"note": "n" * 100})
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="header of a file must take at most 400 bytes, got"):
        safetensors.write_tensors(path, {"a": np.zeros(3)}, {"note": "n" * 400})
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_a_header_of_many_names_is_written_and_read(tmp_path):
    note = json.dumps([f"column number {k}" for k in range(200_000)])  # twice the former limit
    write_tensors(tmp_path / "a", {"x": np.zeros(3)}, {"columns": note})
    with open(tmp_path / "a", "rb") as file:
        assert safetensors.read_header(file).metadata == {"columns": note}
    np.testing.assert_array_equal(load_file(tmp_path / "a")["x"], np.zeros(3))


def test_the_limit_of_headers_is_that_of_the_library(tmp_path):
    for length, readable in ((LONGEST_HEADER, True), (LONGEST_HEADER + 8, False)):
        text = b'{"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'
        path = tmp_path / "a"
        path.write_bytes(length.to_bytes(8, "little") + text.ljust(length))
        for read, error in ((load_file, SafetensorError), (SafetensorsFile, CheckpointError)):
            if readable:
                assert list(read(path)) == ["x"]
            else:
                with pytest.raises(error):
                    read(path)


def test_a_long_header_is_not_parsed_without_memory_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: Available(1 << 26, "there is only"))
    path = tmp_path / "a"
    path.write_bytes((4 << 20).to_bytes(8, "little") + b"[" * (4 << 20))
    with pytest.raises(NotEnoughMemoryError, match="a header of 4194304 bytes needs 134 MB"):
        SafetensorsFile(path)


def test_what_no_reader_would_take_is_known_before(monkeypatch):
    safetensors.check_metadata({"note": "n" * 1000})
    monkeypatch.setattr(safetensors, "LONGEST_HEADER", (1 << 20) + 500)
    safetensors.check_metadata({"note": "n" * 400})
    with pytest.raises(CheckpointError, match="names of columns and classes are part of it"):
        safetensors.check_metadata({"note": "n" * 1000})


@pytest.mark.parametrize("where", ["header", "numbers", "length"])
def test_a_file_that_does_not_hold_what_was_written_replaces_nothing(tmp_path, monkeypatch, where):
    path = tmp_path / "a"
    write_tensors(path, {"x": np.zeros(30), "y": np.ones(30)}, {"note": "old"})
    before, real = path.read_bytes(), safetensors._read_back

    def damage(temporary, *arguments):
        content = bytearray(temporary.read_bytes())
        if where == "length":
            content = content[:-1]
        else:
            content[content.index(b"new") if where == "header" else -9] ^= 1
        temporary.write_bytes(content)
        real(temporary, *arguments)

    monkeypatch.setattr(safetensors, "_read_back", damage)
    with pytest.raises((OSError, CheckpointError)) as caught:
        write_tensors(path, {"x": np.ones(30), "y": np.zeros(30)}, {"note": "new"})
    if where != "length":
        assert caught.value.errno == errno.EIO
        assert caught.value.filename == str(path)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize(
    ("shape", "index"), [((), ()), ((5,), 3), ((2, 3), (1, 0)), ((3, 2, 2), (2, 1, 0))]
)
def test_numbers_that_are_not_finite_are_not_written(
    tmp_path, monkeypatch, bad, dtype, shape, index
):
    monkeypatch.setattr(safetensors, "_COMPARED", 8)  # a row or two at a time
    numbers = np.ones(shape, np.float32 if dtype == "bfloat16" else dtype)
    arrays = {"w": to_bfloat16(numbers) if dtype == "bfloat16" else numbers}
    dtypes = {"w": dtype} if dtype == "bfloat16" else {}
    write_tensors(tmp_path / "a", arrays, dtypes=dtypes)
    before = (tmp_path / "a").read_bytes()
    numbers[index] = bad
    arrays = {"w": to_bfloat16(numbers) if dtype == "bfloat16" else numbers}
    with pytest.raises(ArgumentError) as caught:
        write_tensors(tmp_path / "a", arrays, dtypes=dtypes)
    message = f"parameter 'w' must hold finite numbers to be saved, got {bad}"
    assert str(caught.value) == f"{message} at index {index or 0}"
    assert (tmp_path / "a").read_bytes() == before
    write_tensors(tmp_path / "a", arrays, dtypes=dtypes, finite=False)
    np.testing.assert_array_equal(SafetensorsFile(tmp_path / "a")["w"], numbers)


def test_models_layers_and_predictors_with_such_numbers_are_not_saved(tmp_path, capsys):
    layer = fffcpu.FastFeedForward(3, 3, 2, bias=False, rng=0)
    layer.params["weights_out"][0, 4, 1] = np.inf
    message = r"parameter '.*' must hold finite numbers to be saved, got inf at index \(0, 4, 1\)"
    predictor = fffcpu.Predictor(layer, fffcpu.Schema("regression"))
    for one in (layer, predictor):
        with pytest.raises(ArgumentError, match=message):
            one.save(tmp_path / "layer")
    model = FastBertForMaskedLM(FastBertConfig(9, 4, 1, 2, feedforward_size=1, depth=1), rng=0)
    model.params["encoder.embedding.words"][3, 2] = np.nan
    with pytest.raises(ArgumentError, match=r"word_embedding.*got nan at index \(3, 2\)"):
        model.save_pretrained(tmp_path / "model")
    assert not list(tmp_path.iterdir())
    state = {"w1s": np.ones((3, 2), np.float32), "w2s": np.full((3, 2), np.nan, np.float32)}
    save_file(state, tmp_path / "published")
    out = tmp_path / "out.safetensors"
    assert main(["convert", str(tmp_path / "published"), str(out)]) == 1
    assert "'weights_out' must hold finite numbers" in capsys.readouterr().err
    assert not out.exists()
    assert np.isnan(SafetensorsFile(tmp_path / "published")["w2s"]).all()  # reading stays possible
