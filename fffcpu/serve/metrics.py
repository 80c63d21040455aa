"""Figures of a server for Prometheus, by model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from fffcpu.serve.batching import Waiting

__all__ = ["NO_MODEL", "Metrics"]

NO_MODEL = ""
"""Label of requests that name no model of the server: names from requests would fill the memory."""

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)

MULTIPLE = "PROMETHEUS_MULTIPROC_DIR"
"""Folder in which several workers of one server add up their figures."""


class ModelMetrics(NamedTuple):
    """The figures of one model."""

    requests: Any
    duration: Any
    queue: Any
    inference: Any
    batch_requests: Any
    batch_rows: Any
    rows: Any


class Metrics:
    """The figures of one application."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        by_model = ("model",)

        def counter(name: str, what: str, labels: Sequence[str] = by_model) -> Counter:
            return Counter(f"fffcpu_{name}", what, labels, registry=registry)

        def histogram(name: str, what: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(f"fffcpu_{name}", what, by_model, registry=registry, buckets=buckets)

        self._requests = counter("requests", "Requests, including those whose clients have left")
        self._failures = counter(
            "request_failures", "Requests that failed, by kind of failure", ("model", "kind")
        )
        self._rows = counter("rows", "Rows, or texts, that were computed")
        self._duration = histogram("request_duration_seconds", "Time of a request", SECONDS)
        self._queue = histogram("queue_duration_seconds", "Time of a request in the queue", SECONDS)
        self._inference = histogram(
            "inference_duration_seconds", "Time to compute a batch", SECONDS
        )
        self._batch_requests = histogram("batch_requests", "Requests of a batch", ROWS)
        self._batch_rows = histogram("batch_rows", "Rows, or texts, of a batch", ROWS)
        self._line = Gauge(
            "fffcpu_queue_size",
            "Requests in line",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._models: dict[str, ModelMetrics] = {}

    def of(self, model: str) -> ModelMetrics:
        """Return the figures of a model."""
        found = self._models.get(model)
        if found is None:
            found = self._models[model] = ModelMetrics(
                *(
                    metric.labels(model)
                    for metric in (
                        self._requests,
                        self._duration,
                        self._queue,
                        self._inference,
                        self._batch_requests,
                        self._batch_rows,
                        self._rows,
                    )
                )
            )
        return found

    def failed(self, model: str, kind: str) -> None:
        """Count a failure."""
        self._failures.labels(model, kind).inc()

    def computed(
        self, model: str, batch: Sequence[Waiting], start: float, seconds: float, line: int
    ) -> None:
        """Count a batch, after which so many requests are in line."""
        self._line.set(line)
        own = self.of(model)
        rows = sum(item.job.rows for item in batch)
        own.inference.observe(seconds)
        own.batch_requests.observe(len(batch))
        own.batch_rows.observe(rows)
        own.rows.inc(rows)
        for item in batch:
            own.queue.observe(start - item.since)

    def text(self, line: int) -> bytes:
        """Return the figures as Prometheus reads them, with the number of requests in line."""
        self._line.set(line)
        registry = self.registry
        if MULTIPLE in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return bytes(generate_latest(registry))
