"""The number of CPUs that a container may use, from files like those of Linux."""

from __future__ import annotations

import math

import pytest

from fffcpu.system import cpus


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "250000 100000\n"}, 3),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "6400000 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu.max": "rubbish"}, 8),
        ({}, 8),
    ],
)
def test_a_limit_of_the_control_group_lowers_the_default(files, expected, tmp_path, monkeypatch):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(cpus, "CGROUP", tmp_path)
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    assert cpus.default_threads(8) == expected
    monkeypatch.setenv("NUMBA_NUM_THREADS", "8")
    assert cpus.default_threads(8) == 8


def test_without_a_control_group_there_is_no_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(cpus, "CGROUP", tmp_path / "nowhere")
    assert cpus.cpu_quota() == math.inf
