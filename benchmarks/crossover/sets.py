"""The data sets: where each comes from, and how it is split."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.data.tables import read_data
from fffcpu.data import load_digits
from fffcpu.system.files import write_atomically

Array = np.ndarray

QUICK_ROWS, QUICK_CLASSES = 200, 3


class Rows(NamedTuple):
    """A set: rows (R, I) and their class numbers (R,), for training and for the test."""

    x: Array
    y: Array
    test_x: Array
    test_y: Array


class Source(NamedTuple):
    """The origin of a set, and the settings of layers on it."""

    load: Callable[[Path, bool], Rows]
    """It takes the folder DATA, and whether a few rows are enough."""
    epochs: int
    standardize: str


def packaged(name: str) -> Callable[[Path, bool], Rows]:
    """Return the loader of a table that `benchmarks.data.tables` makes."""

    def load(folder: Path, quick: bool) -> Rows:
        training, test = read_data(folder, name)
        return Rows(training.x, training.y, test.x, test.y)

    return load


def digits(folder: Path, quick: bool) -> Rows:
    """Load the digits that fffcpu carries."""
    x, y = load_digits()
    return separate(x, y, drawn(len(x), 360))


def glosses(folder: Path, quick: bool) -> Rows:
    """Load the glosses that `benchmarks.data.texts` makes, and compute their features."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline

    from fffcpu.text import read_labelled

    training = read_labelled(str(folder / "glosses-training.jsonl"))
    test = read_labelled(str(folder / "glosses-test.jsonl"), classes=training.classes)
    count = 2000 if quick else None
    features = make_pipeline(TfidfVectorizer(sublinear_tf=True), TruncatedSVD(64, random_state=0))
    x = features.fit_transform(training.texts[:count]).astype(np.float32)
    test_x = features.transform(test.texts[:count]).astype(np.float32)
    return Rows(x, training.labels[:count], test_x, test.labels[:count])


def drawn(rows: int, count: int) -> Array:
    """Return the numbers of the test rows, drawn at random."""
    return np.random.default_rng(0).permutation(rows)[:count]


def separate(x: Array, y: Array, test: Array) -> Rows:
    """Split a table into training rows, in their order, and test rows."""
    others = np.setdiff1d(np.arange(len(x)), test)
    return Rows(x[others], y[others], x[test], y[test])


# Training passes over about a million rows of each set, or fewer that are enough for the smallest.
SOURCES = {
    "digits": Source(digits, 100, "table"),
    "dna": Source(packaged("dna"), 100, "columns"),
    "satellite": Source(packaged("satellite"), 100, "columns"),
    "letters": Source(packaged("letters"), 60, "columns"),
    "shuttle": Source(packaged("shuttle"), 20, "columns"),
    "glosses": Source(glosses, 10, "columns"),
    "mnist": Source(packaged("mnist"), 20, "table"),
    "fashion-mnist": Source(packaged("fashion-mnist"), 20, "table"),
}


def data_path(out: Path, data: str) -> Path:
    """Return the file of a prepared set."""
    return out / "data" / f"{data}.npz"


def prepared(data: str, options: argparse.Namespace) -> Rows:
    """Return a set. The first call prepares it and writes it to a file."""
    path = data_path(options.out, data)
    if not path.exists():
        rows = SOURCES[data].load(options.folder, options.quick)
        if options.quick:
            rows = a_few(rows)
        with write_atomically(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **rows._asdict())
    with np.load(path) as arrays:
        return Rows(**arrays)


def a_few(rows: Rows) -> Rows:
    """Return some rows of the most frequent classes."""
    frequent = np.sort(np.argsort(-np.bincount(rows.y), kind="stable")[:QUICK_CLASSES])
    few = []
    for x, y in ((rows.x, rows.y), (rows.test_x, rows.test_y)):
        own = np.flatnonzero(np.isin(y, frequent))[:QUICK_ROWS]
        few += [x[own], np.searchsorted(frequent, y[own])]
    return Rows(*few)
