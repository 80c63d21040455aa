"""Figures: each is counted once, under the name of its model."""

from __future__ import annotations

from types import SimpleNamespace

from prometheus_client.parser import text_string_to_metric_families

from fffcpu.serve.batching import Waiting
from fffcpu.serve.metrics import Metrics
from fffcpu.serve.models import Job


def figures(metrics, line=0):
    """All samples, by name and labels without the bounds of histograms."""
    families = text_string_to_metric_families(metrics.text(line).decode())
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
        if "le" not in sample.labels
    }


def waiting(rows, since):
    return Waiting(SimpleNamespace(), Job((), rows, 1.0, None), SimpleNamespace(), since)


def test_a_batch_is_counted_with_its_requests_and_rows():
    metrics = Metrics()
    metrics.computed("m", [waiting(3, 1.0), waiting(4, 1.5)], 2.0, 0.25, 5)
    found = figures(metrics, line=6)
    assert found["fffcpu_rows_total", "m"] == 7
    assert found["fffcpu_batch_requests_sum", "m"] == 2
    assert found["fffcpu_batch_rows_sum", "m"] == 7
    assert found["fffcpu_inference_duration_seconds_sum", "m"] == 0.25
    assert found["fffcpu_queue_duration_seconds_sum", "m"] == 1.5
    assert found["fffcpu_queue_duration_seconds_count", "m"] == 2
    assert found[("fffcpu_queue_size",)] == 6


def test_failures_have_kinds():
    metrics = Metrics()
    for kind in ("bad_request", "bad_request", "too_large"):
        metrics.failed("m", kind)
    found = figures(metrics)
    assert found["fffcpu_request_failures_total", "bad_request", "m"] == 2
    assert found["fffcpu_request_failures_total", "m", "too_large"] == 1


def test_models_are_apart():
    metrics = Metrics()
    metrics.of("a").requests.inc()
    metrics.of("b").requests.inc(2)
    found = figures(metrics)
    assert (found["fffcpu_requests_total", "a"], found["fffcpu_requests_total", "b"]) == (1, 2)
