"""The commands, one after the other."""

from __future__ import annotations

import pytest

from benchmarks.crossover import models, training
from benchmarks.records import read_records
from tests.support.processes import run_module


@pytest.mark.slow
@pytest.mark.thorough
def test_the_crossover_trains_times_and_shows(tmp_path):
    script, out = "benchmarks.crossover", tmp_path / "out"
    names = ["fff-1x3", "two-1x3", "leaf-2x8", "dense-4", "mlp-16", "boosting-20x8"]
    if models.HAS_LIGHTGBM:
        names += ["lightgbm-20x8", "lightgbm-100x8"]
    train = ("train", str(tmp_path), str(out), "--quick", "--data", "digits", "letters")
    for _ in range(2):  # the second finds nothing left to do
        done = run_module(script, *train, "--models", *names)
        assert done.returncode == 0, done.stderr
        assert f"letters left out: no {tmp_path / 'letters.csv'}" in done.stderr
    lines = read_records(out / "quick" / "models.jsonl")
    assert [line["model"] for line in lines] == [name for name in names for _ in range(4)]
    (best,) = training.chosen(out / "quick")["digits"]["fff-1x3"]
    path = models.model_path(out / "quick", best)
    before = path.read_bytes()
    path.unlink()  # a chosen model that is gone is made again
    done = run_module(script, *train, "--models", *names)
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == before
    again = read_records(out / "quick" / "models.jsonl")
    assert [{**line, "seconds": 0} for line in again[len(lines) :]] == [
        {**line, "seconds": 0} for line in lines if line["settings"] == best["settings"]
    ]
    timing = ("time", str(out), "--quick", "--repeats", "1", "--seconds", "0")
    done = run_module(script, *timing)
    assert done.returncode == 0, done.stderr
    (times,) = read_records(out / "quick" / "times.jsonl")
    assert set(times["batch"]) == set(times["alone"]) == set(names)
    done = run_module(script, "show", str(out), "--quick")
    assert done.returncode == 0, done.stderr
    assert all(f"| {name} | 1 |" in done.stdout for name in names)
    assert all(f"- **digits, {kind}**: " in done.stdout for kind in ("batch", "alone"))
    pictures = sorted(path.name for path in (out / "quick").glob("*.svg"))
    assert pictures == ["pareto-alone.svg", "pareto-multiply-adds.svg", "pareto.svg"]
