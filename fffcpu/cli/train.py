"""``fffcpu train``: train a layer on a table."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fffcpu
import fffcpu.dask
from fffcpu.cli.support.candidates import check_auto, train_candidates
from fffcpu.cli.support.outputs import check_output
from fffcpu.cli.support.runs import (
    add_dask,
    add_number,
    add_start,
    add_straight_through,
    check_start,
    cluster,
    reading,
    run_folder,
    running,
)
from fffcpu.cli.support.separator import add_separator
from fffcpu.cli.support.tables import split_names
from fffcpu.columns.fields import is_date, is_number
from fffcpu.data import Table, read_table
from fffcpu.data.learning import describe_form
from fffcpu.data.reading import has_named_columns
from fffcpu.errors import ArgumentError, DataError
from fffcpu.inference.predictor import Predictor
from fffcpu.recipes.fitting import (
    EPOCHS,
    FEWEST_STEPS,
    FIT_HARDENING,
    LAYER_NAMES,
    OPTIMIZERS,
    SCHEDULES,
    SHRINKAGE,
    STARTS,
    WEIGHT_DECAY,
    FitSettings,
    Fitted,
    check_rows,
    evaluate_table,
    fit,
    layer_name,
)
from fffcpu.system.terminal import format_number, format_table, print_status

__all__ = ["DESCRIPTION", "add_arguments", "run"]

DEFAULTS = FitSettings()

_PLURALS = {"number": "numbers", "category": "categories", "date": "dates"}

AUTO = "auto"
"""In place of a layer's name: choose it by measurement."""

