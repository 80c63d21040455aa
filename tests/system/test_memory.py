"""Freed memory comes back without the system's help."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fffcpu.system import memory as freed_memory

PAGES = """
import resource, sys
import numpy as np
from fffcpu.system.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def fill():
    blocks = [np.empty(1 << 27, np.float32) for _ in range(5)]  # 2.5 GiB
    for block in blocks:
        block[:: 1 << 24] = 1  # a page of each 64 MiB
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Pages that arrays cost when they are made again 20 times, a few pages of each being used."""
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


class Older:
    """A C library that takes no large threshold, as glibc before 2.35."""

    def __init__(self) -> None:
        self.taken: dict[int, int] = {}

    def mallopt(self, parameter: int, value: int) -> int:
        if (parameter, value) == (-3, 1 << 30):
            return 0
        self.taken[parameter] = value
        return 1


def test_older_libraries_keep_what_they_can(monkeypatch):
    older = Older()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(freed_memory.ctypes, "CDLL", lambda name: older)
    assert freed_memory.keep_freed_memory()
    assert older.taken == {-1: -1, -2: 1 << 26, -3: 1 << 25}


def test_other_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(freed_memory.ctypes, "CDLL", lambda name: object())
    assert not freed_memory.keep_freed_memory()
