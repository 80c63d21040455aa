"""OpenAI's interface for embeddings, and its list of models."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fffcpu.serve.errors import RequestError
from fffcpu.serve.models import Job, TextModel
from fffcpu.serve.responses import json_response
from fffcpu.serve.tensors import decode_json

if TYPE_CHECKING:
    from fffcpu.serve.application import Server

__all__ = ["routes"]

SMALL_BODY = 1 << 15
"""Bytes of a body up to which reading and tokenizing do not keep the event loop for long."""

FORMATS = ("float", "base64")
OPTIONS = {"top": 1, "pooling": None, "normalize": True, "truncate": False}
"""As clients expect it: vectors of length 1, and no text is cut in silence."""


async def models(request: Request) -> Response:
    """List the models."""
    server: Server = request.app.state.server
    registry = server.registry
    return json_response(
        {"object": "list", "data": [_model(name, registry.since) for name in registry]}
    )


async def model(request: Request) -> Response:
    """Describe a model."""
    server: Server = request.app.state.server
    name = request.path_params["model"]
    server.registry.get(name)
    return json_response(_model(name, server.registry.since))


async def embed(request: Request) -> Response:
    """Make a vector of each text."""
    server: Server = request.app.state.server
    body = await server.bodies.read(request.scope, request.receive)
    try:
        values = await _on_a_thread(body, decode_json, body)
        name = values.get("model")
        if not isinstance(name, str):
            raise RequestError(f"'model' must be a text, got {name!r:.80}")
        found = server.model(name)
        request.scope["fffcpu.model"] = name
        if not isinstance(found, TextModel):
            raise RequestError(f"model '{name}' takes no texts")
        job, form = await _on_a_thread(body, _prepare, found, values)
        vectors = (await server.run(found, job, request.receive))["embedding"]
    finally:
        server.bodies.release(len(body))
    tokens = sum(map(len, job.payload.tokens))
    return json_response(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": k, "embedding": form(vector)}
                for k, vector in enumerate(vectors)
            ],
            "model": name,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


async def _on_a_thread(body: bytes, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function, on a thread if the body is large."""
    if len(body) < SMALL_BODY:
        return function(*arguments)
    return await asyncio.to_thread(function, *arguments)


def _prepare(model: TextModel, values: dict[str, Any]) -> tuple[Job, Any]:
    """Return the job of a request, and the function that writes a vector."""
    texts = values.get("input")
    if isinstance(texts, str):
        texts = [texts]
    if not isinstance(texts, list) or not texts:
        raise RequestError(f"'input' must be a text or a list of texts, got {texts!r:.80}")
    if not all(isinstance(text, str) for text in texts):
        # Numbers of tokens mean other things to every tokenizer, and would give wrong vectors.
        raise RequestError(
            "'input' must hold texts, not numbers of tokens; LangChain sends texts with "
            "check_embedding_ctx_length=False"
        )
    form = values.get("encoding_format") or "float"
    if form not in FORMATS:
        raise RequestError(f"'encoding_format' must be {' or '.join(FORMATS)}, got {form!r:.80}")
    width = model.embedder.model.config.width
    if values.get("dimensions") not in (None, width):
        raise RequestError(f"'dimensions' must be {width}, got {values['dimensions']!r:.80}")
    return model.job(texts, ("embedding",), OPTIONS), _base64 if form == "base64" else _numbers


def _numbers(vector: Any) -> Any:
    return np.ascontiguousarray(vector)


def _base64(vector: Any) -> str:
    """Return the bytes of float32 numbers, little-endian, as official clients read them."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _model(name: str, since: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": since, "owned_by": "fffcpu"}


def routes() -> list[Route]:
    """Return the routes."""
    return [
        Route("/v1/models", models),
        Route("/v1/models/{model}", model),
        Route("/v1/embeddings", embed, methods=["POST"]),
    ]
