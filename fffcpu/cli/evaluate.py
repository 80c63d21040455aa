"""``fffcpu evaluate``: how good a model's predictions of a table are."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from typing import Any

import fffcpu
from fffcpu.cli.support.runs import reading
from fffcpu.cli.support.separator import add_separator
from fffcpu.cli.support.tables import report_unknown
from fffcpu.columns.encoding import Unknown
from fffcpu.data import read_table
from fffcpu.data.reading import has_named_columns
from fffcpu.errors import ArgumentError
from fffcpu.inference.predictor import Predictor
from fffcpu.recipes.evaluation import evaluate
from fffcpu.system.terminal import format_table

__all__ = ["DESCRIPTION", "add_arguments", "run"]

DESCRIPTION = """\
Compare a model's predictions with the targets of a table.

examples:
  fffcpu evaluate houses.safetensors new.csv
  fffcpu evaluate mnist.safetensors t10k-images-idx3-ubyte.gz --target t10k-labels-idx1-ubyte.gz

data: as for 'fffcpu train'. The target of a .csv is by default that of training.

how to read the output:
  accuracy  share of rows whose class is predicted; the baseline predicts the most frequent class
  f1        mean over classes of the harmonic mean of precision and recall
  auc       how often a row of a class gets a higher score for it than another row; 0.5 is chance
  rmse      root of the mean squared error; the baseline predicts the mean of the training targets
  mae       mean absolute error
  r2        share of the variance that is explained
The confusion matrix has a line per true class and a column per predicted one.
"""

MOST_CLASSES = 20
"""Maximum number of classes for which a confusion matrix is printed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("model", metavar="MODEL", help="file of 'fffcpu train'")
    parser.add_argument("data", metavar="DATA", help="table with targets")
    parser.add_argument("--target", metavar="T", help="target: a column or a file (as in training)")
    parser.add_argument(
        "--drop-missing", action="store_true", help="leave out rows without a target"
    )
    add_separator(parser)
    parser.add_argument("--threads", type=int, metavar="N", help="threads for the kernels")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> None:
    """Evaluate."""
    if options.threads is not None:
        fffcpu.set_num_threads(options.threads)
    predictor = Predictor.load(options.model)
    schema = predictor.schema
    if schema.task == "multilabel":
        raise ArgumentError(
            f"argument 'MODEL' must have one target per row, got '{options.model}' for several "
            "labels per row"
        )
    named = has_named_columns(options.data)
    target = options.target
    if target is None and named and schema.target is not None:
        target = schema.target
    if target is None and not options.data.lower().endswith(".npz"):
        raise ArgumentError(f"argument '--target' must name the target for '{options.data}'")
    unknown: Unknown = Counter()
    with reading(options.data) as progress:
        table = read_table(
            options.data,
            target,
            schema.task,
            features=schema.features,
            classes=schema.classes or None,
            encoding=schema.table_encoding if named else schema.encoding,
            drop_missing=options.drop_missing,
            separator=options.separator,
            unknown=unknown,
            progress=progress,
        )
    report_unknown(unknown)
    figures = {"model": options.model, "data": options.data, **evaluate(predictor, table)}
    if schema.classes:
        figures["classes"] = list(schema.classes)
    print(json.dumps(figures, indent=2) if options.json else _format(figures))


def _format(figures: dict[str, Any]) -> str:
    """Return the figures for people."""
    lines = [f"{figures['model']}, {figures['rows']:,} rows of {figures['data']}"]
    names = ("accuracy", "f1", "auc", "log_loss", "rmse", "mae", "r2", "baseline")
    for name in names:
        if name in figures:
            value = figures[name]
            lines.append(f"  {name:9} {'-' if value is None else f'{value:.6g}'}")
    for target, own in figures.get("targets", {}).items():
        shown = ", ".join(
            f"{name} {'-' if value is None else f'{value:.6g}'}" for name, value in own.items()
        )
        lines.append(f"  {target}: {shown}")
    if 1 < len(figures.get("classes", ())) <= MOST_CLASSES:
        labels = list(map(str, figures["classes"]))
        rows = [
            (label, *map(str, counts))
            for label, counts in zip(labels, figures["confusion"], strict=True)
        ]
        lines += ["", format_table(("true \\ predicted", *labels), rows)]
    return "\n".join(lines)
