"""Requests to stop: noted once, obeyed at once the second time, and forgotten afterwards."""

from __future__ import annotations

import signal
import threading

import pytest

from fffcpu.training.interruption import StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_second_interrupts(number):
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with StopRequest() as stop:
        assert not stop.made
        signal.raise_signal(number)
        assert stop.made
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before


def test_another_thread_leaves_handlers_alone():
    before, seen = signal.getsignal(signal.SIGINT), []

    def enter():
        with StopRequest() as stop:
            seen.extend([signal.getsignal(signal.SIGINT), stop.made])

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before, False]
    assert signal.getsignal(signal.SIGINT) is before
