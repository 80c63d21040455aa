"""Responses of JSON."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import orjson
from starlette.responses import Response

__all__ = ["json_response"]


def json_response(values: Any, status: int = HTTPStatus.OK) -> Response:
    """Return a response of JSON, whose numbers may be NumPy's."""
    content = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(content, status, media_type="application/json")