DESCRIPTION = """\
Train a layer on a table and save it, with the names of its columns, categories and classes, as one
file that 'fffcpu predict', 'fffcpu evaluate', 'fffcpu info' and fffcpu.load read.

examples:
  fffcpu train houses.csv --target price --out houses.safetensors
  fffcpu train flights.csv --target arr_delay --drop-missing --out delays.safetensors
  fffcpu train x.npy --target y.npy --out model.safetensors --layer leaf --depth 5 --epochs 30
  fffcpu train x.npy --target y.npy --out model.safetensors --dask local:4 --shards 4
  fffcpu train train-images-idx3-ubyte.gz --target train-labels-idx1-ubyte.gz \\
      --test t10k-images-idx3-ubyte.gz --test-target t10k-labels-idx1-ubyte.gz \\
      --standardize table --out mnist.safetensors

data:
  .csv, .tsv  a header, then rows, gzipped or not; --target names the column to predict, or several
              columns separated by commas
  .parquet    as .csv (extra parquet)
  .npz        arrays x and y; --target names an array other than y
  .npy        rows, read from the disk as they are needed; --target is another .npy file
  IDX         MNIST's format, gzipped or not; --target is the file of labels

columns of a .csv:
  The first rows show whether a column holds numbers, dates (2013-01-31, with or without a time) or
  texts. Each of the most frequent texts becomes an input; the others share one. A missing value
  (an empty field, NA, NaN, ...) is replaced by the mean, and another input marks it. A column with
  a different text in most rows is left out. The model's file contains all this.

target:
  Texts are classes. So are whole numbers, unless there are more than 20 different ones and they are
  more than 5% of the rows, or some are negative. All others are a regression. --task overrides
  this. Classes are named as they are written.

which layer:
  fast   FastFeedForward: every node of the tree is a neuron. A row uses trees x (depth + 1).
  leaf   LeafFeedForward: gates choose one of 2^depth small networks of --leaf-width neurons.
         Training mixes all leaves; --hardening makes the gates decide.
  dense  DenseFeedForward: one hidden layer of --width neurons, for comparison.
  auto   Train a fast layer and several dense layers, measure the quality and the time per row of
         each, and save the fastest layer that is as good as the best. The quality on the rows held
         out decides the choice, so it is optimistic: --test gives an honest figure. The time is
         that of the layer alone, without reading rows. No state is saved while it trains.

while it trains:
  Every half minute, and on Ctrl-C, the state is saved in the folder MODEL.training. The same
  command with --resume continues the run, also after a crash or kill -9, and the result has the
  same bits. The folder's history.jsonl has a line per epoch. It is kept; the state is deleted when
  MODEL is written.

on a cluster:
  --dask computes on the workers of a Dask cluster (extra dask): that of a scheduler by its
  address, or N processes on this machine, which end with the command. --shards is the number of
  cores that can work at a time; use it with large batches. The bits of the result depend on this
  number alone: not on the workers, nor on those that are lost. --resume without --dask continues
  in one process.

report:
  The figures are those of the file, read back, in the units of the data: for a regression, the root
  of the mean squared error (rmse). With --json it is the mean squared error itself (loss). In
  history.jsonl, the losses of a regression are those of targets scaled to a standard deviation of
  1. With --json, 'unused' counts the nodes, or gates and leaves, that no training row reached.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("data", metavar="DATA", help="table to train on")
    parser.add_argument("--target", metavar="T", help="target to predict: a column or a file")
    parser.add_argument(
        "--task",
        choices=("classification", "regression"),
        help="type of the target (default: see data)",
    )
    parser.add_argument("--out", required=True, metavar="MODEL", help="file to write")
    parser.add_argument("--test", metavar="DATA", help="table to test the saved model on")
    parser.add_argument("--test-target", metavar="T", help="target of --test (the same column)")
    add_start(parser)
    add_dask(parser)
    parser.add_argument("--threads", type=int, metavar="N", help="threads for the kernels")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    _add_columns(parser.add_argument_group("columns of a .csv"))
    _add_layer(parser.add_argument_group("layer"))
    _add_training(parser.add_argument_group("training"))


def _add_columns(group: Any) -> None:
    for name, text in (
        ("columns", "features, separated by commas (all but the target)"),
        ("drop", "columns that are not features"),
        ("category", "columns of categories that look like numbers"),
    ):
        group.add_argument(f"--{name}", type=split_names, metavar="C,...", help=text)
    group.add_argument(
        "--drop-missing", action="store_true", help="leave out rows without a target"
    )
    add_separator(group)


def _add_layer(group: Any) -> None:
    group.add_argument(
        "--layer",
        type=layer_name,
        choices=(*LAYER_NAMES, AUTO),
        default=DEFAULTS.layer,
        help=f"layer to train ({DEFAULTS.layer})",
    )
    add_number(group, DEFAULTS, "depth", int, "depth of the trees")
    add_number(group, DEFAULTS, "trees", int, "fast layer: trees, whose outputs are summed")
    group.add_argument(
        "--two-sided",
        action=argparse.BooleanOptionalAction,
        default=DEFAULTS.two_sided,
        help="fast layer: output weights for each side of a node",
    )
    for name, text in (
        ("leaf-width", "leaf layer: neurons per leaf"),
        ("width", "dense layer: number of neurons"),
    ):
        default = getattr(DEFAULTS, name.replace("-", "_"))
        group.add_argument(f"--{name}", type=int, metavar="N", help=f"{text} ({default})")
    group.add_argument(
        "--activation",
        choices=("gelu", "relu", "identity"),
        help="activation of the neurons (the layer's default)",
    )


def _add_training(group: Any) -> None:
    group.add_argument(
        "--epochs",
        type=int,
        metavar="N",
        help=f"passes over the data ({EPOCHS}, or as many as make {FEWEST_STEPS} steps)",
    )
    add_number(group, DEFAULTS, "batch-size", int, "rows per step")
    group.add_argument(
        "--optimizer",
        choices=tuple(OPTIMIZERS),
        default=DEFAULTS.optimizer,
        help=f"optimizer ({DEFAULTS.optimizer})",
    )
    group.add_argument(
        "--lr",
        type=float,
        metavar="X",
        help="peak learning rate "
        f"({', '.join(f'{name} {rate}' for name, rate in OPTIMIZERS.items())})",
    )
    group.add_argument(
        "--schedule",
        choices=tuple(SCHEDULES),
        default=DEFAULTS.schedule,
        help=f"schedule of the learning rate ({DEFAULTS.schedule})",
    )
    group.add_argument(
        "--weight-decay",
        type=float,
        metavar="X",
        help="weight decay; adam has none "
        f"(adamw {WEIGHT_DECAY}, fast layer {SHRINKAGE:g} / learning rate / steps; others 0)",
    )
    add_number(group, DEFAULTS, "momentum", float, "momentum of sgd and local-sgd")
    group.add_argument(
        "--local-batch-size",
        type=int,
        metavar="N",
        help="local optimizers: rows that use a node before it is updated",
    )
    group.add_argument(
        "--max-norm",
        type=lambda text: None if text == "none" else float(text),
        default=DEFAULTS.max_norm,
        metavar="X",
        help=f"largest norm of the gradients, or none ({DEFAULTS.max_norm})",
    )
    group.add_argument(
        "--standardize",
        choices=("columns", "table", "none"),
        default=DEFAULTS.standardize,
        help="divide each column by its own deviation (default), or all by that of the table, as "
        "suits pixels, or none",
    )
    group.add_argument(
        "--clip",
        action=argparse.BooleanOptionalAction,
        help="clip columns to their range in training, so that one wrong value cannot spoil a "
        "prediction (on for .csv)",
    )
    group.add_argument(
        "--hardening",
        type=float,
        metavar="X",
        help=f"leaf layer: weight of the hardening loss ({FIT_HARDENING})",
    )
    group.add_argument(
        "--hardening-schedule",
        choices=("constant", "linear"),
        default=DEFAULTS.hardening_schedule,
        help="leaf layer: that weight is constant (default) or rises from 0",
    )
    add_number(
        group,
        DEFAULTS,
        "region-leak",
        float,
        "leaf layer: share of the choices that are flipped",
    )
    add_number(
        group, DEFAULTS, "dropout", float, "leaf layer: share of the activations that are dropped"
    )
    group.add_argument(
        "--start",
        choices=STARTS,
        default=DEFAULTS.start,
        help="fast layer: initial routes are random (default), or separate clusters of rows",
    )
    add_straight_through(group, DEFAULTS)
    group.add_argument(
        "--gradients",
        choices=("auto", "dense", "rows"),
        default=DEFAULTS.gradients,
        help="fast layer: gradients of all nodes, or of those that a batch visits",
    )
    add_number(group, DEFAULTS, "validation", float, "share of the rows to validate with")
    group.add_argument(
        "--patience", type=int, metavar="N", help="stop after N epochs without improvement"
    )
    add_number(group, DEFAULTS, "seed", int, "random seed")
    add_number(group, DEFAULTS, "shards", int, "parts of the data, one core each")
    add_number(group, DEFAULTS, "checkpoint-seconds", float, "seconds between checkpoints")
    add_number(group, DEFAULTS, "keep", int, "number of checkpoints to keep")


def run(options: argparse.Namespace) -> None:
    """Train."""
    names = [field.name for field in dataclasses.fields(FitSettings)]
    values = {name: getattr(options, name) for name in names}
    if options.clip is None:
        values["clip"] = has_named_columns(options.data)
    for name in ("width", "leaf_width"):
        if values[name] is None:
            values[name] = getattr(DEFAULTS, name)
    auto = options.layer == AUTO
    settings = FitSettings(**values | ({"layer": "fast"} if auto else {}))
    if auto:
        check_auto(
            settings,
            dask=options.dask,
            resume=options.resume,
            width=options.width,
            leaf_width=options.leaf_width,
        )
    if options.threads is not None:
        fffcpu.set_num_threads(options.threads)
    _check_targets(options)
    _check_columns(options)
    check_output(*(options.out, options.data, options.target, options.test, options.test_target))
    folder = run_folder(options.out)
    check_start(folder, options.out, resume=options.resume, overwrite=options.overwrite)
    table = _read_table(options)
    test = _read_test(options, table)
    _describe(table, options)
    with running(folder, options.resume, resumable=not auto), cluster(options.dask) as client:
        if auto:
            fitted = train_candidates(table, settings)
        elif client is None:
            fitted = fit(table, settings, folder=folder.path, resume=options.resume)
        else:
            fitted = fffcpu.dask.fit(
                client, table, None, settings, folder=folder.path, resume=options.resume
            )
    fitted.predictor.save(options.out)
    saved = Predictor.load(options.out)
    figures = evaluate_table(saved, table, fitted.held_out) if len(fitted.held_out) else {}
    tested = evaluate_table(saved, test) if test else {}
    folder.remove_checkpoints()
    history = None if auto else str(folder.history_path)
    report = _report(options.out, history, table, fitted, figures, tested)
    print(json.dumps(report, indent=2) if options.json else _format(report))
    most = _most_frequent_class(table, fitted.held_out)
    if most and figures["accuracy"] <= most[1]:
        print_status(
            f"the validation accuracy is not above {most[1]:.4f}, that of always predicting "
            f"{most[0]!r}; 'fffcpu evaluate' counts the errors of each class"
        )


def _most_frequent_class(table: Table, rows: NDArray[np.int64]) -> tuple[Any, float] | None:
    """Return the most frequent class of some rows and its share; None without classes or rows."""
    if not table.classes or table.y is None or not len(rows):
        return None
    counts = np.bincount(table.y[rows], minlength=len(table.classes))
    return table.classes[int(counts.argmax())], float(counts.max() / len(rows))


def _read_table(options: argparse.Namespace) -> Table:
    """Return the table to train on."""
    named = has_named_columns(options.data)
    with reading(options.data) as progress:
        return read_table(
            options.data,
            options.target,
            options.task,
            features=options.columns,
            encoding="auto" if named else None,
            categories=options.category or (),
            drop=options.drop or (),
            drop_missing=options.drop_missing,
            separator=options.separator,
            progress=progress,
        )


def _read_test(options: argparse.Namespace, table: Table) -> Table | None:
    """Return the table to test on, checked before training."""
    if options.test is None:
        return None
    target = options.target if options.test_target is None else options.test_target
    test = read_table(
        options.test,
        target,
        "classification" if table.classes else "regression",
        classes=table.classes,
        features=table.features,
        encoding=table.encoding,
        drop_missing=options.drop_missing,
        separator=options.separator,
    )
    if test.x.shape[1] != table.x.shape[1]:
        raise DataError(
            f"file '{options.test}': must have {table.x.shape[1]} columns, as '{options.data}', "
            f"got {test.x.shape[1]}"
        )
    check_rows(test)
    return test


def _describe(table: Table, options: argparse.Namespace) -> None:
    """Report what was read, and what was taken for granted."""
    print_status(f"{len(table.x):,} rows of {table.x.shape[1]:,} columns{_kinds(table)}")
    for name, reason in table.left_out.items():
        print_status(f"column {name!r} is left out: it {reason}")
    for name, form in _misread(table, options.task).items():
        print_status(f"column {name!r} is taken as texts, but it {form}")
    target = "target" if table.target is None else f"target {', '.join(table.target)!r}"
    print_status(f"{target}: {_targets(table)}{'' if options.task else _other_task(table)}")


def _other_task(table: Table) -> str:
    """Return how to choose the other task, or nothing if only one is possible."""
    if table.classes and not all(is_number(str(label)) for label in table.classes):
        return ""
    other = "regression" if table.classes else "classification"
    return f" (pass --task {other} to change this)"


def _kinds(table: Table) -> str:
    """Return how many columns are of each kind, and how many inputs they become."""
    found = list[str]()
    if table.encoding is not None:
        counts = Counter(column.kind for column in table.encoding.columns)
        found += [f"{counts[kind]:,} of {_PLURALS[kind]}" for kind in _PLURALS if counts[kind]]
    parts = [", ".join(found)] if found else []
    if table.inputs != table.x.shape[1]:
        parts.append(f"{table.inputs:,} inputs of the layer")
    return f": {'; '.join(parts)}" if parts else ""


def _misread(table: Table, task: str | None) -> dict[str, str]:
    """Return the columns of texts that look like numbers or dates, and what they look like."""
    found = dict(table.notices)
    classes = [label for label in table.classes or () if isinstance(label, str)]
    form = "" if task else describe_form(classes)
    if not form and not task and classes and all(map(is_date, classes)):
        form = "looks like dates: write numbers, such as days, to predict them"
    return found | (dict.fromkeys(table.target or (), form) if form else {})


def _check_columns(options: argparse.Namespace) -> None:
    """Raise if options name columns of a file whose columns have no names."""
    if has_named_columns(options.data):
        return
    for name in ("columns", "drop", "category", "drop_missing"):
        if getattr(options, name):
            raise ArgumentError(
                f"argument '--{name.replace('_', '-')}' must be left out for a file without names "
                f"of columns, got '{options.data}'"
            )


def _check_targets(options: argparse.Namespace) -> None:
    """Raise unless each table has a target; only .npz files have a default."""
    tables = [("--target", options.data, options.target)]
    if options.test is not None:
        named = has_named_columns(options.test)
        target = options.target if named and options.test_target is None else options.test_target
        tables.append(("--test-target", options.test, target))
    for name, path, target in tables:
        if target is None and not path.lower().endswith(".npz"):
            raise ArgumentError(f"argument '{name}' must name the target for '{path}', got none")


def _targets(table: Table) -> str:
    """Return a description of the targets."""
    if table.classes:
        return f"classification, {len(table.classes):,} classes"
    assert table.y is not None
    return f"regression, {len(np.unique(table.y)):,} different numbers"


def _report(
    out: str,
    history: str | None,
    table: Table,
    fitted: Fitted,
    validation: dict[str, float],
    tested: dict[str, float],
) -> dict[str, Any]:
    """Return the report, in plain JSON values."""
    config, outcome = fitted.predictor.layer.config, fitted.outcome
    return {
        "model": out,
        "history": history,
        "kind": config.kind,
        "config": config.to_dict(),
        "neurons": {"held": config.neurons, "used": config.active_neurons},
        "task": fitted.predictor.schema.task,
        "rows": len(table.x),
        "steps": outcome.steps,
        "seconds": outcome.seconds,
        "stopped_early": outcome.stopped_early,
        "validation": _finite(validation),
        "test": _finite(tested),
        "unused": {name: int((counts == 0).sum()) for name, counts in outcome.usage.items()},
    }


def _finite(figures: dict[str, float]) -> dict[str, float | None]:
    """Return figures for JSON: None where one is not defined."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def _format(report: dict[str, Any]) -> str:
    """Return the report for people."""
    neurons = report["neurons"]
    lines = [
        report["model"],
        f"  layer     {report['kind']}, {neurons['used']:,} of {neurons['held']:,} neurons per row",
        f"  training  {report['steps']:,} steps in {format_number(report['seconds'])} s"
        + (", stopped early" if report["stopped_early"] else ""),
    ]
    figures = {
        name: _with_root(report[name], report) for name in ("validation", "test") if report[name]
    }
    if figures:
        head = ("", *next(iter(figures.values())))
        rows = [
            (name, *("-" if value is None else _shown(value) for value in values.values()))
            for name, values in figures.items()
        ]
        lines += ["", format_table(head, rows)]
    return "\n".join(lines)


def _with_root(figures: dict[str, float | None], report: dict[str, Any]) -> dict[str, float | None]:
    """Return figures with the root of the mean squared error, in the unit of a single target."""
    loss = figures["loss"]
    if report["task"] != "regression" or report["config"]["output_dim"] > 1:
        return figures
    others = {name: value for name, value in figures.items() if name != "loss"}
    return {"rmse": None if loss is None else math.sqrt(loss), **others}


def _shown(value: float) -> str:
    """Return a figure with four decimals, or six digits if it is large."""
    return f"{value:.4f}" if abs(value) < 100.0 else f"{value:,.6g}"
