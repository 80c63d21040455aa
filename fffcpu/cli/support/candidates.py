"""``--layer auto``: fast and dense layers are trained and compared by quality and time."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import NamedTuple

import numpy as np

from fffcpu.benchmarking.timing import Contender, alternate
from fffcpu.data import Table
from fffcpu.errors import ArgumentError
from fffcpu.recipes.fitting import FitSettings, Fitted, fit
from fffcpu.system.terminal import format_number, format_table, print_status

__all__ = ["check_auto", "train_candidates"]

DENSE_SHARES = (1, 3)
"""Widths of the dense layers, as multiples of the neurons that a row uses of the fast layer. One
neuron that is used is worth about three dense ones."""

TOLERANCE = 0.005
"""Difference of accuracy or R2 in which two layers count as equally good; share of the loss."""

TIMED_ROWS = 1024
TIMED_SECONDS = 0.02
"""Seconds of a measurement, and of the rest before it."""


class Candidate(NamedTuple):
    """A trained layer, and what was measured."""

    name: str
    fitted: Fitted
    quality: float
    """Accuracy or R2 on the rows held out; R2 is NaN where their targets are constant."""
    loss: float
    """Loss on these rows."""
    one_row: float
    """Microseconds per row, one row at a time."""
    batch: float
    """Microseconds per row, in batches of `TIMED_ROWS`."""


def check_auto(
    settings: FitSettings,
    *,
    resume: bool,
    dask: str | None,
    width: int | None,
    leaf_width: int | None,
) -> None:
    """Raise unless the options of a run fit to ``--layer auto``.

    Parameters
    ----------
    settings : FitSettings
        Settings of the fast layer.
    resume : bool
        Whether a run is to be continued.
    dask : str, optional
        The cluster, where one is named.
    width, leaf_width : int, optional
        Sizes of other layers, where given.

    Raises
    ------
    ArgumentError
        If an option has no effect or no meaning, or no rows are held out to compare with.
    """
    if resume:
        raise ArgumentError(
            "argument '--resume' must be left out for --layer auto, which saves no state"
        )
    if dask is not None:
        raise ArgumentError(
            "argument '--dask' must be left out for --layer auto, which compares times on this "
            f"machine, got '{dask}'"
        )
    for name, value in (("--width", width), ("--leaf-width", leaf_width)):
        if value is not None:
            raise ArgumentError(
                f"argument '{name}' must be left out for --layer auto, which derives the dense "
                f"layers from --trees and --depth, got {value}"
            )
    if settings.optimizer.startswith("local"):
        raise ArgumentError(
            "argument '--optimizer' must not be local for --layer auto, which trains dense layers "
            f"too, got {settings.optimizer}"
        )
    if not settings.validation:
        raise ArgumentError(
            "argument '--validation' must be above 0 for --layer auto, which compares layers on "
            "the rows held out, got 0"
        )


def train_candidates(table: Table, settings: FitSettings) -> Fitted:
    """Train the candidates, report them, and return the recommended one."""
    used = settings.trees * (settings.depth + 1)
    plans = {"fast": settings}
    for share in DENSE_SHARES:
        width = share * used
        plans[f"dense, {width} neurons"] = dataclasses.replace(
            settings, layer="dense", width=width, gradients="auto"
        )
    fits = {}
    for name, plan in plans.items():
        print_status(f"training: {name}")
        fits[name] = fit(table, plan)
    candidates = _measure(fits)
    chosen = recommend(candidates)
    print_status(_format(candidates, chosen))
    return chosen.fitted


def recommend(candidates: list[Candidate]) -> Candidate:
    """Return the fastest candidate, in batches, of those that are as good as the best.

    The quality decides; where it is not defined for any, the loss.
    """
    if _by_loss(candidates):
        scores = [-candidate.loss for candidate in candidates]
        tolerance = TOLERANCE * min(abs(score) for score in scores)
    else:
        scores, tolerance = [candidate.quality for candidate in candidates], TOLERANCE
    scores = [-math.inf if math.isnan(score) else score for score in scores]
    least = max(scores) - tolerance
    pairs = zip(candidates, scores, strict=True)
    good = [candidate for candidate, score in pairs if not score < least]
    return min(good, key=lambda candidate: candidate.batch)


def _by_loss(candidates: list[Candidate]) -> bool:
    """Whether the quality of no candidate is defined."""
    return all(math.isnan(candidate.quality) for candidate in candidates)


def _measure(fits: dict[str, Fitted]) -> list[Candidate]:
    """Measure trained layers on random rows, in alternation."""
    contenders = []
    for name, fitted in fits.items():
        layer = fitted.predictor.layer
        shape = (TIMED_ROWS, layer.config.input_dim)
        rows = np.random.default_rng(0).standard_normal(shape).astype(layer.config.dtype)
        contenders += [
            Contender(name, functools.partial(layer, some), len(some)) for some in (rows[:1], rows)
        ]
    timings = alternate(contenders, min_time=TIMED_SECONDS, rest=TIMED_SECONDS)
    times = [timing.microseconds for timing in timings]
    return [
        Candidate(
            name,
            fitted,
            quality=fitted.validation.get("accuracy", fitted.validation.get("r2", math.nan)),
            loss=fitted.validation["loss"],
            one_row=one_row,
            batch=batch,
        )
        for (name, fitted), one_row, batch in zip(
            fits.items(), times[::2], times[1::2], strict=True
        )
    ]


def _format(candidates: list[Candidate], chosen: Candidate) -> str:
    """Return the comparison as a table."""
    by_loss = _by_loss(candidates)
    quality = "accuracy" if "accuracy" in chosen.fitted.validation else "R2"
    head = ("layer", "loss" if by_loss else quality, "us, one row", "us per row, batch", "")
    rows = [
        (
            candidate.name,
            f"{candidate.loss if by_loss else candidate.quality:.4f}",
            format_number(candidate.one_row),
            format_number(candidate.batch),
            "saved" if candidate is chosen else "",
        )
        for candidate in candidates
    ]
    return format_table(head, rows)
