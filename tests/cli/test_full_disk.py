"""A disk that is full: commands keep all that was there, leave no parts, and say what to do."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import numpy as np
import pytest

from fffcpu import FastFeedForward
from fffcpu.models import FastBertConfig, FastBertForMaskedLM
from fffcpu.system import files

TRAINING = ("--depth=6", "--epochs=1", "--batch-size=24", "--checkpoint-seconds=0")

LIMITED = """
import resource, sys
from fffcpu.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(main(sys.argv[2:]))
"""
"""The command in a process whose files may have so many bytes."""


@pytest.fixture
def table(tmp_path):
    """Rows and labels in files, on a disk with room."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", (x[:, 0] > 0).astype(np.int64))
    return tmp_path


def training(table, out):
    target = f"--target={table / 'y.npy'}"
    return ["train", str(table / "x.npy"), target, f"--out={out}", *TRAINING]


def everything(folder):
    """The bytes of all files below a folder, by their paths."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def assert_told(status, error, path, way_out):
    """The command ended with one line that names the file and what to do."""
    assert status == 1
    line = error.splitlines()[-1]
    assert line.startswith("fffcpu: error: ")
    assert f": '{path}" in line
    assert f"nothing was replaced: free some space, then run the same command {way_out}" in line


# --- A disk that fills at any moment --------------------------------------------------------------


@pytest.fixture
def fills(monkeypatch):
    """Let the disk be full from one of the files that are written on."""
    real, seen = files._flush, []

    def at(call):
        seen.clear()

        def flush(path, mode):
            seen.append(path)
            if len(seen) == call:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            real(path, mode)

        monkeypatch.setattr(files, "_flush", flush)
        return seen

    return at


def test_a_training_continues_from_where_the_disk_was_full(table, command, fills):
    written = fills(0)
    assert command(*training(table, table / "whole"))[0] == 0
    expected, count = (table / "whole").read_bytes(), len(written)
    assert count >= 5, "checkpoints, and the model"
    for call in range(1, count + 1):
        place = table / f"run-{call}"
        place.mkdir()
        arguments = training(table, place / "m")
        fills(call)
        status, _, error = command(*arguments)
        path = place / "m" if call == count else place / "m.training" / "checkpoint-"
        assert_told(status, error, path, "with --resume")
        found = set(everything(place))
        assert {name for name in found if "checkpoint" not in name} <= {"m.training/history.jsonl"}
        assert len([name for name in found if "checkpoint" in name]) == min(call - 1, 2)
        fills(0)
        status, _, error = command(*arguments, "--resume")
        assert status == 0, error
        assert (place / "m").read_bytes() == expected


@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_model_folder_is_replaced_as_a_whole(tmp_path, command, fills, call):
    for name, seed in (("old", 1), ("new", 2)):
        config = FastBertConfig(9, 4, seed, 2, feedforward_size=1, depth=1)
        model = FastBertForMaskedLM(config, rng=seed)
        model.save_pretrained(tmp_path / name, files={"tokenizer.json": f"[{seed}]"})
    before = everything(tmp_path)
    arguments = ["convert", tmp_path / "new", tmp_path / "old"]
    fills(call)
    status, _, error = command(*arguments)
    assert_told(status, error, tmp_path / "old", "again")
    assert everything(tmp_path) == before
    fills(call)
    status, _, error = command("convert", tmp_path / "new", tmp_path / "third")
    assert_told(status, error, tmp_path / "third", "again")
    assert everything(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]
    fills(0)
    assert command(*arguments)[0] == 0
    assert everything(tmp_path / "old") == everything(tmp_path / "new")


# --- Files that cannot grow -----------------------------------------------------------------------


def limited(most, *arguments):
    program = [sys.executable, "-c", LIMITED, str(most), *map(str, arguments)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a limit of Unix")
def test_files_that_cannot_grow_leave_what_was_there(table):
    layer = table / "layer.safetensors"
    FastFeedForward(4, 4, 6, bias=False, rng=0).save(layer)
    outputs = ("y.csv", "out.npy", "published.safetensors", "m")
    for name in outputs:
        (table / name).write_text("old")
    before = everything(table)
    many = table / "many.npy"
    np.save(many, np.zeros((2000, 4), np.float32))
    before[many.name] = many.read_bytes()
    to = "--to=ultrafastbert_bmm"
    for arguments, way_out in (
        (["predict", layer, many, f"--out={table / 'y.csv'}"], "again"),
        (["predict", layer, many, f"--out={table / 'out.npy'}"], "again"),
        (["convert", layer, table / "published.safetensors", to], "again"),
        (training(table, table / "n"), "with --resume"),
    ):
        status, _, error = limited(1000, *arguments)
        name = arguments[-1].partition("=")[2] if arguments[0] == "predict" else table
        assert_told(status, error, name, way_out)
        found = everything(table)
        found.pop("n.training/history.jsonl", None)
        assert found == before


# --- A small disk ---------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A disk of half a megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no command to mount a disk")
    if done.returncode:
        pytest.skip("only root may mount a disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(disk, left):
    """Fill a disk but for some bytes; return the file that does."""
    status = os.statvfs(disk)
    rest = status.f_bavail * status.f_frsize - left
    (disk / "filler").write_bytes(bytes(rest))
    return disk / "filler"


def test_training_on_a_small_disk(table, small_disk, command):
    assert command(*training(table, table / "whole"))[0] == 0
    out = small_disk / "m"
    for left in (0, 4096, 16384, 1 << 16):  # the folder and the history do not fit, or a checkpoint
        filler = fill(small_disk, left)
        resume = ["--resume"] if (small_disk / "m.training").exists() else []
        status, _, error = command(*training(table, out), *resume)
        assert_told(status, error, small_disk, "with --resume")
        assert not out.exists()
        assert not list(small_disk.rglob(files.TEMPORARY))
        filler.unlink()
    assert command(*training(table, out), "--resume")[0] == 0
    assert out.read_bytes() == (table / "whole").read_bytes()


def test_predicting_and_converting_on_a_small_disk(table, small_disk, command):
    layer = table / "layer.safetensors"
    FastFeedForward(4, 4, 8, bias=False, rng=0).save(layer)
    np.save(table / "many.npy", np.zeros((5000, 4), np.float32))
    commands = {
        "a.npy": ["predict", layer, table / "many.npy", "--out"],
        "a.csv": ["predict", layer, table / "many.npy", "--out"],
        "a.safetensors": ["convert", layer, "--to=ultrafastbert_bmm"],
    }
    for name, arguments in commands.items():
        (small_disk / name).write_text("old")
        filler = fill(small_disk, 8192)
        status, _, error = command(*arguments, small_disk / name)
        assert_told(status, error, small_disk / name, "again")
        assert sorted(everything(small_disk)) == sorted(["filler", name])
        assert (small_disk / name).read_text() == "old"
        filler.unlink()
        (small_disk / name).unlink()
