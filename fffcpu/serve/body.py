"""Bodies of requests: bounded in size, in time and in number."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any

from fffcpu.serve.errors import ClientLeftError, RequestError
from fffcpu.serve.settings import ServeSettings

__all__ = ["Bodies", "header"]

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


def header(scope: MutableMapping[str, Any], name: bytes) -> str | None:
    """Return the value of a header, by its name in lower case; None if there is none.

    Raises
    ------
    RequestError
        If it comes twice.
    """
    headers = scope["headers"]
    found = scope.get("fffcpu.headers")
    if found is None:
        found = scope["fffcpu.headers"] = dict(headers)
    value = found.get(name)
    if value is None:
        return None
    if len(found) < len(headers) and [key for key, _ in headers].count(name) > 1:
        raise RequestError(f"header '{name.decode()}' comes twice")
    text: str = value.decode("latin-1")
    return text


class Bodies:
    """Reads bodies, and counts the bytes that are held at a time.

    One timer looks for bodies that are late: a timer for each would take as long as to read most.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.held = 0
        self._reading: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._looks = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def read(self, scope: MutableMapping[str, Any], receive: Receive) -> bytes:
        """Return the body of a request. `release` must follow when it is no longer needed.

        Raises
        ------
        RequestError
            If it is too large or too slow, or if all bodies together are too large.
        ClientLeftError
            If the client has left.
        """
        most = self.settings.max_body
        told = header(scope, b"content-length")
        if told is not None and told.isdigit() and int(told[:20]) > most:
            raise _too_large(most)
        encoding = header(scope, b"content-encoding")
        if encoding not in (None, "identity"):
            raise RequestError(
                f"a body must not be compressed, got {encoding[:80]!r}",
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                unread=True,
            )
        parts: list[bytes] = []
        size = 0
        more = True
        task = self._begin()
        try:
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeftError
                part = message.get("body", b"")
                more = message.get("more_body", False)
                size += len(part)
                self.held += len(part)
                parts.append(part)
                if size > most:
                    raise _too_large(most)
                if self.held > self.settings.held_bytes:
                    raise RequestError(
                        "the server holds too many bodies already; try again later",
                        HTTPStatus.TOO_MANY_REQUESTS,
                        unread=True,
                    )
        except BaseException as error:
            self.held -= size
            if isinstance(error, asyncio.CancelledError) and task in self._late:
                task.uncancel()
                raise RequestError(
                    f"the body must arrive within {self.settings.timeout:g} s",
                    HTTPStatus.REQUEST_TIMEOUT,
                    unread=True,
                ) from None
            raise
        finally:
            del self._reading[task]
            self._late.discard(task)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _begin(self) -> asyncio.Task[Any]:
        """Note that this task reads a body, and until when it may."""
        loop = self._loop
        if loop is None or loop.is_closed():
            self._looks = False
            # Once: to ask for it asks the system for the number of the process, each time.
            loop = self._loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None
        self._reading[task] = loop.time() + self.settings.timeout
        if not self._looks:
            self._looks = True
            loop.call_later(self._pause, self._look)
        return task

    @property
    def _pause(self) -> float:
        """Seconds between looks for late bodies."""
        return min(1.0, self.settings.timeout / 8)

    def _look(self) -> None:
        """Stop the tasks whose bodies are late."""
        loop = self._loop
        assert loop is not None
        now = loop.time()
        for task, until in self._reading.items():
            if until < now and task not in self._late:
                self._late.add(task)
                task.cancel()
        self._looks = bool(self._reading)
        if self._looks:
            loop.call_later(self._pause, self._look)

    def hold(self, size: int) -> None:
        """Count the bytes of an answer as held."""
        self.held += size

    def release(self, size: int) -> None:
        """Count the bytes of a body, or of an answer, as no longer held."""
        self.held -= size


def _too_large(most: int) -> RequestError:
    return RequestError(
        f"a body may have at most {most} bytes (--max-body)",
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        unread=True,
    )
