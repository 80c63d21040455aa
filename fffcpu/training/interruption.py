"""Ctrl-C and SIGTERM: a request to stop, which a run obeys after the current step."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["StopRequest"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """A context in which the first signal is noted, and a second one interrupts at once.

    Python lets only the main thread handle signals. Entered by another thread, it does nothing.

    Attributes
    ----------
    made : bool
        Whether a stop was requested.
    """

    def __init__(self) -> None:
        self.made = False
        self._handlers_before: list[Any] = []

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._handlers_before = [signal.signal(number, self._note) for number in _SIGNALS]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in zip(_SIGNALS, self._handlers_before, strict=False):
            if handler is not None:  # one that was not installed from Python cannot be put back
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.made:
            raise KeyboardInterrupt
        self.made = True
