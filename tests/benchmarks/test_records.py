"""Records as JSON lines, of which an unfinished one is no record."""

from __future__ import annotations

from benchmarks.records import append_records, read_records


def test_records_come_back_in_their_order(tmp_path):
    path = tmp_path / "runs.jsonl"
    assert read_records(path) == []
    append_records(path, [{"a": 1}, {"a": "ü"}])
    append_records(path, [{"a": [2]}])
    assert read_records(path) == [{"a": 1}, {"a": "ü"}, {"a": [2]}]


def test_an_unfinished_record_is_ignored_and_removed(tmp_path):
    path = tmp_path / "runs.jsonl"
    append_records(path, [{"a": 1}])
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"a": 2')
    assert read_records(path) == [{"a": 1}]
    append_records(path, [{"a": 3}])
    assert path.read_bytes() == whole + b'{"a": 3}\n'
    path.write_bytes(b'{"a": 4')
    append_records(path, [{"a": 5}])
    assert read_records(path) == [{"a": 5}]
