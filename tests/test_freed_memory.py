"""Freed memory comes back without the system's help."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fffcpu import freed_memory

PAGES = """
import resource, sys
import numpy as np
from fffcpu.freed_memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def fill():
    np.ones(1 << 24, np.float32)
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Pages that 20 arrays of 64 MiB cost, once one such array was made and freed."""
    command = [sys.executable, "-c", PAGES, how]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only glibc can be told to keep memory"
)
def test_arrays_made_again_cost_no_pages():
    assert faults("keep") < 100 <= faults("give back")


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not freed_memory.keep_freed_memory()


def test_other_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(freed_memory.ctypes, "CDLL", lambda name: object())
    assert not freed_memory.keep_freed_memory()
