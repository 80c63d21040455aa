"""An application run by uvicorn: signals, slow clients, logs."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fffcpu.serve import app
from fffcpu.serve.settings import ServeSettings

__all__ = ["ENVIRONMENT", "environment_app", "run"]

_LOGGER = logging.getLogger("fffcpu.serve")

ENVIRONMENT = "FFFCPU_SERVE"
"""Variable that tells workers their models and settings, as JSON."""

MAX_HEADERS = 1 << 15
"""Most bytes of a request's line and headers."""

HEADER_SECONDS = 10.0
"""Most seconds for a request's line and headers to arrive."""

LARGE_PART = 1 << 16
"""Bytes of a part of an answer from which on it is sent by itself."""

BACKLOG = 2048
"""Connections that may wait to be accepted."""

KEEP_ALIVE = 75
"""Seconds after which a connection without a request is closed: more than the 60 of common proxies,
which otherwise send a request on a connection that ends at the same moment."""


class JoinedTransport:
    """A transport that sends what is written in one turn of the event loop at once.

    uvicorn writes the headers of an answer, and then its body. To send both with one call of the
    system saves a tenth of the time of a small request, here and at the client.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._parts: list[bytes] = []
        self._call_soon = asyncio.get_running_loop().call_soon

    def write(self, data: bytes) -> None:
        """Send some bytes at the end of this turn."""
        if len(data) > LARGE_PART:  # rather than copy it
            self._flush()
            self._transport.write(data)
            return
        if not self._parts:
            self._call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        """Send what is left, and close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            data = b"".join(self._parts)
            self._parts.clear()
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class GuardedProtocol(HttpToolsProtocol):
    """HTTP of clients that are slow, or send headers without end."""

    _deadline: asyncio.TimerHandle | None = None
    _reads_headers = False
    _taken = 0
    """Bytes that came while headers were incomplete."""

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for headers."""
        super().connection_made(JoinedTransport(transport))  # type: ignore[arg-type]
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._have_headers()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begin to read headers."""
        self._reads_headers = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        self._reads_headers = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Take some bytes of a request."""
        super().data_received(data)
        if not self._reads_headers:  # nearly always: they came at once
            if self._deadline is not None:
                self._have_headers()
            return
        if self._deadline is None:
            self._wait_for_headers()
        self._taken += len(data)
        if self._taken > MAX_HEADERS:
            self._refuse(b"431 Request Header Fields Too Large")

    def _wait_for_headers(self) -> None:
        self._taken = 0
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(HEADER_SECONDS, self._refuse, b"408 Request Timeout")

    def _have_headers(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, status: bytes) -> None:
        """End a connection."""
        self._have_headers()
        if not self.transport.is_closing():
            if self._taken:  # else the client has not asked for anything
                self.transport.write(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\n\r\n")
            self.transport.close()


class JsonFormatter(logging.Formatter):
    """A line of JSON for each record."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        values = {
            "time": at.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fffcpu", {}),
        }
        if record.exc_info:
            values["error"] = self.formatException(record.exc_info)
        return json.dumps(values)


def configure_logs(log: str) -> None:
    """Send the logs of the server to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    form = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(JsonFormatter() if log == "json" else form)
    for name in ("fffcpu", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    logging.getLogger("uvicorn.access").disabled = True


def environment_app() -> Any:
    """Return the application that a worker finds in its environment."""
    values = json.loads(os.environ[ENVIRONMENT])
    settings = values["settings"]
    settings["keys"] = tuple(settings["keys"])
    configure_logs(settings["log"])
    if values["threads"] is not None:
        import fffcpu

        fffcpu.set_num_threads(values["threads"])
    return app(values["models"], ServeSettings(**settings))


def run(
    models: Mapping[str, str],
    settings: ServeSettings,
    host: str,
    port: int,
    *,
    workers: int = 1,
    threads: int | None = None,
) -> None:
    """Serve models until SIGINT or SIGTERM; then accepted requests are answered, and this returns.

    Parameters
    ----------
    models : mapping of str to str
        Names and paths.
    settings : ServeSettings
        The settings.
    host, port
        The address; port 0 takes a free one.
    workers : int
        Number of processes.
    threads : int, optional
        Threads of each.

    Raises
    ------
    OSError
        If the address is taken.
    """
    how: dict[str, Any] = {
        "host": host,
        "port": port,
        "http": GuardedProtocol,
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "timeout_keep_alive": KEEP_ALIVE,
        "timeout_graceful_shutdown": max(1, round(settings.drain)),
        "server_header": False,
        "proxy_headers": False,
    }
    configure_logs(settings.log)
    with _listen(host, port) as listening:
        application = app(models, settings)  # also where workers open their own: errors come here
        shown = f"[{host}]" if ":" in host else host
        _LOGGER.info("listening on http://%s:%d", shown, listening.getsockname()[1])
        # uvicorn raises the signal that ended it once more; this makes that harmless, so that the
        # program ends by itself, with status 0.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        if workers == 1:
            uvicorn.Server(uvicorn.Config(application, **how)).run(sockets=[listening])
            return
        how["port"] = listening.getsockname()[1]
    del application
    values = {"models": dict(models), "threads": threads} | {
        "settings": dataclasses.asdict(settings)
    }
    os.environ[ENVIRONMENT] = json.dumps(values)
    uvicorn.run("fffcpu.serve.running:environment_app", factory=True, workers=workers, **how)


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens, or raise before anything else begins."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends answers at once only on sockets that say they are TCP's; others wait up to 40 ms
    # for the client to confirm an answer's first part.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # elsewhere it would let two servers share a port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise OSError(f"the server cannot listen on {host}:{port}: {error.strerror}") from error
    return listening
