"""Quality: vectors compared with those of the teacher, and linear probes."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fffcpu
from benchmarks.accuracy.distillation.encoders import Encoder, open_encoders, vectors_of
from benchmarks.accuracy.distillation.texts import QUICK, Sizes, Task, kinds_of_text, tasks
from benchmarks.records import Record, append_records, read_records
from fffcpu.recipes.distillation_objectives import similarity_correlation
from fffcpu.recipes.distillation_report import read_report
from fffcpu.system.terminal import print_status
from fffcpu.text import Tokenizer

__all__ = ["evaluate", "last_records", "quality_path"]

Array = np.ndarray
Rows = Sequence[Sequence[int]]

NEIGHBOURS = 10

PENALTY, ITERATIONS = 0.1, 1000
"""C of the logistic regression, and its largest number of iterations."""

KEYS = ("model", "runtime", "weights")
"""Entries of a record that say which encoder it is about."""


def quality_path(out: Path) -> Path:
    """Return the file of the records."""
    return out / "quality.jsonl"


def last_records(path: Path) -> dict[tuple[Any, ...], Record]:
    """Return the last record of each encoder."""
    return {tuple(record[key] for key in KEYS): record for record in read_records(path)}


def evaluate(options: argparse.Namespace) -> None:
    """Evaluate the encoders that have no record yet."""
    fffcpu.set_num_threads(options.threads)
    sizes = QUICK if options.quick else Sizes()
    options.out.mkdir(parents=True, exist_ok=True)
    path = quality_path(options.out)
    done = last_records(path)
    tokenizer = Tokenizer.load(options.teacher)
    kinds = kinds_of_text(options.texts, sizes)
    probes = list(tasks(options.texts, sizes))
    reports = {folder.resolve().name: folder for folder in options.students}
    teacher: dict[str, Array] = {}
    for encoder in open_encoders(options.teacher, options.students, options.threads):
        length = encoder.model.config.longest
        rows = {name: tokenizer.encode(texts, length) for name, texts in kinds.items()}
        if not teacher:  # it comes first
            teacher = {name: vectors_of(encoder, own) for name, own in rows.items()}
        is_copy = encoder.runtime == "onnxruntime float32"
        if is_copy or tuple(encoder.identity[key] for key in KEYS) in done:
            continue
        print_status(f"evaluating {encoder.key}")
        start = time.perf_counter()
        record = {
            **encoder.identity,
            **compared(encoder, rows, teacher),
            "probes": {task.name: accuracy(encoder, tokenizer, task) for task in probes},
            "texts": {name: len(own) for name, own in kinds.items()},
            "parameters": encoder.model.params.count,
            "seconds": time.perf_counter() - start,
            "quick": options.quick,
        }
        if encoder.name in reports and (
            report := read_report(reports[encoder.name], encoder.model)
        ):
            kept = ("settings", "tokens_seen", "seconds", "r2", "similarity", "cosine", "fffcpu")
            record["distillation"] = {key: report[key] for key in kept}
        append_records(path, [record])


def compared(
    encoder: Encoder, rows: Mapping[str, Rows], teacher: Mapping[str, Array]
) -> dict[str, dict[str, float]]:
    """Return how the vectors of an encoder agree with those of the teacher, by kind of text."""
    figures: dict[str, dict[str, float]] = {"similarity": {}, "neighbours": {}, "cosine": {}}
    for kind, own in rows.items():
        vectors = vectors_of(encoder, own)
        figures["similarity"][kind] = similarity_correlation(teacher[kind], vectors)
        figures["neighbours"][kind] = shared_neighbours(teacher[kind], vectors)
        figures["cosine"][kind] = float((teacher[kind] * vectors).sum(axis=1).mean())
    return figures


def shared_neighbours(first: Array, second: Array, count: int = NEIGHBOURS) -> float:
    """Return the mean share of the nearest texts of a text that two encoders agree on.

    Parameters
    ----------
    first, second : array of shape (texts, D) and (texts, E)
        Vectors of length 1.
    count : int
        Number of nearest texts, the text itself not counted.
    """
    near = [nearest(vectors, count) for vectors in (first, second)]
    shared = [len(np.intersect1d(*pair)) for pair in zip(*near, strict=True)]
    return float(np.mean(shared) / count)


def nearest(vectors: Array, count: int) -> Array:
    """Return the numbers of the nearest texts of each text, (texts, count)."""
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    return np.argpartition(-cosines, count - 1, axis=1)[:, :count]


def accuracy(encoder: Encoder, tokenizer: Tokenizer, task: Task) -> float:
    """Return the accuracy of a linear probe on the vectors of an encoder."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    training, test = (
        vectors_of(encoder, tokenizer.encode(texts, encoder.model.config.longest))
        for texts in (task.training, task.test)
    )
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=PENALTY, max_iter=ITERATIONS))
    probe.fit(training, task.labels)
    return float(probe.score(test, task.test_labels))
