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
    found = [value for key, value in scope["headers"] if key == name]
    if len(found) > 1:
        raise RequestError(f"header '{name.decode()}' comes twice")
    return found[0].decode("latin-1") if found else None


class Bodies:
    """Reads bodies, and counts the bytes that are held at a time."""

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.held = 0

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
            raise self._too_large(most)
        encoding = header(scope, b"content-encoding")
        if encoding not in (None, "identity"):
            raise RequestError(
                f"a body must not be compressed, got {encoding[:80]!r}",
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            )
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.settings.timeout):
                more = True
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
                        raise self._too_large(most)
                    if self.held > self.settings.held_bytes:
                        raise RequestError(
                            "the server holds too many bodies already; try again later",
                            HTTPStatus.TOO_MANY_REQUESTS,
                        )
        except TimeoutError:
            self.held -= size
            raise RequestError(
                f"the body must arrive within {self.settings.timeout:g} s",
                HTTPStatus.REQUEST_TIMEOUT,
            ) from None
        except BaseException:
            self.held -= size
            raise
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def release(self, size: int) -> None:
        """Count the bytes of a body as no longer held."""
        self.held -= size

    def _too_large(self, most: int) -> RequestError:
        return RequestError(
            f"a body may have at most {most} bytes (--max-body)",
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        )
