"""How many threads kernels may use, with Numba and without it."""

from __future__ import annotations

import sys

import pytest

import fffcpu
from fffcpu.errors import ArgumentError, ArgumentTypeError
from fffcpu.system.threads import get_num_threads, get_thread_layer, set_num_threads


@pytest.fixture
def no_numba(monkeypatch):
    """Numba looks as if it were not installed."""
    monkeypatch.setitem(sys.modules, "numba", None)


def test_the_package_hands_the_number_on():
    assert fffcpu.get_num_threads is get_num_threads
    assert fffcpu.set_num_threads is set_num_threads


def test_there_is_one_thread_without_numba(no_numba):
    assert get_num_threads() == 1
    set_num_threads(1)
    assert get_num_threads() == 1
    assert get_thread_layer() == "none"


@pytest.mark.parametrize(
    ("threads", "error"),
    [(2, ArgumentError), (0, ArgumentError), (True, ArgumentTypeError), ("a", ArgumentTypeError)],
)
def test_other_numbers_of_threads_are_errors_without_numba(no_numba, threads, error):
    with pytest.raises(error, match="argument 'threads' must be an integer from 1 to 1, got "):
        set_num_threads(threads)
