"""Processes that start and end: each way to end is seen, and a fork server ends well."""

from __future__ import annotations

import sys
from argparse import Namespace

import pytest

from benchmarks.reliability import processes

PROGRAMS = {
    "right": "pass",
    "failed": "raise SystemExit(3)",
    "hung": "import threading; threading.Event().wait()",
}


@pytest.mark.parametrize("end", PROGRAMS)
def test_each_way_to_end_is_seen(end, capsys):
    command = [sys.executable, "-c", PROGRAMS[end]]
    assert processes.run_once(command, 1 if end == "hung" else 60) == end
    assert ("exit status 3" in capsys.readouterr().err) == (end == "failed")


def test_ends_are_counted_and_reported():
    options = Namespace(jobs=2, starts=3, timeout=60)
    done = []
    ends = processes.run_often([sys.executable, "-c", ""], options, lambda: done.append(1))
    assert processes.summary(ends) == "3 right"
    assert len(done) == 3
    ends["hung"] = 1
    assert processes.summary(ends) == "3 right, 1 hung"


@pytest.mark.slow
@pytest.mark.thorough
def test_a_fork_server_ends_under_every_condition(tmp_path, capfd):
    path = processes.write_program(tmp_path, "fork server")
    with processes.conditions() as given:
        assert given[0] == processes.Condition("free", [])
        for condition in given:
            command = [*condition.prefix, sys.executable, str(path)]
            assert processes.run_once(command, 200) == "right", condition.name


@pytest.mark.slow
def test_a_wrong_result_is_a_failure(tmp_path, capfd):
    path = processes.write_program(tmp_path, "a thread")
    text = path.read_text(encoding="utf-8").replace("y = layer(x)", "y = layer(x) + 1e-6")
    path.write_text(text, encoding="utf-8")
    assert processes.run_once([sys.executable, str(path)], 200) == "failed"
