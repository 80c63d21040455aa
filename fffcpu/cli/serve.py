"""``fffcpu serve``: answer requests over HTTP."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import fffcpu
from fffcpu.checks import check_integer
from fffcpu.cli.support.runs import add_number
from fffcpu.errors import ArgumentError, require_extra
from fffcpu.serve.settings import LOGS, ServeSettings

__all__ = ["DESCRIPTION", "add_arguments", "run"]

DEFAULTS = ServeSettings()

DESCRIPTION = """\
Serve models over HTTP: layers and predictors (files), text models (folders). Clients speak the Open
Inference Protocol (KServe V2, with its binary extension) or, for embeddings, OpenAI's. The page at
/ shows the models and tries them.

examples:
  fffcpu serve iris=iris.safetensors
  fffcpu serve judge=judge words=bert --host 0.0.0.0 --api-key-file keys.txt
  curl localhost:8000/v2/models/iris
  curl localhost:8000/v2/models/iris/infer -d \\
    '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [5.1, 3.5, 1.4, 0.2]}]}'

guarantees:
  The answer to a request has the same bits whatever shares its batch, and the bits of a call in
  Python. A bad request fails alone. SIGTERM ends the server with status 0, once the requests that
  it has accepted are answered.

what a client sees:
  GET  /v2/health/live, /v2/health/ready, /v2, /v2/models/NAME, /v2/models/NAME/ready
  POST /v2/models/NAME/infer, /v2/repository/index (lists the models)
  POST /v1/embeddings, GET /v1/models
  GET  /metrics for Prometheus
  Errors are JSON, {"error": "..."}: 400 for a bad request, 401 without a key, 404 for an
  unknown model, 413 for too large a request, 429 when too many wait, 503 until all kernels are
  compiled.

Only this machine can reach the server, unless --host names another address. docs/serving.md shows
clients, containers and more.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument(
        "models", nargs="+", metavar="NAME=PATH", help="name of a model, and its file or folder"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port, or 0 for a free one (8000)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads for the kernels")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (1)")
    bounds = parser.add_argument_group("bounds")
    numbers: tuple[tuple[str, type, str], ...] = (
        ("max-batch-rows", int, "maximum number of rows that are computed together"),
        ("queue", int, "maximum number of waiting requests; more are refused with 429"),
        ("max-body", int, "maximum size of a request's body in bytes"),
        ("timeout", float, "maximum seconds to receive a request, and to answer it"),
        ("drain", float, "maximum seconds for accepted requests at shutdown"),
    )
    for name, kind, text in numbers:
        add_number(bounds, DEFAULTS, name, kind, text)
    parser.add_argument(
        "--api-key-file",
        metavar="FILE",
        help="file with one key per line; every request must have one of them",
    )
    parser.add_argument(
        "--reload",
        action="store_true",
        help="reload models on SIGHUP or POST /v2/repository/models/NAME/load",
    )
    parser.add_argument(
        "--log",
        choices=LOGS,
        default=DEFAULTS.log,
        help="log only errors (text), or also every request (json)",
    )


def run(options: argparse.Namespace) -> None:
    """Serve."""
    for module in ("starlette", "orjson", "prometheus_client", "uvicorn", "httptools"):
        require_extra(module, "serve")
    settings = ServeSettings(**_settings(options))
    check_integer("port", options.port, 0, 65535)
    check_integer("workers", options.workers, 1)
    if options.reload and options.workers > 1:
        raise ArgumentError(
            "argument '--reload' reaches one process only, so it goes with '--workers 1'"
        )
    models = dict(map(_model, options.models))
    if len(models) < len(options.models):
        raise ArgumentError("the models must have different names")
    if options.threads is not None:
        fffcpu.set_num_threads(options.threads)  # checks the number
    from fffcpu.serve.running import run as serve

    serve(
        models,
        settings,
        options.host,
        options.port,
        workers=options.workers,
        threads=options.threads,
    )


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of the settings."""
    names = [field.name for field in dataclasses.fields(ServeSettings) if field.name != "keys"]
    values = {name: getattr(options, name) for name in names}
    if options.api_key_file is not None:
        lines = Path(options.api_key_file).read_text(encoding="utf-8").splitlines()
        values["keys"] = tuple(filter(None, map(str.strip, lines)))
        if not values["keys"]:
            raise ArgumentError(f"file '{options.api_key_file}' must have a key per line, got none")
    return values


def _model(text: str) -> tuple[str, str]:
    """Return the name and the path of a model."""
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise ArgumentError(f"argument 'models' must be NAME=PATH, got '{text}'")
    return name, path
