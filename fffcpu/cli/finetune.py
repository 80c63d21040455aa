"""``fffcpu finetune``: train a classifier of texts from a pretrained FastBERT or BERT."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

import fffcpu
from fffcpu.cli.support.outputs import check_folder
from fffcpu.cli.support.runs import (
    add_number,
    add_start,
    add_straight_through,
    check_start,
    run_folder,
    running,
)
from fffcpu.cli.support.separator import add_separator
from fffcpu.config.encoder import POOLERS
from fffcpu.errors import require_extra
from fffcpu.recipes.finetuning import FinetuneSettings, evaluate_texts, finetune
from fffcpu.system.terminal import format_number, format_table, print_status

__all__ = ["DESCRIPTION", "add_arguments", "run"]

DEFAULTS = FinetuneSettings()

DESCRIPTION = """\
Fine-tune a FastBERT or a BERT on texts with labels, to make a classifier or a regression. MODEL is
a folder that 'fffcpu pretrain' or 'fffcpu distill' wrote, or a published one. The classifier keeps
the pooler of a BERT that has one.

examples:
  fffcpu finetune bert reviews.csv --out judge
  fffcpu finetune bert reviews.jsonl --out judge --test more.jsonl --lr 5e-4
  fffcpu finetune bert films.csv --label rating --regression --out rater

data:
  .csv     a header, then one record per text; --text and --label name the columns
  .jsonl   one object per line; --text and --label name the fields
  Either may be gzipped (.gz). Labels are names of classes, or with --regression numbers.

output:
  OUT is a folder like MODEL, with a head for the classes. 'fffcpu classify' reads it.

while it trains:
  Every minute, and on Ctrl-C, the state is saved in the folder OUT.training. The same command with
  --resume continues the run, also after a crash or kill -9, and the result has the same bits. The
  folder's history.jsonl is kept.

The recipe is the published one for models of BERT's size. Small models need a larger --lr.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("model", metavar="MODEL", help="folder of a pretrained model")
    parser.add_argument("data", metavar="DATA", help="texts with labels")
    parser.add_argument("--out", required=True, metavar="OUT", help="folder to write")
    parser.add_argument("--test", metavar="DATA", help="texts to test the saved model on")
    parser.add_argument(
        "--text", default="text", metavar="F", help="column or field of the texts (text)"
    )
    parser.add_argument(
        "--label", default="label", metavar="F", help="column or field of the labels (label)"
    )
    add_separator(parser)
    parser.add_argument(
        "--regression", action="store_true", help="the labels are numbers to predict"
    )
    add_start(parser)
    parser.add_argument("--plot", metavar="FILE", help="draw the history (.png, .svg, .pdf)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads for the kernels")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    group = parser.add_argument_group("training")
    group.add_argument(
        "--pooler",
        choices=POOLERS,
        default=DEFAULTS.pooler,
        help=f"method to pool a text into one vector ({DEFAULTS.pooler}); in training, the other "
        "methods pool over padding too, as published",
    )
    add_straight_through(group, DEFAULTS)
    numbers: tuple[tuple[str, type, str], ...] = (
        ("epochs", int, "passes over the texts"),
        ("batch-size", int, "texts per step"),
        ("lr", float, "peak learning rate"),
        ("eps", float, "eps of AdamW"),
        ("weight-decay", float, "weight decay of AdamW"),
        ("dropout", float, "share of the activations that are dropped"),
        ("validation", float, "share of the texts to validate with"),
        ("seed", int, "random seed"),
        ("checkpoint-seconds", float, "seconds between checkpoints"),
        ("keep", int, "number of checkpoints to keep"),
    )
    for name, kind, text in numbers:
        add_number(group, DEFAULTS, name, kind, text)
    group.add_argument(
        "--length",
        type=int,
        metavar="N",
        help="maximum number of tokens per text (the model's limit)",
    )


def run(options: argparse.Namespace) -> None:
    """Fine-tune."""
    require_extra("tokenizers", "text")
    from fffcpu.models.opening import open_pretrained
    from fffcpu.plots import check_plot_path, plot_history
    from fffcpu.text import Tokenizer, read_labelled
    from fffcpu.text.tokenizer import TOKENIZER_FILE

    names = [field.name for field in dataclasses.fields(FinetuneSettings)]
    settings = FinetuneSettings(**{name: getattr(options, name) for name in names})
    if options.threads is not None:
        fffcpu.set_num_threads(options.threads)
    if options.plot is not None:
        check_plot_path(options.plot)
    out, folder = check_folder(options.out, options.model), run_folder(options.out)
    check_start(folder, options.out, resume=options.resume, overwrite=options.overwrite)
    pretrained = open_pretrained(options.model)
    tokenizer = Tokenizer.load(options.model)
    fields = {
        "text": options.text,
        "label": options.label,
        "regression": options.regression,
        "separator": options.separator,
    }
    data = read_labelled(options.data, **fields)
    test = read_labelled(options.test, classes=data.classes, **fields) if options.test else None
    kind = "numbers" if data.classes is None else f"{len(data.classes)} classes"
    print_status(f"{len(data.texts):,} texts, {kind}")
    where = {"folder": folder.path, "resume": options.resume}
    with running(folder, options.resume):
        done = finetune(pretrained, tokenizer, data, settings, **where)
    done.model.save_pretrained(out, files={TOKENIZER_FILE: tokenizer.to_json()})
    folder.remove_checkpoints()
    if options.plot is not None:
        plot_history(folder.read_history(), options.plot, f"Fine-tuning of {out.name}")
    validation = {
        name.removeprefix("validation_"): value for name, value in done.outcome.figures.items()
    }
    report = {
        "model": str(out),
        "history": str(folder.history_path),
        "texts": len(data.texts),
        "steps": done.outcome.steps,
        "seconds": done.outcome.seconds,
        "validation": validation,
        "test": evaluate_texts(done.model, tokenizer, test) if test else {},
    }
    print(json.dumps(report, indent=2) if options.json else f"{done.model!r}\n{_format(report)}")


def _format(report: dict[str, Any]) -> str:
    """Return the report for people."""
    lines = [f"{report['steps']:,} steps in {format_number(report['seconds'])} s"]
    figures = {name: report[name] for name in ("validation", "test") if report[name]}
    if figures:
        head = ("", *next(iter(figures.values())))
        rows = [
            (name, *(f"{value:.4f}" for value in values.values()))
            for name, values in figures.items()
        ]
        lines.append(format_table(head, rows))
    return "\n".join(lines)
