"""Files that appear whole or not at all, and JSON that is read strictly."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from fffcpu.errors import CheckpointError
from fffcpu.system import files
from fffcpu.system.files import (
    TEMPORARY,
    append_line,
    is_regular,
    named_errors,
    open_regular,
    parse_json,
    read_json,
    write_atomically,
    write_in_folder,
    write_text,
    write_together,
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


# --- Files that belong together -------------------------------------------------------------------


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def write_both(folder, text="new"):
    with write_together(folder / "a", folder / "b") as (first, second):
        first.write_text(f"{text} a")
        second.write_text(f"{text} b")


def test_files_that_belong_together_appear_together(tmp_path):
    write_both(tmp_path, "old")
    with write_together(tmp_path / "a", tmp_path / "b") as (first, second):
        first.write_text("new a")
        assert {path.name for path in (tmp_path / "a", tmp_path / "b")} <= set(contents(tmp_path))
        assert (tmp_path / "a").read_text() == "old a"
        second.write_text("new b")
    assert contents(tmp_path) == {"a": "new a", "b": "new b"}


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize("name", ["open", "chmod", "fsync"])
def test_no_file_is_replaced_before_all_are_on_the_disk(tmp_path, monkeypatch, name, call):
    write_both(tmp_path, "old")
    real, calls = getattr(os, name), []

    def fail(*arguments, **options):
        calls.append(name)
        return full() if len(calls) == call else real(*arguments, **options)

    monkeypatch.setattr(os, name, fail)
    with pytest.raises(OSError, match="No space left") as caught:
        write_both(tmp_path)
    monkeypatch.undo()
    assert caught.value.filename == str(tmp_path / ("b" if (name, call) == ("open", 2) else "a"))
    assert contents(tmp_path) == {"a": "old a", "b": "old b"}


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    def write():
        with write_atomically(tmp_path / "a"):
            full()

    with pytest.raises(OSError, match="No space left") as caught:
        write()
    assert caught.value.filename == str(tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_other_errors_of_a_block_keep_their_names(tmp_path):
    def write(error):
        with write_atomically(tmp_path / "a"):
            raise error

    for error in (FileNotFoundError(2, "none", "input"), BrokenPipeError(32, "closed")):
        with pytest.raises(OSError) as caught:
            write(error)
        assert caught.value is error


def test_a_new_folder_appears_with_all_of_its_files(tmp_path):
    place = tmp_path / "above" / "folder"
    with write_in_folder(place) as folder:
        write_both(folder)
        assert not place.exists()
    assert contents(place) == {"a": "new a", "b": "new b"}
    with write_in_folder(place) as folder:
        assert folder == place
        (folder / "a").write_text("newer")
    assert contents(place)["a"] == "newer"
    assert [path.name for path in place.parent.iterdir()] == ["folder"]


def test_a_folder_that_fails_leaves_nothing(tmp_path):
    def write():
        with write_in_folder(tmp_path / "folder") as folder:
            (folder / "a").write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device", str(folder / "a"))

    with pytest.raises(OSError, match="No space left") as caught:
        write()
    assert caught.value.filename == str(tmp_path / "folder" / "a")
    assert not list(tmp_path.iterdir())


# --- Lines that are appended ----------------------------------------------------------------------


def test_lines_are_appended(tmp_path):
    for line in ("one", "zwei ä"):
        append_line(tmp_path / "a", line)
    assert (tmp_path / "a").read_text(encoding="utf-8") == "one\nzwei ä\n"


def test_a_line_that_does_not_fit_leaves_the_lines_before(tmp_path, monkeypatch):
    path = tmp_path / "a"
    append_line(path, "one")
    real = os.write

    def write_a_part(descriptor, data):
        return full() if len(data) < 5 else real(descriptor, data[:2])

    monkeypatch.setattr(os, "write", write_a_part)
    with pytest.raises(OSError, match="No space left") as caught:
        append_line(path, "another")
    monkeypatch.undo()
    assert caught.value.filename == str(path)
    assert path.read_text() == "one\n"


def test_a_disk_with_too_little_room_is_an_error(tmp_path, monkeypatch):
    usage = files.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    place = tmp_path / "a" / "b"
    files.check_disk(place, 1000, "a run")
    with pytest.raises(OSError, match=r"a run needs 1.1 kB in folder '.*b'.* only 1 kB") as caught:
        files.check_disk(place, 1100, "a run")
    assert caught.value.errno == errno.ENOSPC
    place.mkdir(parents=True)
    (place / "old").write_bytes(bytes(100))  # it will be replaced
    files.check_disk(place, 1100, "a run")
