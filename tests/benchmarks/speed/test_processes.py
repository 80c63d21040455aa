"""Benchmarks of threads, compilation and products, in processes of their own, print tables."""

from __future__ import annotations

import pytest

from tests.support.processes import run_module


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.parametrize(
    ("script", "options", "figures"),
    [
        (
            "benchmarks.speed.threads",
            ("--calls", "2"),
            ["FFF, B = 4", "GEMM, B = 8", "empty kernel"],
        ),
        (
            "benchmarks.speed.compile",
            (),
            ["first result, 16 rows, empty cache", "`_path_infer`, compiled", "from the cache"],
        ),
        (
            "benchmarks.speed.products",
            ("--seconds", "0"),
            ["20 x 30, by output", "30 x 20, by input"],
        ),
    ],
)
def test_scripts_print_their_tables(script, options, figures):
    done = run_module(script, "--quick", "--repeats", "1", *options, NUMBA_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr
    table = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    for figure in figures:
        assert any(figure in line for line in table), figure
