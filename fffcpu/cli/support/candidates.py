"""``--layer auto``: fast and dense layers trained beside each other, judged by quality and time."""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import Any, NamedTuple

import numpy as np

from fffcpu.data import Table
from fffcpu.errors import ArgumentError
from fffcpu.recipes.fitting import FitSettings, Fitted, fit
from fffcpu.system.terminal import format_number, format_table, print_status

__all__ = ["train_candidates"]

DENSE_SHARES = (1, 3)
"""Widths of the dense layers, as multiples of the neurons that a row uses of the fast layer. One
neuron that is used is worth about three dense ones."""

TOLERANCE = 0.005
"""Difference of accuracy or R2 in which two layers count as equally good."""

TIMED_ROWS = 1024
REPEATS = 15


class Candidate(NamedTuple):
    """A trained layer, and what was measured."""

    name: str
    fitted: Fitted
    quality: float
    """Accuracy or R2 on the rows held out."""
    one_row: float
    """Microseconds per row, one row at a time."""
    batch: float
    """Microseconds per row, in batches of `TIMED_ROWS`."""


def train_candidates(table: Table, settings: FitSettings) -> Fitted:
    """Train the candidates, report them, and return the recommended one.

    Raises
    ------
    ArgumentError
        If no rows are held out to compare with.
    """
    if not settings.validation:
        raise ArgumentError(
            "argument '--validation' must be above 0 for --layer auto, which compares layers on "
            "the rows held out, got 0"
        )
    used = settings.trees * (settings.depth + 1)
    plans = {"fast": settings}
    for share in DENSE_SHARES:
        width = share * used
        plans[f"dense, {width} neurons"] = dataclasses.replace(
            settings, layer="dense", width=width, gradients="auto"
        )
    candidates = []
    for name, plan in plans.items():
        print_status(f"training: {name}")
        candidates.append(_measure(name, fit(table, plan)))
    chosen = recommend(candidates)
    print_status(_format(candidates, chosen))
    return chosen.fitted


def recommend(candidates: list[Candidate]) -> Candidate:
    """Return the fastest candidate, in batches, of those that are as good as the best."""
    best = max(candidate.quality for candidate in candidates)
    good = [candidate for candidate in candidates if candidate.quality >= best - TOLERANCE]
    return min(good, key=lambda candidate: candidate.batch)


def _measure(name: str, fitted: Fitted) -> Candidate:
    """Measure a trained layer on random rows."""
    layer = fitted.predictor.layer
    width, dtype = layer.config.input_dim, layer.config.dtype
    rows = np.random.default_rng(0).standard_normal((TIMED_ROWS, width)).astype(dtype)
    quality = fitted.validation.get("accuracy", fitted.validation.get("r2", 0.0))
    return Candidate(name, fitted, quality, _time(layer, rows[:1]), _time(layer, rows) / TIMED_ROWS)


def _time(layer: Any, rows: Any) -> float:
    """Return the median time of a call in microseconds."""
    layer(rows)  # compiles, or reads kernels
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        layer(rows)
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.median(times)


def _format(candidates: list[Candidate], chosen: Candidate) -> str:
    """Return the comparison as a table."""
    classes = "accuracy" in chosen.fitted.validation
    head = ("layer", "accuracy" if classes else "R2", "us, one row", "us per row, batch", "")
    rows = [
        (
            candidate.name,
            f"{candidate.quality:.4f}",
            format_number(candidate.one_row),
            format_number(candidate.batch),
            "saved" if candidate is chosen else "",
        )
        for candidate in candidates
    ]
    return format_table(head, rows)
