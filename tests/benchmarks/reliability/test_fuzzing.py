"""Fuzzing finds faults that are planted, none in what is right, and can be run again."""

from __future__ import annotations

import json
import sys
import tracemalloc
import warnings
from pathlib import Path
from random import Random

import numpy as np
import pytest

from benchmarks.reliability.fuzzing import __main__ as campaign
from benchmarks.reliability.fuzzing import mutations, slices
from benchmarks.reliability.fuzzing.arrays import ARRAY_CASES, check_arrays, hostile
from benchmarks.reliability.fuzzing.judging import (
    FLOOR,
    METER,
    OURS,
    Undecided,
    judge,
    judge_command,
)
from benchmarks.reliability.fuzzing.readers import READERS, FileReader
from fffcpu.errors import DataError
from tests.support.processes import run_module

TEXT = b"a,b\n1,2\n3,4\n"


def raising(error):
    def check():
        raise error

    return check


@pytest.mark.parametrize(
    ("check", "outcome", "signature"),
    [
        (lambda: None, "read", "read"),
        (raising(Undecided()), "read", "read"),
        (raising(DataError("file 'a.csv': no")), "refused", "DataError at outside: file ': no"),
        (raising(FileNotFoundError("a.csv")), "refused", "FileNotFoundError at outside"),
        (raising(DataError("some file: no")), "fault", "unnamed DataError"),
        (raising(KeyError("a.csv")), "fault", "raised KeyError"),
        (raising(MemoryError()), "fault", "raised MemoryError"),
        (raising(AssertionError("row 3 of 4")), "fault", "wrong: row 0 of 0"),
        (lambda: "row 3 of 4", "fault", "wrong: row 0 of 0"),
        (lambda: warnings.warn("overflow", stacklevel=1), "fault", "warning: overflow"),
        (lambda: warnings.warn("file 'a.csv' is odd", stacklevel=1), "read", "read file ' is odd"),
    ],
)
def test_what_counts_as_right(check, outcome, signature):
    verdict = judge(check, ["a.csv"])
    assert verdict.outcome == outcome
    assert verdict.signature.startswith(signature)


def test_how_commands_must_end(monkeypatch, tmp_path):
    assert judge_command(["info", str(tmp_path / "none")]).outcome == "refused"
    assert judge_command(["nonsense"]).outcome == "refused"

    def ending(status, *lines):
        def main(_):
            print(*lines, sep="\n", file=sys.stderr)
            if isinstance(status, Exception):
                raise status
            return status

        monkeypatch.setattr("benchmarks.reliability.fuzzing.judging.main", main)
        return judge_command([]).outcome

    assert ending(0) == "read"
    assert ending(1, "reading", "fffcpu: error: no") == "refused"
    assert ending(1, "fffcpu: error: no", "more") == "fault"
    assert ending(1, "no") == "fault"
    assert ending(1, "Traceback (most recent call last):", "fffcpu: error: no") == "fault"
    assert ending(-11) == "fault"
    assert ending(KeyError("a")) == "fault"


def mutate_all(seed):
    found = []
    for name, reader in READERS.items():
        rng = Random(f"{seed} {name}")
        found += [reader.mutate(rng, TEXT, [TEXT[::-1]]) for _ in range(20)]
    for mutate, data in SEEDS.items():
        rng = Random(seed)
        found += [mutate(rng, data, [data]) for _ in range(60)]
    return found


SEEDS = {
    mutations.json_text: json.dumps({"a": [1, {"b": None}], "c": {"d": "x"}}).encode(),
    mutations.idx: bytes((0, 0, 8, 1, 0, 0, 0, 3, 1, 2, 3)),
}


def test_mutations_depend_on_the_seed_alone():
    first = mutate_all(0)
    assert first == mutate_all(0)
    assert first != mutate_all(1)
    assert all(isinstance(data, bytes) for data in first)
    assert len(set(first)) > len(first) / 2


def planted(check):
    """A reader with a fault."""
    return FileReader(
        lambda folder: {"a.csv": TEXT}, mutations.csv_text, check, lambda path, rng: ["nonsense"]
    )


def look_at(check, folder, monkeypatch, count=200):
    """Run a slice of a reader with a fault, in this process; return its result."""
    monkeypatch.setitem(READERS, "planted", planted(check))
    monkeypatch.setattr(slices, "_limit_memory", lambda: None)
    return slices.run_slice(slices.Slice("planted", 0, 0, count), folder)


