"""The description of the machine."""

from __future__ import annotations

import json

import numpy as np

from fffcpu.benchmarking import machine as machines
from fffcpu.benchmarking.machine import describe_machine


def test_machine_is_described_in_plain_values():
    machine = describe_machine()
    versions = ["python", "numpy", "numba"]
    assert list(machine) == ["processor", "cores", "system", *versions, "thread_layer"]
    assert machine["thread_layer"] in ("tbb", "omp", "workqueue")
    assert machine["cores"] >= 1
    assert machine["numpy"] == np.__version__
    assert json.loads(json.dumps(machine)) == machine


def test_machine_without_numba_or_proc(monkeypatch):
    def missing(name: str) -> str:
        raise machines.importlib.metadata.PackageNotFoundError(name)

    def unreadable(*args: object, **options: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(machines.importlib.metadata, "version", missing)
    monkeypatch.setattr(machines.Path, "read_text", unreadable)
    machine = describe_machine()
    assert machine["numba"] == "not installed"
    assert machine["processor"]
