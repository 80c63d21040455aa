"""Timing: all encoders in one alternation for each shape of calls."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import threadpoolctl

import fffcpu
from benchmarks.accuracy.distillation.encoders import Encoder, open_encoders, vectors_of
from benchmarks.records import Record, append_records
from fffcpu.benchmarking.encoders import Shape, random_tokens, time_encoders
from fffcpu.benchmarking.machine import describe_machine, package_version
from fffcpu.errors import WrongOutputError
from fffcpu.system.terminal import progress_bar

__all__ = ["SHAPES", "measure", "times_path"]

SHAPES = ("1x16", "1x128", "32x32", "8x128")

TOLERANCE = 1e-4
"""Largest error of float32 outputs, relative to the largest output."""

LEAST_COSINE = 0.8
"""Least mean cosine between vectors of an int8 model and those of its float32 model."""

QUICK_SHAPE = Shape(2, 8)


def times_path(out: Path) -> Path:
    """Return the file of the records of times."""
    return out / "times.jsonl"


def measure(options: argparse.Namespace) -> None:
    """Time the encoders, after their outputs were checked."""
    shapes = [QUICK_SHAPE] if options.quick else list(map(Shape.parse, options.shapes))
    options.out.mkdir(parents=True, exist_ok=True)
    fffcpu.set_num_threads(options.threads)
    with threadpoolctl.threadpool_limits(options.threads, "blas"):
        encoders = list(open_encoders(options.teacher, options.students, options.threads))
        for encoder in encoders:
            check(encoder)
        for shape in progress_bar(shapes, "timing", unit="shape", shown=True, kept=True):
            append_records(times_path(options.out), [time_shape(encoders, shape, options)])


def check(encoder: Encoder) -> None:
    """Raise unless an encoder computes what its float32 model does."""
    vocabulary = encoder.model.config.vocabulary
    (ids, *_) = random_tokens(Shape(4, min(16, encoder.model.config.positions)), vocabulary)
    plain = encoder._replace(run=encoder.model)
    if encoder.is_rounded:
        rows = ids.tolist()
        cosine = float((vectors_of(encoder, rows) * vectors_of(plain, rows)).sum(axis=1).mean())
        if not cosine >= LEAST_COSINE:
            raise WrongOutputError(
                f"{encoder.key} must have vectors close to those in float32, got a mean cosine of "
                f"{cosine:.3f}"
            )
        return
    mask = np.ones_like(ids)
    found, wanted = encoder.run(ids, mask), plain.run(ids, mask)
    error = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    if not error <= TOLERANCE:
        raise WrongOutputError(f"{encoder.key} must compute the hidden states, got error {error}")


def time_shape(encoders: Sequence[Encoder], shape: Shape, options: argparse.Namespace) -> Record:
    """Return the record of one alternation."""
    load = os.getloadavg()[0]
    timings = time_encoders(
        {encoder.key: encoder.run for encoder in encoders},
        shape,
        encoders[0].model.config.vocabulary,
        options.repeats,
        options.seconds,
    )
    return {
        "shape": str(shape),
        "threads": options.threads,
        "load": load,
        "machine": describe_machine() | {"onnxruntime": package_version("onnxruntime")},
        "encoders": [
            {
                **encoder.identity,
                "microseconds": timing.microseconds,
                "spread": timing.spread,
            }
            for encoder, timing in zip(encoders, timings, strict=True)
        ],
    }
