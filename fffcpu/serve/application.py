"""The ASGI application: routes, and what every request passes through."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hmac
import itertools
import json
import logging
import operator
import os
import re
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fffcpu import __version__
from fffcpu.serve import embeddings, page
from fffcpu.serve.batching import Batcher, Waiting
from fffcpu.serve.body import Bodies, header
from fffcpu.serve.errors import ClientLeftError, RequestError
from fffcpu.serve.metrics import NO_MODEL, Metrics
from fffcpu.serve.models import Job, Outputs, ServedModel, TextModel
from fffcpu.serve.registry import Registry
from fffcpu.serve.responses import json_response
from fffcpu.serve.settings import ServeSettings
from fffcpu.serve.tensors import InferRequest, decode_request, encode_response

__all__ = ["Application", "Server"]

_LOGGER = logging.getLogger("fffcpu.serve")
_REQUESTS = logging.getLogger("fffcpu.serve.requests")

HEADER_LENGTH = b"inference-header-content-length"
MODELS, INFER = "/v2/models/", "/infer"
"""Beginning and end of the paths of inference, around the name of a model."""

OPEN = ("/v2/health/live", "/v2/health/ready", *page.FILES)
"""Paths that need no key: those who ask whether a server lives have none, and a browser that opens
the page is asked for one there."""

CHUNK = 1 << 20
"""Bytes of a large answer that are sent at a time, so that it waits for a client that is slow."""

REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
LEFT = 499
"""Status in the log of a request whose client has left; nobody receives it."""

LARGE_BODY, LARGE_TEXTS, LARGE_OUTPUTS = 1 << 18, 1 << 15, 1 << 16
"""Bytes of a body, those of one with texts, and numbers of an answer from which on a thread reads
or writes it. The event loop then goes on in between, a few milliseconds at a time."""

SIZE = operator.attrgetter("size")

VERSION = "/versions/1"
"""Part of a path that names the only version of a model."""

JSON_TYPE = (b"content-type", b"application/json")
BYTES_TYPE = (b"content-type", b"application/octet-stream")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Server:
    """What the routes share: models, batches, figures, bounds.

    Parameters
    ----------
    models : mapping
        See `fffcpu.serve.app`.
    settings : ServeSettings
        The settings.
    """

    def __init__(self, models: Mapping[str, Any], settings: ServeSettings) -> None:
        self.settings = settings
        self.registry = Registry(models, settings.max_outputs)
        self.metrics = Metrics()
        self.bodies = Bodies(settings)
        self.drawing = asyncio.Lock()
        self.batcher = Batcher(settings.max_batch_rows, settings.queue, self._count)

    def _count(
        self, model: ServedModel, batch: Sequence[Waiting], start: float, seconds: float
    ) -> None:
        self.metrics.computed(model.name, batch, start, seconds, len(self.batcher.line))

    def model(self, name: str) -> ServedModel:
        """Return a model that can compute.

        Raises
        ------
        RequestError
            If there is none of that name, or the kernels are not ready yet.
        """
        model = self.registry.get(name)
        if not self.registry.ready:
            raise RequestError(
                "the server is not ready yet; GET /v2/health/ready answers 200 as soon as it is",
                HTTPStatus.SERVICE_UNAVAILABLE,
            )
        return model

    async def load(self, name: str) -> None:
        """Read a model anew; what fails is in the log as well.

        Raises
        ------
        RequestError
            See `Registry.load`.
        """
        try:
            await self.registry.load(name)
        except RequestError as error:
            _LOGGER.error("%s", error)
            raise

    async def run(self, model: ServedModel, job: Job, receive: Receive) -> Outputs:
        """Return the outputs of a job, as part of some batch.

        Raises
        ------
        RequestError
            If the line is full, or the job cannot be computed, or not in time.
        ClientLeftError
            If the client has left meanwhile.
        """
        answer = self.batcher.submit(model, job)
        await asyncio.sleep(0)  # a small batch is computed in this turn of the loop
        if not answer.done():
            await self._wait(answer, receive)
        try:
            return answer.result()
        except RequestError:
            raise
        except (ValueError, TypeError) as error:
            raise RequestError(str(error)) from error
        except MemoryError as error:
            message = str(error) or "there is not enough memory for this request"
            raise RequestError(message, HTTPStatus.SERVICE_UNAVAILABLE) from error

    async def _wait(self, answer: asyncio.Future[Outputs], receive: Receive) -> None:
        """Wait for an answer while the client does."""
        leaving = asyncio.ensure_future(_left(receive))
        try:
            done, _ = await asyncio.wait(
                (answer, leaving),
                timeout=self.settings.timeout,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if answer in done:
                return
            if leaving in done:
                raise ClientLeftError
            raise RequestError(
                f"there was no answer within {self.settings.timeout:g} s",
                HTTPStatus.GATEWAY_TIMEOUT,
            )
        finally:
            leaving.cancel()
            if not answer.done():
                answer.cancel()
                self.batcher.drop(answer)


async def _left(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


class Application:
    """The ASGI application of some models: identifies, checks, counts and logs each request.

    Parameters
    ----------
    server : Server
        What the routes share.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.failed = False
        self.on_failure: Callable[[], None] | None = None
        self.on_unfinished: Callable[[], None] | None = None
        """Called when the server ends during a warm-up. A process of the server's own ends here,
        because nothing stops a thread that compiles."""
        self._keys = [key.encode() for key in server.settings.keys]
        self._prefix, self._numbers = os.urandom(6).hex(), itertools.count(1)
        self._routes = Starlette(
            routes=[*_routes(), *embeddings.routes(), *page.routes()],
            lifespan=self._lifespan,
            exception_handlers={
                RequestError: _failed,
                ClientLeftError: _left_alone,
                HTTPException: _not_found,
                Exception: _broken,
            },
        )
        self._routes.state.server = server

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Warm up in the background, and close in the end."""
        # Here, and not before a server forks its workers: their ids must differ.
        self._prefix = os.urandom(6).hex()
        over = threading.Event()
        warming = asyncio.create_task(asyncio.to_thread(self._warm, over.is_set))
        loop, hangup = asyncio.get_running_loop(), getattr(signal, "SIGHUP", 0)
        tasks: set[asyncio.Task[None]] = set()

        def load_all() -> None:
            task = asyncio.ensure_future(self._load_all())
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        listens = self.server.settings.reload and hangup
        listens = listens and threading.current_thread() is threading.main_thread()
        if listens:
            loop.add_signal_handler(hangup, load_all)
        try:
            yield
        finally:
            if listens:
                loop.remove_signal_handler(hangup)
            over.set()
            unfinished = not all(task.done() for task in (warming, *tasks))
            if unfinished and self.on_unfinished is not None and not self.failed:
                self.on_unfinished()
            await asyncio.gather(warming, *tasks, return_exceptions=True)
            self.server.batcher.close()

    def _warm(self, is_over: Callable[[], bool]) -> None:
        start = time.perf_counter()
        try:
            self.server.registry.warm(is_over)
        except Exception:
            _LOGGER.exception("the models could not be warmed up")
            self.failed = True
            if self.on_failure is not None:
                self.on_failure()
            return
        if not self.server.registry.ready:
            return
        # What the process has made so far, it keeps. The collector of garbage need not look through
        # all of it, a tenth of a second each time, while requests wait.
        gc.collect()
        gc.freeze()
        names = ", ".join(self.server.registry)
        _LOGGER.info("ready after %.1f s: %s", time.perf_counter() - start, names)

    async def _load_all(self) -> None:
        for name in self.server.registry:
            with contextlib.suppress(RequestError):  # which is in the log
                await self.server.load(name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._routes(scope, receive, send)
            return
        start, status = time.perf_counter(), 0
        request_id = self._request_id(scope)
        scope["fffcpu.model"] = NO_MODEL
        own_header = (b"x-request-id", request_id.encode())

        async def send_on(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append(own_header)
            await send(message)

        try:
            self._check_key(scope)
            path = scope["path"]
            name = path[len(MODELS) : -len(INFER)].removesuffix(VERSION)
            if name and path.startswith(MODELS) and path.endswith(INFER):
                # Most requests by far take this short way, in half of the time of the other.
                status = await self._infer(name, scope, receive, send, own_header)
            else:
                await self._routes(scope, receive, send_on)
        except RequestError as error:
            await _failed(Request(scope), error)(scope, receive, send_on)
        except ClientLeftError as error:
            status = _left_alone(Request(scope), error).status_code
        except Exception as error:
            _LOGGER.exception("request %s failed", request_id)
            if not status:
                await _broken(Request(scope), error)(scope, receive, send_on)
        self._note(scope, request_id, status, time.perf_counter() - start)

    async def _infer(
        self,
        name: str,
        scope: Scope,
        receive: Receive,
        send: Send,
        own_header: tuple[bytes, bytes],
    ) -> int:
        """Compute, answer, and return the status."""
        if scope["method"] != "POST":
            raise RequestError("inference needs POST", HTTPStatus.METHOD_NOT_ALLOWED)
        server = self.server
        model = server.model(name)
        scope["fffcpu.model"] = name
        body = await server.bodies.read(scope, receive)
        try:
            length = header(scope, HEADER_LENGTH)
            large = LARGE_TEXTS if isinstance(model, TextModel) else LARGE_BODY
            if len(body) < large:
                wanted, job = _prepare(model, body, length)
            else:
                wanted, job = await asyncio.to_thread(_prepare, model, body, length)
            outputs = await server.run(model, job, receive)
            if sum(map(SIZE, outputs.values())) < LARGE_OUTPUTS:
                first, raw = encode_response(name, wanted, outputs)
            else:
                first, raw = await asyncio.to_thread(encode_response, name, wanted, outputs)
        finally:
            server.bodies.release(len(body))
        size, headers = len(first), [own_header]
        if raw:
            headers += [(HEADER_LENGTH, b"%d" % size), BYTES_TYPE]
            size += sum(part.nbytes for part in raw)
        else:
            headers.append(JSON_TYPE)
        headers.append((b"content-length", b"%d" % size))
        status = 200
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if size <= CHUNK and not raw:
            await send({"type": "http.response.body", "body": first})
            return status
        server.bodies.hold(size)
        try:
            async with asyncio.timeout(server.settings.timeout):
                for part in (memoryview(first), *raw):
                    for start in range(0, part.nbytes, CHUNK):
                        body_part = part[start : start + CHUNK]
                        await send(
                            {"type": "http.response.body", "body": body_part, "more_body": True}
                        )
                await send({"type": "http.response.body", "body": b""})
        except TimeoutError:  # the client reads too slowly; the connection is closed
            scope["fffcpu.failure"] = "slow_client"
            raise ClientLeftError from None
        finally:
            server.bodies.release(size)
        return status

    def _request_id(self, scope: Scope) -> str:
        """Return the client's id of a request, or a new one."""
        try:
            given = header(scope, b"x-request-id")
        except RequestError:  # some proxies add another one
            given = None
        if given is not None and REQUEST_ID.fullmatch(given):
            return given
        return f"{self._prefix}-{next(self._numbers)}"

    def _check_key(self, scope: Scope) -> None:
        """Raise unless a request has a key, where it needs one."""
        if not self._keys or scope["path"] in OPEN:
            return
        scheme, _, key = (header(scope, b"authorization") or "").partition(" ")
        given = key.strip().encode("latin-1") if scheme.lower() == "bearer" else b""
        # All keys are compared, so that the time tells nothing about which one is near.
        if not sum(hmac.compare_digest(own, given) for own in self._keys):
            raise RequestError(
                "the key in header 'Authorization' is not one of the server's"
                if given
                else "a key is needed: header 'Authorization: Bearer KEY'",
                HTTPStatus.UNAUTHORIZED,
            )

    def _note(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        """Count a request, and log it."""
        metrics, model = self.server.metrics, scope["fffcpu.model"]
        kind = scope.get("fffcpu.failure")
        own = metrics.of(model)
        own.requests.inc()
        own.duration.observe(seconds)
        if kind is not None:
            metrics.failed(model, kind)
        if self.server.settings.log == "json":
            values = {
                "request": request_id,
                "method": scope["method"],
                "path": scope["path"],
                "model": model,
                "status": status,
                "seconds": round(seconds, 6),
                "failure": kind,
            }
            _REQUESTS.info("request", extra={"fffcpu": values})


def _failed(request: Request, error: Exception) -> Response:
    """Return the response to a request that failed."""
    assert isinstance(error, RequestError)
    request.scope["fffcpu.failure"] = error.kind
    headers = {}
    if error.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        headers["retry-after"] = "1"
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    if error.status == HTTPStatus.METHOD_NOT_ALLOWED and request.url.path.endswith(INFER):
        headers["allow"] = "POST"
    if error.unread:
        headers["connection"] = "close"
    told: Any = str(error)
    if request.scope["path"].startswith("/v1/"):  # as OpenAI's clients read it
        told = {"message": told, "type": error.kind, "param": None, "code": error.status}
    return Response(
        json.dumps({"error": told}), error.status, headers, media_type="application/json"
    )


def _left_alone(request: Request, error: Exception) -> Response:
    """Return a response that nobody receives."""
    request.scope.setdefault("fffcpu.failure", "client_left")
    return Response(status_code=LEFT)


def _not_found(request: Request, error: Exception) -> Response:
    """Return the response to a path or a method that there is not."""
    assert isinstance(error, HTTPException)
    path = request.scope["path"][:100]
    wrong = RequestError(f"{error.detail}: {request.method} {path}", error.status_code)
    return _failed(request, wrong)


def _broken(request: Request, error: Exception) -> Response:
    """Return the response to a request on which the server failed."""
    wrong = RequestError("the server failed", HTTPStatus.INTERNAL_SERVER_ERROR)
    return _failed(request, wrong)


def _server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


# --- The Open Inference Protocol ------------------------------------------------------------------


async def live(request: Request) -> Response:
    """The process answers."""
    return json_response({"live": True})


async def ready(request: Request) -> Response:
    """All models can compute."""
    is_ready = _server(request).registry.ready
    return json_response(
        {"ready": is_ready}, HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE
    )


async def about(request: Request) -> Response:
    """Describe the server."""
    extensions = ["binary_tensor_data"]
    if _server(request).settings.reload:
        extensions.append("model_repository")
    return json_response({"name": "fffcpu", "version": __version__, "extensions": extensions})


async def about_model(request: Request) -> Response:
    """Describe a model."""
    name = request.path_params["model"]
    model = _server(request).registry.get(name)
    return json_response(
        {
            "name": name,
            "versions": [VERSION.rpartition("/")[2]],
            "platform": model.platform,
            "inputs": [spec.to_dict() for spec in model.inputs],
            "outputs": [spec.to_dict() for spec in model.outputs],
        }
    )


async def model_ready(request: Request) -> Response:
    """Say whether a model can compute."""
    server, name = _server(request), request.path_params["model"]
    server.registry.get(name)
    status = HTTPStatus.OK if server.registry.ready else HTTPStatus.SERVICE_UNAVAILABLE
    return json_response({"name": name, "ready": server.registry.ready}, status)


def _prepare(model: ServedModel, body: bytes, length: str | None) -> tuple[InferRequest, Job]:
    """Return a request and its job."""
    wanted = decode_request(body, length)
    return wanted, model.prepare(wanted)


async def index(request: Request) -> Response:
    """List the models, as those who load them ask for it."""
    registry = _server(request).registry
    state = "READY" if registry.ready else "UNAVAILABLE"
    return json_response([{"name": name, "version": "1", "state": state} for name in registry])


async def load(request: Request) -> Response:
    """Read a model anew."""
    server, name = _server(request), request.path_params["model"]
    if not server.settings.reload:
        raise RequestError(
            "models cannot be reloaded: the server was started without --reload",
            HTTPStatus.FORBIDDEN,
        )
    await server.load(name)
    return json_response({})


async def metrics(request: Request) -> Response:
    """Return the figures."""
    server = _server(request)
    return Response(
        server.metrics.text(len(server.batcher.line)),
        media_type="text/plain; version=0.0.4; charset=utf-8",
    )


def _routes() -> list[Route]:
    return [
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
        Route("/v2", about),
        *(
            Route(f"/v2/models/{{model}}{version}{end}", endpoint)
            for version in ("", VERSION)
            for end, endpoint in (("", about_model), ("/ready", model_ready))
        ),
        Route("/v2/repository/index", index, methods=["POST"]),
        Route("/v2/repository/models/{model}/load", load, methods=["POST"]),
        Route("/metrics", metrics),
    ]
