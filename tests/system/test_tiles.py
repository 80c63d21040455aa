"""Tiles are asked for once, and only where Linux has them."""

from __future__ import annotations

import ctypes

import pytest

from fffcpu.system import tiles


class Library:
    """A C library whose system calls give one answer."""

    def __init__(self, answer):
        self.answer, self.calls = answer, []

    def syscall(self, *arguments):
        self.calls.append(arguments)
        return self.answer


@pytest.fixture
def on_linux(monkeypatch):
    monkeypatch.setattr(tiles.sys, "platform", "linux")
    monkeypatch.setattr(tiles.platform, "machine", lambda: "x86_64")


@pytest.mark.parametrize(("answer", "expected"), [(0, True), (-1, False)])
def test_the_answer_of_the_system_decides(answer, expected, on_linux, monkeypatch):
    library = Library(answer)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: library)
    assert tiles.permitted.__wrapped__() is expected
    assert library.calls == [(158, 0x1023, 18)]


@pytest.mark.parametrize(("system", "machine"), [("darwin", "x86_64"), ("linux", "aarch64")])
def test_other_systems_are_not_asked(system, machine, monkeypatch):
    monkeypatch.setattr(tiles.sys, "platform", system)
    monkeypatch.setattr(tiles.platform, "machine", lambda: machine)
    monkeypatch.setattr(ctypes, "CDLL", None)
    assert not tiles.permitted.__wrapped__()
