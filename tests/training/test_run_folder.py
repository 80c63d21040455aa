"""The folder of a run: what it keeps, what it refuses, and what a kill may leave in it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from fffcpu.errors import CheckpointError
from fffcpu.training import RunFolder
from fffcpu.training.run_folder import HISTORY

NOTES = {"identity": {"layer": "leaf"}, "step": 3, "best": {"loss": 0.25}}


def save(folder, *steps, keep=9):
    for step in steps:
        folder.save(step, {"param.w": np.full(3, step)}, NOTES, keep=keep)


def names(folder):
    return sorted(path.name for path in folder.path.iterdir())


def test_what_is_saved_comes_back(tmp_path):
    folder = RunFolder(tmp_path / "new" / "run")
    assert folder.latest() is None
    save(folder, 3, 12)
    path, notes, arrays = folder.latest()
    assert path == tmp_path / "new" / "run" / "checkpoint-0000000012.safetensors"
    assert notes == {"version": 2, **NOTES}
    assert arrays["param.w"].tolist() == [12, 12, 12]


def test_a_checkpoint_is_a_safetensors_file(tmp_path):
    save(RunFolder(tmp_path), 1)
    with safe_open(tmp_path / "checkpoint-0000000001.safetensors", framework="np") as file:
        assert list(file.keys()) == ["param.w"]
        assert json.loads(file.metadata()["trainer"]) == {"version": 2, **NOTES}


def test_as_many_as_asked_are_kept_and_nothing_else_is_touched(tmp_path):
    folder = RunFolder(tmp_path)
    for other in ("checkpoint-1.safetensors", "checkpoint-0000000001.safetensors.bak"):
        (tmp_path / other).write_text("somebody's")
    before = names(folder)
    save(folder, 8, 9, 10, keep=2)
    kept = [path.name for path in folder.checkpoints()]
    assert kept == ["checkpoint-0000000010.safetensors", "checkpoint-0000000009.safetensors"]
    folder.append({"step": 10})
    folder.remove_checkpoints()
    assert names(folder) == sorted([*before, HISTORY])


@pytest.mark.parametrize(
    ("options", "named"), [((), "resume=True"), (("--resume",), "--resume")], ids=["call", "option"]
)
def test_an_unfinished_run_is_refused_in_the_words_of_the_caller(options, named, tmp_path):
    folder = RunFolder(tmp_path)
    folder.check_finished(*options)
    save(folder, 1)
    assert folder.unfinished
    with pytest.raises(CheckpointError) as caught:
        folder.check_finished(*options)
    assert str(caught.value) == (
        f"folder '{tmp_path}' contains an unfinished training run. "
        f"Pass {named} to continue it, or delete the folder to start over"
    )
    folder.remove_checkpoints()
    assert not folder.unfinished
    folder.check_finished(*options)


def test_a_folder_that_is_not_there_is_finished(tmp_path):
    folder = RunFolder(tmp_path / "none")
    folder.check_finished()
    assert folder.cut_history(9) == []
    folder.remove_checkpoints()
    with pytest.raises(FileNotFoundError):
        folder.read_history()


def test_the_newest_whole_checkpoint_is_read(tmp_path):
    folder = RunFolder(tmp_path)
    save(folder, 1, 2, 3)
    newest, middle, oldest = folder.checkpoints()
    newest.write_bytes(newest.read_bytes()[:-1])
    middle.write_bytes(b"")
    with pytest.warns(RuntimeWarning, match=r"is damaged \(.*\); trying an older one") as warned:
        assert folder.latest().path == oldest
    assert len(warned) == 2
    oldest.write_bytes(b"{}")
    with (
        pytest.warns(RuntimeWarning, match="damaged"),
        pytest.raises(CheckpointError, match=f"folder '{tmp_path}' contains no checkpoint"),
    ):
        folder.latest()


def test_the_history_is_cut_behind_a_step(tmp_path):
    folder = RunFolder(tmp_path)
    folder.prepare()
    for step in (2, 4, 6):
        folder.append({"step": step, "loss": None})
    with open(folder.history_path, "a") as file:
        file.write('rubbish\n{"loss": 1}\n{"step": 4')
    kept = [{"step": 2, "loss": None}, {"step": 4, "loss": None}]
    assert folder.cut_history(5) == kept
    assert folder.read_history() == kept
    text = folder.history_path.read_text()
    assert text == '{"step": 2, "loss": null}\n{"step": 4, "loss": null}\n'
    assert folder.cut_history(0) == []


def test_preparing_makes_the_folder_and_removes_what_is_half_written(tmp_path):
    folder = RunFolder(tmp_path / "a" / "b")
    folder.prepare()
    rest = folder.path / ".fffcpu-0123456789abcdef.tmp"
    rest.write_bytes(b"half")
    save(folder, 1)
    folder.prepare()
    assert names(folder) == ["checkpoint-0000000001.safetensors"]


GOOD = b'{"step": 1}\n'


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[1]",
        b'{"step": "1"}',
        b'{"step": true}',
        b"{}",
        b'{"step": 1, "x": "\xff"}',
        b"",
        b"[" * 9999,
    ],
    ids=["open", "list", "text", "flag", "empty", "bytes", "blank", "nested"],
)
def test_a_damaged_line_of_a_history_is_named_or_dropped(line, tmp_path):
    folder = RunFolder(tmp_path)
    folder.history_path.write_bytes(GOOD + line + b"\n" + GOOD)
    with pytest.raises(CheckpointError, match=r"history\.jsonl', line 2: must be a JSON object"):
        folder.read_history()
    assert folder.cut_history(1) == [{"step": 1}, {"step": 1}]
    assert folder.history_path.read_bytes() == GOOD + GOOD


def test_the_error_about_damaged_checkpoints_names_the_newest_fault(tmp_path):
    folder = RunFolder(tmp_path)
    save(folder, 1)
    (path,) = folder.checkpoints()
    path.write_bytes(b"")
    with (
        pytest.raises(CheckpointError, match=r"no checkpoint that is whole: .*is empty"),
        pytest.warns(RuntimeWarning, match="is empty"),
    ):
        folder.latest()


@pytest.mark.parametrize("notes", ["[" * 99999, '{"version": 2, "version": 2}', "[]"])
def test_notes_that_are_no_object_are_damage(notes, tmp_path):
    folder = RunFolder(tmp_path)
    path = tmp_path / "checkpoint-0000000001.safetensors"
    save_file({"param.w": np.zeros(1)}, path, {"trainer": notes})
    with (
        pytest.raises(CheckpointError, match="no checkpoint that is whole"),
        pytest.warns(RuntimeWarning, match="is damaged"),
    ):
        folder.latest()