def test_a_planted_fault_is_found_kept_and_met_again(tmp_path, monkeypatch):
    def check(path, rng):
        if b"nan" in path.read_bytes():
            raise ZeroDivisionError("a.csv")

    result = look_at(check, tmp_path, monkeypatch)
    assert {fault["signature"] for fault in result["faults"]} == {
        "raised ZeroDivisionError at outside"
    }
    assert result["outcomes"]["read"] + result["outcomes"]["fault"] == 200
    case = result["faults"][0]["case"]
    assert b"nan" in (tmp_path / f"fault-planted-{case}-a.csv").read_bytes()
    again = look_at(check, tmp_path, monkeypatch)
    assert again["faults"] == result["faults"]


def test_memory_beyond_the_limit_is_a_fault(tmp_path, monkeypatch):
    def check(path, rng):
        with METER:
            np.ones(FLOOR // 4)

    result = look_at(check, tmp_path, monkeypatch, count=1)
    assert result["faults"][0]["signature"] == "memory: read"
    assert result["largest"]["multiple"] > slices.MULTIPLE
    assert not tracemalloc.is_tracing()


def test_a_slice_that_dies_is_run_again_without_the_case(tmp_path, monkeypatch):
    tried = []

    def process(cases, folder):
        tried.append(cases.skipped)
        if len(tried) == 1:
            (folder / "current-csv-0").write_text("17          ")
            (folder / "dead-csv-0.txt").write_text("Fatal Python error: Segmentation fault")
            return campaign.subprocess.CompletedProcess([], -11, "", "")
        result = {**cases._asdict(), "outcomes": {"read": 19}, "signatures": {}, "faults": []}
        result |= {"largest": {"peak": 0, "bytes": 0, "multiple": 0.0}, "seconds": 1.0}
        return campaign.subprocess.CompletedProcess([], 0, f"{json.dumps(result)}\n", "")

    monkeypatch.setattr(campaign, "_process", process)
    monkeypatch.setattr(
        sys, "argv", ["fuzzing", "--folder", str(tmp_path), "--only", "csv", "--cases", "20"]
    )
    assert campaign.main() == 1
    assert tried == [(), (17,)]
    assert campaign.main() == 1  # from the result that is kept
    assert len(tried) == 2


@pytest.mark.parametrize("function", dict.fromkeys(ARRAY_CASES), ids=lambda f: f.__name__)
def test_hostile_arrays_are_taken_or_refused(function):
    for seed in range(60):
        verdict = judge(lambda s=seed: check_arrays(Random(s), function))
        assert verdict.outcome != "fault", f"{seed}: {verdict.detail}"


def test_hostile_arrays_are_of_every_kind():
    drawn = [hostile(Random(seed), 3) for seed in range(600)]
    kinds = {type(value.value).__name__ for value in drawn}
    assert {"ndarray", "list", "tuple", "NoneType", "MaskedArray", "_Subclass"} <= kinds
    arrays = [value.value for value in drawn if isinstance(value.value, np.ndarray)]
    assert len({array.dtype for array in arrays}) > 15
    assert any(0 in array.strides for array in arrays)
    assert any(stride < 0 for array in arrays for stride in array.strides)
    assert any(not array.flags.aligned for array in arrays)
    assert any(not array.flags.writeable for array in arrays)
    assert 200 < sum(value.right is not None for value in drawn) < 550


def test_errors_of_ours_are_those_of_the_package():
    assert all(kind.__module__ == "fffcpu.errors" for kind in OURS)


@pytest.mark.slow
def test_a_short_campaign_finds_nothing_and_is_done_once(tmp_path):
    arguments = ("--folder", str(tmp_path), "--only", "npz", "--cases", "30")
    done = run_module("benchmarks.reliability.fuzzing", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    row = done.stdout.splitlines()[1].split()
    assert row[:2] == ["npz", "30"]
    assert int(row[2]) + int(row[3]) == 30
    result = next(tmp_path.glob("npz-0-0-30.json"))
    before = result.stat().st_mtime_ns
    assert run_module("benchmarks.reliability.fuzzing", *arguments).returncode == 0
    assert result.stat().st_mtime_ns == before
    replayed = run_module(
        "benchmarks.reliability.fuzzing", "--folder", str(tmp_path), "--replay", "npz:7"
    )
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    assert Path(tmp_path / "current-npz-0").read_text().strip() == "7"
