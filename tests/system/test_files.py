"""Files that appear whole or not at all, and JSON that is read strictly."""

from __future__ import annotations

import os
import stat

import pytest

from fffcpu.errors import CheckpointError
from fffcpu.system import files
from fffcpu.system.files import (
    TEMPORARY,
    is_regular,
    named_errors,
    open_regular,
    parse_json,
    read_json,
    write_atomically,
    write_text,
)


def leftovers(folder):
    return list(folder.glob(TEMPORARY))


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "a"
    with write_atomically(path) as temporary:
        temporary.write_bytes(b"half")
        assert not path.exists()
        assert leftovers(tmp_path) == [temporary]
        temporary.write_bytes(b"whole")
    assert path.read_bytes() == b"whole"
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_what_fails_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def write_half():
        with write_atomically(path) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_bytes() == b"old"
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
def test_a_replacement_that_fails_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError("broken disk")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, step, fail)
        with pytest.raises(OSError, match="broken disk"):
            write_text(path, "new")
    assert path.read_bytes() == b"old"
    assert not leftovers(tmp_path)


def test_places_where_no_file_can_be_are_errors(tmp_path):
    (tmp_path / "file").write_text("x")
    for place, error in (
        (tmp_path / "no" / "a", FileNotFoundError),
        (tmp_path / "file" / "a", NotADirectoryError),
        (tmp_path, IsADirectoryError),
    ):
        with pytest.raises(error):
            write_text(place, "new")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(FileExistsError, match="not a regular file"):
            write_text(tmp_path / "pipe", "new")


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_permissions_stay(tmp_path):
    path = tmp_path / "a"
    write_text(path, "new")
    path.chmod(0o640)
    write_text(path, "newer")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_texts_are_written_in_utf_8(tmp_path):
    write_text(tmp_path / "a", "naïve\n")
    assert (tmp_path / "a").read_bytes() == "naïve\n".encode()


def test_regular_files_are_told_from_others(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"content")
    assert is_regular(path)
    with open_regular(path) as file:
        assert file.read() == b"content"
    for function in (is_regular, open_regular):
        with pytest.raises(IsADirectoryError):
            function(tmp_path)
        with pytest.raises(FileNotFoundError):
            function(tmp_path / "b")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert not is_regular(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match=r"^is not a regular file$"):
        open_regular(tmp_path / "pipe")


def test_complaints_get_the_name_of_the_file():
    def fail():
        with named_errors("a\nb"):
            raise CheckpointError("is damaged") from ValueError("why")

    with pytest.raises(CheckpointError, match=r"^file 'a\\nb' is damaged$") as caught:
        fail()
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged: its header is not valid JSON"),
        (b"\xff", "is damaged: its header is not valid JSON"),
        ("[" * 100_000, "is damaged: its header is not valid JSON"),
        ('{"a": 1, "a": 2}', "is damaged: its header has 'a' more than once"),
        ('[{"b": {"c": 1, "c": 1}}]', "is damaged: its header has 'c' more than once"),
    ],
)
def test_what_is_no_strict_json_is_an_error(text, message):
    with pytest.raises(CheckpointError, match=message):
        parse_json(text, "its header")


def test_json_files(tmp_path):
    path = tmp_path / "a.json"
    write_text(path, '{"a": [1, 2.5, null]}')
    assert read_json(path) == {"a": [1, 2.5, None]}
    for content, message in (
        (b"{", "a.json' is damaged: it is not valid JSON"),
        (b"\xff\xfe", "a.json' is damaged: it is not UTF-8"),
        (b'{"a": 1, "a": 1}', "a.json' is damaged: it has 'a' more than once"),
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            read_json(path)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "b.json")
