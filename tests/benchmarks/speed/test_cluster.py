"""The benchmark of clusters prints its tables, and its formula has the end that the page names."""

from __future__ import annotations

import pytest

from tests.support.processes import run_module

pytest.importorskip("distributed", reason="the extra 'dask' is not installed")

from benchmarks.speed.cluster import Terms


@pytest.mark.slow
@pytest.mark.thorough
def test_the_benchmark_prints_its_tables():
    done = run_module("benchmarks.speed.cluster", "--quick", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    for words in ("| predict, two workers / one |", "| train, two", "| c, a shard |", "| 100 |"):
        assert words in done.stdout


def test_a_step_is_fastest_with_the_best_number_of_machines():
    terms = Terms(c=0.1, l=0.001, u=10**6, g=10**6, b=1e8, a=0.005, o=0.01)
    best = terms.best(400)
    assert best == pytest.approx((0.1 * 400 / 0.025) ** 0.5)
    steps = {count: terms.step(400, count) for count in (1, 10, 40, 200, 400)}
    assert min(steps, key=steps.get) == 40
    assert steps[1] == pytest.approx(40 + 0.001 + 0.025 + 0.01)
