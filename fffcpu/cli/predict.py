"""``fffcpu predict``: predict the rows of a table, block by block."""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fffcpu
from fffcpu.cli.support.outputs import check_output
from fffcpu.cli.support.results import print_written, with_progress, write_npy
from fffcpu.data import count_rows, read_blocks
from fffcpu.errors import ArgumentError, DataError
from fffcpu.inference.predictor import Predictor, Schema, load_model
from fffcpu.system.files import write_atomically

__all__ = ["DESCRIPTION", "add_arguments", "run"]

Array = NDArray[Any]

DESCRIPTION = """\
Predict every row of a table with a model of 'fffcpu train', or run any saved layer on it. Rows are
read, computed and written in blocks, so neither table needs to fit into memory. The output file
appears when it is complete, or not at all.

examples:
  fffcpu predict houses.safetensors new.csv --out prices.csv
  fffcpu predict mnist.safetensors t10k-images-idx3-ubyte.gz --out digits.npy
  fffcpu predict mnist.safetensors x.npy --out probabilities.npy --what probabilities

data: as for 'fffcpu train'. Columns of a .csv file are found by the model's column names; other
columns are ignored.

output, by the ending of --out:
  .npy  one array: labels as strings or integers, numbers, probabilities or scores
  .csv  the same with a header
"""

ENDINGS = (".npy", ".csv")

OUTPUTS = ("predictions", "probabilities", "scores")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("model", metavar="MODEL", help="file of 'fffcpu train', or of any layer")
    parser.add_argument("data", metavar="DATA", help="table to predict")
    parser.add_argument("--out", required=True, metavar="Y", help="file to write: .npy or .csv")
    parser.add_argument(
        "--what",
        choices=OUTPUTS,
        help="labels or numbers (the default for a model), probabilities of the classes, or the "
        "layer's outputs (the default for a layer alone)",
    )
    parser.add_argument("--rows", type=int, default=8192, metavar="N", help="rows per block (8192)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads for the kernels")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")


def run(options: argparse.Namespace) -> None:
    """Predict."""
    if Path(options.out).suffix.lower() not in ENDINGS:
        raise ArgumentError(
            f"argument '--out' must end in {' or '.join(ENDINGS)}, got '{options.out}'"
        )
    if options.threads is not None:
        fffcpu.set_num_threads(options.threads)
    check_output(options.out, options.model, options.data)
    layer, schema = load_model(options.model)
    compute, names = _computation(layer, schema, options)
    features = None if schema is None else schema.features
    blocks = read_blocks(options.data, options.rows, features, dtype=layer.config.dtype)
    start, total = time.perf_counter(), count_rows(options.data)
    with write_atomically(options.out) as temporary:
        results = _results(compute, blocks, layer.config.input_dim, options.data)
        results = with_progress(results, total, "rows")
        if Path(options.out).suffix.lower() == ".csv":
            shape = _write_csv(temporary, results, names)
        else:
            shape = write_npy(temporary, results)
    seconds = time.perf_counter() - start
    report = {"out": options.out, "shape": list(shape), "seconds": seconds}
    print_written(report, shape[0], "rows", options.json)


def _computation(
    layer: Any, schema: Schema | None, options: argparse.Namespace
) -> tuple[Callable[[Array], Array], list[str]]:
    """Return the function that computes a block's output, and the names of its columns."""
    outputs = layer.config.output_dim
    plain = [f"y{k}" for k in range(outputs)]
    if schema is None:
        if options.what not in (None, "scores"):
            raise ArgumentError(
                f"argument '--what' must be scores for a layer alone, got '{options.what}': file "
                f"'{options.model}' has no schema of its outputs"
            )
        return layer, plain
    predictor = Predictor(layer, schema)
    targets = list(schema.target or ("prediction",))
    columns = list(map(str, schema.classes)) or targets
    columns = columns if len(columns) == outputs else plain
    if options.what == "scores":
        return predictor.scores, columns
    if options.what == "probabilities":
        return predictor.probabilities, columns
    one_label = schema.task == "classification"
    return predictor.predict, targets if one_label else columns


def _results(
    compute: Callable[[Array], Array], blocks: Iterable[Array], width: int, path: str
) -> Iterator[Array]:
    """Compute block by block; yield at least one result, so that its dtype is known."""
    none = True
    for block in blocks:
        if block.shape[1] != width:
            raise DataError(
                f"file '{path}': must have {width} columns, like the model, got {block.shape[1]}"
            )
        none = False
        yield compute(block)
    if none:
        yield compute(np.empty((0, width)))


def _write_csv(path: Path, results: Iterator[Array], names: list[str]) -> tuple[int, ...]:
    """Write results as lines after a header."""
    rows, columns = 0, len(names)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for result in results:
            # As text first: NumPy has the shortest digits of a float32, Python those of a float64.
            writer.writerows(result.reshape(len(result), -1).astype(str).tolist())
            rows += len(result)
    return (rows, columns) if columns > 1 else (rows,)
