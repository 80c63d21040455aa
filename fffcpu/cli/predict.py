"""``fffcpu predict``: predict the rows of a table, block by block."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

import fffcpu
from fffcpu.cli.support.outputs import check_output
from fffcpu.cli.support.results import Clock, print_written, with_progress, write_npy
from fffcpu.cli.support.runs import add_dask, cluster
from fffcpu.cli.support.separator import add_separator
from fffcpu.cli.support.tables import (
    RowBlock,
    column_names,
    layer_rows,
    report_unknown,
    split_names,
)
from fffcpu.columns.encoding import Unknown
from fffcpu.data import count_rows
from fffcpu.errors import ArgumentError, DataError
from fffcpu.inference.predictor import Predictor, Schema, load_model
from fffcpu.inference.routes import final_nodes
from fffcpu.system.files import write_atomically
from fffcpu.system.terminal import format_number, print_status

__all__ = ["DESCRIPTION", "add_arguments", "run"]

Array = NDArray[Any]

DESCRIPTION = """\
Predict every row of a table with a model of 'fffcpu train', or run any saved layer on it. Rows are
read, computed and written in blocks, so neither table needs to fit into memory. The output file
appears when it is complete, or not at all.

examples:
  fffcpu predict houses.safetensors new.csv --out prices.csv --id address
  fffcpu predict houses.safetensors new.csv > prices.csv
  fffcpu predict houses.safetensors new.csv --beside --explain --out explained.csv
  fffcpu predict mnist.safetensors t10k-images-idx3-ubyte.gz --out digits.npy
  fffcpu predict mnist.safetensors x.npy --out probabilities.npy --what probabilities
  fffcpu predict mnist.safetensors x.npy --out digits.npy --dask tcp://10.0.0.5:8786

data: as for 'fffcpu train'. Columns of a .csv file are found by the model's column names; other
columns are ignored. A text that is no category of the model counts as one of the rare ones, and a
missing value as the mean, if training saw none; both are counted and reported.

output, by the ending of --out:
  .npy  one array: labels as in training, numbers, probabilities or scores
  .csv  the same with a header; --id and --beside add columns of the input
  none  lines of .csv on standard output

on a cluster (--dask, extra dask): this process reads and writes the blocks, and the workers of Dask
compute them. Explanations are made here.

explanation (--explain): for each tree, the leaf that the row reaches, how many training rows share
it, and what they were: rows per class, or the mean and the standard deviation of the (first)
target.
"""

ENDINGS = (".npy", ".csv")

OUTPUTS = ("predictions", "probabilities", "scores")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("model", metavar="MODEL", help="file of 'fffcpu train', or of any layer")
    parser.add_argument("data", metavar="DATA", help="table to predict")
    parser.add_argument("--out", metavar="Y", help="file to write: .npy or .csv (standard output)")
    parser.add_argument(
        "--what",
        choices=OUTPUTS,
        help="labels or numbers (the default for a model), probabilities of the classes, or the "
        "layer's outputs (the default for a layer alone)",
    )
    parser.add_argument(
        "--id", type=split_names, metavar="C,...", help="columns of a .csv to write before these"
    )
    parser.add_argument(
        "--beside", action="store_true", help="write all columns of a .csv before these"
    )
    parser.add_argument(
        "--explain", action="store_true", help="add the training rows that share each leaf"
    )
    add_separator(parser)
    add_dask(parser)
    parser.add_argument("--rows", type=int, default=8192, metavar="N", help="rows per block (8192)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads for the kernels")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")


class Columns(NamedTuple):
    """The columns that a command writes."""

    kept: list[str]
    """Names of columns of the input."""
    names: list[str]
    """Names of the columns of results."""
    explained: list[str]
    """Names of the columns of explanations."""


def run(options: argparse.Namespace) -> None:
    """Predict."""
    _check_options(options)
    clock = Clock()
    if options.threads is not None:
        fffcpu.set_num_threads(options.threads)
    check_output(options.out, options.model, options.data)
    layer, predictor = load_model(options.model)
    schema = None if predictor is None else predictor.schema
    explainer = _explainer(predictor, options.model) if options.explain else None
    compute, names = _computation(layer, schema, options)
    kept = options.id or []
    if options.beside:
        kept = column_names(options.data, options.separator)
    trees = range(len(explainer.routes.leaves)) if explainer and explainer.routes else ()
    parts = ("leaf", "rows", "targets")
    names = [f"predicted {name}" if name in kept else name for name in names]
    columns = Columns(kept, names, [f"tree {tree} {part}" for tree in trees for part in parts])
    unknown: Unknown = Counter()
    blocks = layer_rows(
        options.data, schema, options.rows, kept=kept, separator=options.separator, unknown=unknown
    )
    total = count_rows(options.data)
    fffcpu.warmup(layer)
    checked = _checked(blocks, layer.config.input_dim, options.data)
    with cluster(options.dask) as client:
        clock.rows_begin()
        results = _results(compute, explainer, checked, client)
        shape = _write(results, columns, options.out, total)
        figures = clock.figures
    report: dict[str, Any] = {"out": options.out, "shape": list(shape), **figures}
    report_unknown(unknown)
    if unknown:
        report["unknown"] = _count(unknown)
    if options.out is not None:
        print_written(report, shape[0], "rows", options.json)
    else:
        print_status(
            json.dumps(report)
            if options.json
            else f"{shape[0]:,} rows in {format_number(report['seconds'])} s"
        )


def _check_options(options: argparse.Namespace) -> None:
    """Raise unless the options fit the output."""
    ending = _ending(options.out)
    if ending not in ENDINGS:
        raise ArgumentError(
            f"argument '--out' must end in {' or '.join(ENDINGS)}, got '{options.out}'"
        )
    if options.id and options.beside:
        raise ArgumentError("argument '--id' must be left out with --beside, which has all columns")
    if ending != ".csv" and (options.id or options.beside or options.explain):
        raise ArgumentError(
            "arguments '--id', '--beside' and '--explain' must come with a .csv as output, "
            f"got '{options.out}'"
        )


def _ending(out: str | None) -> str:
    """Return the ending of the output's name; standard output has lines of CSV."""
    return ".csv" if out is None else Path(out).suffix.lower()


