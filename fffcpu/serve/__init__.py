"""Serving models over HTTP, from CPUs (extra ``serve``).

`app` makes an ASGI application of models; ``fffcpu serve`` runs it with uvicorn. The protocols are
the Open Inference Protocol (KServe's version 2, with its binary extension) and OpenAI's for
embeddings. A request's answer has the same bits whatever shares its batch; docs/serving.md lists
its other guarantees.

::

    application   routes, keys, ids of requests, logs
    tensors       requests and responses of the Open Inference Protocol
    embeddings    requests and responses of OpenAI's interface
    responses     responses of JSON
    page          the page for people, with its files in the folder page
    models        layers, predictors and FastBERTs behind one interface
    registry      the models by name, reloaded on request
    batching      the line of requests, and the batches that are computed
    body          bodies, bounded in size and time
    metrics       figures for Prometheus
    running       uvicorn: signals, slow clients, logs
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from fffcpu.errors import require_extra
from fffcpu.serve.settings import ServeSettings

__all__ = ["ServeSettings", "app"]


def app(
    models: Mapping[str, str | os.PathLike[str] | Any], settings: ServeSettings | None = None
) -> Any:
    """Return an ASGI application that serves models.

    Parameters
    ----------
    models : mapping of str to path or model
        Names, of letters, digits, ``.``, ``_`` and ``-``; and for each the file of a layer or
        predictor, the folder of a FastBERT, a layer, a `Predictor`, a fitted estimator or a
        pipeline of `fffcpu.pipelines`.
    settings : ServeSettings, optional
        Bounds, keys and logs.

    Returns
    -------
    ASGI application
        Its lifespan warms the kernels up; until then it answers, but is not ready.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If a name or a model is no such thing.
    CheckpointError, OSError
        If a model cannot be read.
    MissingExtraError
        If a package is missing.

    Examples
    --------
    A file ``service.py``, for ``uvicorn service:application --workers 2``::

        from fffcpu.serve import app

        application = app({"iris": "iris.safetensors"})
    """
    for module in ("starlette", "orjson", "prometheus_client"):
        require_extra(module, "serve")
    from fffcpu.serve.application import Application, Server

    return Application(Server(models, settings or ServeSettings()))
