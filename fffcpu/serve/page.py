"""The page at ``/`` for people, and what its script asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fffcpu.inference.pipelines import TextClassifier
from fffcpu.layers import LeafFeedForward
from fffcpu.layers.fast_feed_forward import PathCache
from fffcpu.serve.errors import RequestError
from fffcpu.serve.models import LayerModel, PredictorModel, ServedModel, TextModel
from fffcpu.serve.responses import json_response
from fffcpu.serve.tensors import decode_request

if TYPE_CHECKING:
    from fffcpu.serve.application import Server

__all__ = ["routes"]

FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page/page.js": ("page.js", "text/javascript; charset=utf-8"),
}

POLICY = {
    # Nothing from elsewhere, and nothing that a model or a request may have written into the page.
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}

MOST_TREES, MOST_LEVELS = 16, 12
"""Most trees, and levels of them, whose routes the page draws."""


async def file(request: Request) -> Response:
    """Return a file of the page."""
    name, kind = FILES[request.url.path]
    content = (files("fffcpu.serve") / "page" / name).read_bytes()
    return Response(content, headers={**POLICY, "content-type": kind})


async def models(request: Request) -> Response:
    """Describe all models, with what a person may fill in."""
    server: Server = request.app.state.server
    registry = server.registry
    described = [{"name": name, **_describe(registry.get(name))} for name in registry]
    return json_response({"models": described, "ready": registry.ready})


async def route(request: Request) -> Response:
    """Return the ways of a request's first row, or text, through the trees."""
    server: Server = request.app.state.server
    model = server.model(request.path_params["model"])
    body = await server.bodies.read(request.scope, request.receive)
    try:
        async with server.drawing:  # one at a time, and not in the place of what others ask
            return json_response(await asyncio.to_thread(_routes_of, model, body))
    except (ValueError, TypeError) as error:
        raise RequestError(str(error)) from error
    finally:
        server.bodies.release(len(body))


def _describe(model: ServedModel) -> dict[str, Any]:
    """Return what the page says about a model, and the fields it shows."""
    fields: list[dict[str, Any]] = []
    note = ""
    if isinstance(model, TextModel):
        note = "Write a text."
        if model.platform == "fffcpu_masked_lm":
            note = "Write a text with [MASK] where the model is to guess."
    elif isinstance(model, PredictorModel):
        encoding = model.predictor.schema.table_encoding
        columns = () if encoding is None else encoding.columns
        for name, column in zip(model.names, columns, strict=True):
            choices = list(column.categories) if column.kind == "category" else []
            fields.append({"name": name, "kind": column.kind, "choices": choices})
        note = "Leave a field empty if its value is missing."
        if not fields:
            note = f"{model.columns} numbers, with commas or spaces between them."
    else:
        note = f"{model.inputs[0].shape[1]} numbers, with commas or spaces between them."
    return {
        "platform": model.platform,
        "bytes": model.nbytes,
        "inputs": [spec.to_dict() for spec in model.inputs],
        "outputs": [spec.to_dict() for spec in model.outputs],
        "fields": fields,
        "classes": list(map(str, _classes(model))),
        "note": note,
    }


def _classes(model: ServedModel) -> Sequence[Any]:
    """Return the names of the probabilities of a classifier; empty for other models."""
    if isinstance(model, PredictorModel):
        return model.predictor.schema.classes
    if isinstance(model, TextModel) and isinstance(model.pipeline, TextClassifier):
        return model.pipeline.labels
    return ()


def _routes_of(model: ServedModel, body: bytes) -> list[dict[str, Any]]:
    """Return the way of a request's first row through every tree: nodes from the root on."""
    request = decode_request(body)
    request = request._replace(inputs={name: x[:1] for name, x in request.inputs.items()})
    payload = model.prepare(request).payload
    if isinstance(model, TextModel):
        return _routes_of_text(model, payload.tokens)
    layer: Any
    if isinstance(model, PredictorModel):
        layer, rows = model.predictor.layer, np.atleast_2d(model.predictor.inputs(payload))
    else:
        assert isinstance(model, LayerModel)
        layer, rows = model.layer, payload
    if not len(rows):
        return []
    if isinstance(layer, LeafFeedForward):
        leaf, depth = int(layer.route(rows)[0]), layer.config.depth
        node, nodes = leaf + 2**depth - 1, []
        while node >= 0:
            nodes.append(node)
            node = (node - 1) // 2 if node else -1
        return [_tree("tree 1", nodes[::-1])]
    if not hasattr(layer, "route"):
        return []
    return [
        _tree(f"tree {number + 1}", nodes)
        for number, nodes in enumerate(layer.route(rows)[0][:MOST_TREES].tolist())
    ]


def _routes_of_text(model: TextModel, texts: list[list[int]]) -> list[dict[str, Any]]:
    """Return the ways of a text's start token through the first tree of each layer."""
    if not texts:
        return []
    _, cache = model.embedder.model.forward(np.array([model.embedder.cut(texts[0])]))
    return [
        _tree(f"layer {number + 1}, tree 1", paths.nodes[0, 0].tolist())
        for number, paths in enumerate(own.feedforward for own in cache.layers[:MOST_TREES])
        if isinstance(paths, PathCache)
    ]


def _tree(name: str, nodes: list[int]) -> dict[str, Any]:
    return {"name": name, "nodes": nodes[:MOST_LEVELS], "levels": len(nodes)}


def routes() -> list[Route]:
    """Return the routes."""
    return [
        *(Route(path, file) for path in FILES),
        Route("/page/models", models),
        Route("/page/models/{model}/route", route, methods=["POST"]),
    ]
