"""The benchmark of all goals."""

from __future__ import annotations

import json

import pytest

from tests.support.processes import run_module


@pytest.mark.slow
def test_sections_of_the_layer_benchmark_are_checked_and_timed():
    options = ("--quick", "--rounds", "1", "--seconds", "0", "--json")
    sections = ("int8", "bfloat16", "growth", "training", "one-row", "leaf")
    done = run_module("benchmarks.speed.layers", *options, "--only", *sections)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    titles = [race["title"] for race in found["races"]]
    assert {"bfloat16, depth 2", "growth, B = 64", "one row from Python"} <= set(titles)
    timing = found["races"][titles.index("one row from Python")]["timings"][0]
    assert timing["name"] == "the same row"
    assert timing["roofline_microseconds_per_row"] > 0
    assert any("forward and backward / inference" in figure["what"] for figure in found["figures"])
    assert found["command"].startswith("python -m benchmarks.speed.layers --quick ")