def _explainer(predictor: Predictor | None, path: str) -> Predictor:
    """Return the predictor if its training rows are known."""
    if predictor is None or predictor.routes is None:
        raise ArgumentError(
            f"argument '--explain' must be left out for '{path}', which has no statistics of "
            "training rows; 'fffcpu train' writes them for layers with trees"
        )
    return predictor


def _count(unknown: Unknown) -> dict[str, int]:
    """Return the number of rows with values that the model does not know, by column."""
    counts: Counter[str] = Counter()
    for (name, _), count in unknown.items():
        counts[name] += count
    return dict(counts)


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
    # The rows are inputs of the layer already.
    predictor = Predictor(layer, dataclasses.replace(schema, columns=None, features=None))
    targets = list(schema.target or ("prediction",))
    columns = list(map(str, schema.classes)) or targets
    columns = columns if len(columns) == outputs else plain
    if options.what == "scores":
        return predictor.scores, columns
    if options.what == "probabilities":
        return predictor.probabilities, columns
    one_label = schema.task == "classification"
    return predictor.predict, targets if one_label else columns


class Result(NamedTuple):
    """The results of some rows."""

    kept: list[tuple[str, ...]]
    """Fields of the input, column by column."""
    values: Array
    explained: list[list[str]]
    """Fields of explanations, column by column."""


def _rows(result: Result) -> int:
    return len(result.values)


def _checked(blocks: Iterator[RowBlock], width: int, path: str) -> Iterator[RowBlock]:
    """Yield blocks of rows, and raise unless they have the columns of the model."""
    none = True
    for block in blocks:
        none = False
        if block.inputs.shape[1] != width:
            raise DataError(
                f"file '{path}': must have {width} columns, like the model, "
                f"got {block.inputs.shape[1]}"
            )
        yield block
    if none:  # the dtype of the results must be known
        yield RowBlock(np.empty((0, width)), [])


def _results(
    compute: Callable[[Array], Array],
    explainer: Predictor | None,
    blocks: Iterator[RowBlock],
    client: Any,
) -> Iterator[Result]:
    """Compute block by block, here or on a cluster."""
    found: Iterator[tuple[RowBlock, Array]]
    if client is None:
        found = ((block, compute(block.inputs)) for block in blocks)
    else:
        from fffcpu.dask.streaming import stream

        found = stream(client, compute, blocks)
    for block, values in found:
        explained = [] if explainer is None else _explain(explainer, block.inputs)
        yield Result(block.kept, values, explained)


def _explain(predictor: Predictor, inputs: Array) -> list[list[str]]:
    """Return the explanations of rows, as columns of text."""
    routes, classes = predictor.routes, predictor.schema.classes
    assert routes is not None
    last = final_nodes(predictor.layer, inputs)
    columns = []
    for tree, outcomes in enumerate(routes.explain(last)):
        counts = outcomes.sum(axis=1) if classes else outcomes[:, 0]
        columns.append(list(map(str, last[:, tree].tolist())))
        columns.append([f"{count:.0f}" for count in counts.tolist()])
        columns.append([_describe(row, classes) for row in outcomes.tolist()])
    return columns


def _describe(outcome: Sequence[float], classes: Sequence[Any]) -> str:
    """Return what training rows were, in words."""
    if not classes:
        return f"{outcome[1]:.6g} ± {outcome[2]:.3g}" if outcome[0] else ""
    found = sorted(zip(outcome, map(str, classes), strict=True), key=lambda pair: -pair[0])
    return ", ".join(f"{label} {count:.0f}" for count, label in found if count)


def _write(
    results: Iterator[Result], columns: Columns, out: str | None, total: int | None
) -> tuple[int, ...]:
    """Write results to a file or standard output; return the shape of the predictions."""
    if out is None:
        return _write_csv(sys.stdout, results, columns)
    with write_atomically(out) as temporary:
        shown = with_progress(results, total, "rows", _rows)
        if _ending(out) == ".npy":
            return write_npy(temporary, (result.values for result in shown))
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            return _write_csv(file, shown, columns)


def _write_csv(file: TextIO, results: Iterator[Result], columns: Columns) -> tuple[int, ...]:
    """Write results as lines after a header."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*columns.kept, *columns.names, *columns.explained])
    rows = 0
    for kept, values, explained in results:
        # As text first: NumPy has the shortest digits of a float32, Python those of a float64.
        rows_of_text = values.reshape(len(values), len(columns.names)).astype(str)
        texts = rows_of_text.T.tolist()
        writer.writerows(zip(*kept, *texts, *explained, strict=True))
        rows += len(values)
    return (rows, len(columns.names)) if len(columns.names) > 1 else (rows,)
