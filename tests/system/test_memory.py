"""Memory is foreseen, and freed memory comes back without the system's help."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fffcpu.errors import NotEnoughMemoryError
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


# --- What is available ----------------------------------------------------------------------------

GIB = 1 << 30


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with 8 GiB available and 1 GiB of swap space, and control groups on request."""
    process = tmp_path / "proc" / "self"
    process.mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text(
        f"MemTotal: {16 << 20} kB\nMemAvailable: {8 << 20} kB\nSwapFree: {1 << 20} kB\n"
    )
    monkeypatch.setattr(freed_memory.cgroups, "ROOT", tmp_path)
    monkeypatch.setattr(freed_memory, "_reusable", lambda: 0)
    monkeypatch.setattr(freed_memory, "_RESOURCES", ())

    def groups(version, files):
        kind = "cgroup2 x rw" if version == 2 else "cgroup x rw,memory"
        line = "0::/a/b\n" if version == 2 else "4:memory:/a/b\n"
        (process / "cgroup").write_text(line)
        (process / "mountinfo").write_text(f"1 2 0:1 / /groups rw - {kind}\n")
        (tmp_path / "groups" / "a" / "b").mkdir(parents=True)
        for name, text in files.items():
            (tmp_path / "groups" / name).write_text(f"{text}\n")

    return groups


def test_a_machine_gives_what_is_free_and_its_swap_space(machine):
    assert freed_memory.available_memory() == (9 * GIB, "this machine has only")


@pytest.mark.parametrize(
    ("version", "files", "expected"),
    [
        (2, {"a/b/memory.max": 4 * GIB, "a/b/memory.current": GIB}, 4),  # 3, and 1 of swap
        (2, {"a/memory.max": 4 * GIB, "a/memory.current": 2 * GIB}, 3),  # an ancestor's
        (2, {"a/b/memory.max": "max", "a/b/memory.current": GIB}, 9),
        (
            2,
            {
                "a/b/memory.max": 4 * GIB,
                "a/b/memory.current": 3 * GIB,
                "a/b/memory.stat": f"anon 5\ninactive_file {GIB}\nactive_file {GIB}",
                "a/b/memory.swap.max": 0,
                "a/b/memory.swap.current": 0,
            },
            3,  # files in memory give way, and there is no swap
        ),
        (2, {"a/b/memory.max": GIB, "a/b/memory.current": 5 * GIB}, 0),
        (1, {"a/memory.limit_in_bytes": 4 * GIB, "a/memory.usage_in_bytes": 2 * GIB}, 3),
        (1, {"memory.limit_in_bytes": (1 << 63) - 4096, "memory.usage_in_bytes": GIB}, 9),
        (
            1,
            {
                "a/b/memory.limit_in_bytes": 4 * GIB,
                "a/b/memory.usage_in_bytes": 2 * GIB,
                "a/b/memory.memsw.limit_in_bytes": 4 * GIB,
                "a/b/memory.memsw.usage_in_bytes": 2 * GIB,
                "a/b/memory.stat": f"total_inactive_file {GIB}",
            },
            3,
        ),
    ],
)
def test_every_control_group_counts(machine, version, files, expected):
    machine(version, files)
    assert freed_memory.available_memory().nbytes == expected * GIB


def test_what_was_freed_and_kept_counts_as_available(machine, monkeypatch):
    monkeypatch.setattr(freed_memory, "_reusable", lambda: GIB)
    assert freed_memory.available_memory().nbytes == 10 * GIB


LIMITED = """
import resource
resource.setrlimit(resource.{name}, (1 << 32, 1 << 32))
from fffcpu import FastFeedForward
try:
    FastFeedForward(64, 64, 25)
except MemoryError as error:
    print(error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of Linux")
@pytest.mark.parametrize(("name", "command"), [("RLIMIT_AS", "-v"), ("RLIMIT_DATA", "-d")])
def test_limits_of_the_process_count(name, command):
    program = [sys.executable, "-c", LIMITED.format(name=name)]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert f"the limit of this process (ulimit {command}) leaves only" in done.stdout
    assert "the deepest tree that fits has depth 2" in done.stdout  # 21 or 22


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="figures of Linux")
def test_the_figures_of_this_machine_are_read():
    assert 0 < freed_memory.available_memory().nbytes < 1 << 60


# --- The check ------------------------------------------------------------------------------------


def test_too_much_is_an_error_that_says_what_fits(machine):
    with pytest.raises(MemoryError) as caught:
        freed_memory.check_memory(20 * GIB, "a table", lambda most: f"{most >> 30} GiB would fit")
    assert isinstance(caught.value, NotEnoughMemoryError)
    assert str(caught.value) == (
        "a table needs 21.5 GB, but this machine has only 9.66 GB; 9 GiB would fit"
    )


@pytest.mark.parametrize("nbytes", [0, 9 * GIB])
def test_what_fits_passes(machine, nbytes):
    freed_memory.check_memory(nbytes, "a table")


def test_small_sizes_are_not_looked_at(monkeypatch):
    monkeypatch.setattr(freed_memory, "available_memory", None)
    freed_memory.check_memory(freed_memory.CHECKED_BYTES - 1, "a table")


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (3 << 30, "3.22 GB"), (1e20, "100 EB")],
)
def test_bytes_have_a_unit_that_suits_them(nbytes, text):
    assert freed_memory.format_bytes(nbytes) == text
