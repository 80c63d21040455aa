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
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fffcpu.serve import app
from fffcpu.serve.settings import ServeSettings

__all__ = ["ENVIRONMENT", "environment_app", "run"]

_LOGGER = logging.getLogger("fffcpu.serve")

ENVIRONMENT = "FFFCPU_SERVE"
"""Variable with the path of a JSON file for workers: their models and settings.

API keys are in the file, which only the user of the server may read. An environment is inherited by
every child process, and shows up in reports of crashes.
"""

MAX_HEADERS = 1 << 15
"""Most bytes of a request's line and headers."""

HEADER_SECONDS = 10.0
"""Most seconds for a request's line and headers to arrive."""

LARGE_PART = 1 << 16
"""Bytes of a part of an answer from which on it is sent by itself."""

BACKLOG = 2048
"""Connections that may wait to be accepted."""

MAX_PIPELINE = 16
"""Most requests of a connection that wait for the answer to an earlier one."""

LINGER_SECONDS = 30.0
"""Seconds after which a closed connection is dropped whose client has not read the answer."""

KEEP_ALIVE = 75
"""Seconds after which a connection without a request is closed: more than the 60 of common proxies,
which otherwise send a request on a connection that ends at the same moment."""


class JoinedTransport:
    """A transport that sends what is written in one turn of the event loop at once.

    uvicorn writes the headers of an answer, and then its body. To send both with one call of the
    system saves a tenth of the time of a small request, here and at the client.
    """

    def __init__(self, transport: Any, is_unread: Callable[[], bool]) -> None:
        self.lingers = False
        """Whether what the client still sends is thrown away, until it has read the answer."""
        self._transport, self._is_unread = transport, is_unread
        self._parts: list[bytes] = []
        self._call_soon = asyncio.get_running_loop().call_soon

    def is_closing(self) -> bool:
        """Return whether there are no further answers."""
        return self.lingers or self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """Send some bytes at the end of this turn."""
        if self.lingers:
            return
        if len(data) > LARGE_PART:  # rather than copy it
            self._flush()
            self._transport.write(data)
            return
        if not self._parts:
            self._call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        """Send what is left, and close; drop what a client does not take for some time.

        To close a connection whose client still sends resets it, and the client may lose an answer
        that it has not read. So the rest of a request is taken, for some time, and thrown away.
        """
        self._flush()
        if not self.is_closing():
            asyncio.get_running_loop().call_later(LINGER_SECONDS, self._transport.abort)
        if self._is_unread() and not self.is_closing():
            self.lingers = True
            self._transport.write_eof()
            self._transport.resume_reading()
        else:
            self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            data = b"".join(self._parts)
            self._parts.clear()
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class GuardedProtocol(HttpToolsProtocol):
    """HTTP of clients that are slow, send headers without end, or do not wait for answers."""

    _deadline: asyncio.TimerHandle | None = None
    _reads_headers = False
    _in_message = False
    _unsettled = 0
    """Bytes since the parser last finished headers, or passed on a part of a body."""

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for headers."""
        # asyncio sends answers at once only on sockets that say they are TCP's; others wait up to
        # 40 ms for the client to confirm an answer's first part.
        own = transport.get_extra_info("socket")
        if own is not None and own.family in (socket.AF_INET, socket.AF_INET6):
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(JoinedTransport(transport, self._is_unread))  # type: ignore[arg-type]
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._go_on()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begin to read headers."""
        self._reads_headers = self._in_message = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        self._reads_headers, self._unsettled = False, 0
        super().on_headers_complete()
        if len(self.pipeline) > MAX_PIPELINE:
            self.transport.close()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._unsettled = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        self._in_message, self._unsettled = False, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """End an answer."""
        super().on_response_complete()
        if self._in_message and self._deadline is None:
            self._wait()  # for the rest of a body that nobody reads

    def data_received(self, data: bytes) -> None:
        """Take some bytes of a request."""
        if self.transport.lingers:  # type: ignore[attr-defined]
            return
        self._unsettled += len(data)
        super().data_received(data)
        if self._unsettled > MAX_HEADERS and self._in_message:  # headers, or what follows a body
            self._refuse(b"431 Request Header Fields Too Large")
        elif self._reads_headers or (self._in_message and self._answered()):
            if self._deadline is None:
                self._wait()
        elif self._deadline is not None:  # nearly always: the headers came at once
            self._go_on()

    def _is_unread(self) -> bool:
        """Return whether the client still sends a request."""
        return self._in_message and not self._reads_headers

    def _answered(self) -> bool:
        cycle: Any = self.cycle  # the last request of this connection
        return cycle is None or bool(cycle.response_complete)

    def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(HEADER_SECONDS, self._refuse, b"408 Request Timeout")

    def _go_on(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, status: bytes) -> None:
        """End a connection, unless it waits for an answer to a request that came whole."""
        self._go_on()
        cycle: Any = self.cycle
        if not self._answered() and not cycle.more_body:
            self._wait()
            return
        if self.transport.is_closing():
            return
        unanswered = cycle is not None and not cycle.response_started
        if self._reads_headers or unanswered:  # else the client has not asked for anything
            self.transport.write(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\n\r\n")
        if unanswered:  # what waits for the rest of the body, waits no longer
            cycle.disconnected = True
            cycle.message_event.set()
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
    values = json.loads(Path(os.environ[ENVIRONMENT]).read_text(encoding="utf-8"))
    settings = values["settings"]
    settings["keys"] = tuple(settings["keys"])
    configure_logs(settings["log"])
    if values["threads"] is not None:
        import fffcpu

        fffcpu.set_num_threads(values["threads"])
    application = app(values["models"], ServeSettings(**settings))
    application.on_unfinished = _leave
    return application


def _leave() -> None:
    """End this process, whose requests are answered, while a thread compiles."""
    _LOGGER.info("ended during a warm-up")
    os._exit(0)


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
        # For signals that come before uvicorn takes them. And it raises the one that ended it once
        # more.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: sys.exit(0))
        if workers == 1:
            server = uvicorn.Server(uvicorn.Config(application, **how))
            application.on_failure = lambda: setattr(server, "should_exit", True)
            application.on_unfinished = _leave
            server.run(sockets=[listening])
            if application.failed:
                raise RuntimeError("the models could not be warmed up; see the log")
            return
        how["port"] = listening.getsockname()[1]
    del application
    values = {"models": dict(models), "threads": threads} | {
        "settings": dataclasses.asdict(settings)
    }
    with tempfile.TemporaryDirectory(prefix="fffcpu-") as folder:
        path = Path(folder, "server.json")
        path.write_text(json.dumps(values), encoding="utf-8")
        os.environ[ENVIRONMENT] = str(path)
        uvicorn.run("fffcpu.serve.running:environment_app", factory=True, workers=workers, **how)


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens, or raise before anything else begins."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
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
