"""Commands on a cluster: the bytes of one process, errors in a line, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from fffcpu.data import load_digits
from fffcpu.training.run_folder import RunFolder

pytest.importorskip("distributed", reason="the extra 'dask' is not installed")

from fffcpu.dask import cluster

pytestmark = pytest.mark.slow

OPTIONS = ("--depth=3", "--trees=2", "--epochs=2", "--batch-size=100", "--shards=4")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a table."""
    folder = tmp_path_factory.mktemp("files")
    images, labels = load_digits()
    np.save(folder / "x.npy", images[:500])
    np.save(folder / "y.npy", labels[:500])
    return folder


def train(files, out, *more):
    """The words of a training."""
    return ("train", files / "x.npy", "--target", files / "y.npy", "--out", out, *OPTIONS, *more)


def test_a_model_and_its_predictions_have_the_bytes_of_one_process(files, tmp_path, command):
    assert command(*train(files, tmp_path / "here"))[0] == 0
    status, out, err = command(*train(files, tmp_path / "there", "--dask", "local:2", "--json"))
    assert status == 0, err
    assert "2 workers of Dask, 2 threads" in err
    assert json.loads(out)["steps"] == 10
    assert (tmp_path / "here").read_bytes() == (tmp_path / "there").read_bytes()
    found = []
    for name, more in (("a.npy", ()), ("b.npy", ("--dask", "local:2"))):
        arguments = (tmp_path / "here", files / "x.npy", "--out", tmp_path / name, "--rows", 64)
        assert command("predict", *arguments, "--what", "probabilities", *more)[0] == 0
        found.append((tmp_path / name).read_bytes())
    assert found[0] == found[1]


def test_errors_are_told_in_a_line(files, tmp_path, command, monkeypatch):
    def error(*more):
        status, _, err = command(*train(files, tmp_path / "out", *more))
        assert status == 1
        return err

    assert "must be that of a scheduler, or local:N" in error("--dask", "local:none")
    assert "'--dask' must be left out for --layer auto" in error("--layer=auto", "--dask=local:2")
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.2)
    assert "fffcpu: error: " in error("--dask", "tcp://127.0.0.1:1")
    assert not (tmp_path / "out").exists()


def test_the_extra_is_named(files, tmp_path, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    status, _, err = command(*train(files, tmp_path / "out", "--dask", "local:2"))
    assert status == 1
    assert "pip install 'fffcpu[dask]'" in err


@pytest.mark.thorough
def test_pretraining_has_the_bytes_of_one_process(tmp_path, command):
    lines = ["the red cat runs", "the blue dog sleeps", "the green bird sings"] * 60
    (tmp_path / "text.txt").write_text("\n".join(lines))
    sizes = ("--width=16", "--layers=1", "--heads=2", "--feedforward-size=2", "--depth=2")
    sizes += ("--length=16", "--batch-size=8", "--small-batch-size=4", "--vocabulary=40")
    for name, more in (("here", ()), ("there", ("--dask", "local:2"))):
        arguments = ("pretrain", tmp_path / "text.txt", "--out", tmp_path / name, *sizes)
        if more:
            more += ("--tokenizer", tmp_path / "here" / "tokenizer.json")
        status, _, err = command(*arguments, "--steps=6", "--shards=2", *more)
        assert status == 0, err
    models = [tmp_path / name / "model.safetensors" for name in ("here", "there")]
    assert models[0].read_bytes() == models[1].read_bytes()


def ends(group):
    """Whether all processes of a group end within seconds."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.thorough
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="this system has no groups of processes")
def test_ctrl_c_saves_the_run_and_ends_the_workers(files, tmp_path, command):
    """A terminal sends Ctrl-C to the command and to its workers."""
    more = ("--epochs=150", "--checkpoint-seconds=0.2")
    arguments = train(files, tmp_path / "out", *more, "--dask", "local:2")
    words = [sys.executable, "-m", "fffcpu", *map(str, arguments)]
    run = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
    folder, deadline = RunFolder(tmp_path / "out.training"), time.monotonic() + 120
    while not folder.checkpoints() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGINT)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert "run the same command with --resume to continue" in err
    assert ends(run.pid)
    assert command(*train(files, tmp_path / "out", *more, "--resume"))[0] == 0
    assert command(*train(files, tmp_path / "whole", *more))[0] == 0
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()
