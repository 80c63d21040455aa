"""``fffcpu distill``: make a faster encoder from a BERT."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import shutil
from typing import Any

import fffcpu
from fffcpu.cli.support.outputs import check_folder
from fffcpu.cli.support.runs import add_number, add_start, check_start, run_folder, running
from fffcpu.cli.support.separator import add_separator
from fffcpu.errors import ArgumentError, require_extra
from fffcpu.recipes.distillation import LAYERS, LAYERS_STUDENT, DistillSettings, distill
from fffcpu.system.terminal import format_number, format_table, print_status
from fffcpu.training.run_folder import RunFolder

__all__ = ["DESCRIPTION", "add_arguments", "run"]

DEFAULTS = DistillSettings()

DESCRIPTION = """\
Distil a BERT, such as an encoder of sentences, into one whose feedforwards are trees of neurons.
First each feedforward learns the outputs of the teacher's from the teacher's inputs. Then the
student as a whole learns the teacher's hidden states and vectors of texts.

examples:
  fffcpu distill minilm sentences.txt --out fast --hours 4
  fffcpu distill minilm papers.jsonl.gz --field abstract --out fast --trees 8 --depth 5
  fffcpu distill minilm sentences.txt --out narrow --width 256 --hours 4
                                            a dense student of the same recipe, to compare with

texts:
  .txt    one text per line
  .jsonl  one object per line, with its text in --field
  .csv    a header, then one record per text; --field names the column
  Files may be gzipped (.gz). Some texts are held out for validation (--validation). Texts like
  those that the encoder will see are best.

output:
  STUDENT is a folder like TEACHER, with its tokenizer. 'fffcpu embed' and 'serve' read it. Its
  config.json describes the trees.

while it trains:
  r2 is the share of the variance of the teacher's outputs that a feedforward explains. similarity
  is Spearman's correlation, between student and teacher, of the similarities of all pairs of
  held-out texts. Every minute, and on Ctrl-C, the state is saved in the folder STUDENT.training.
  The same command with --resume continues the run, also after a crash or kill -9, and with
  --epochs the result has the same bits. The histories of both stages are kept.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("teacher", metavar="TEACHER", help="folder of a BERT")
    parser.add_argument("texts", nargs="+", metavar="TEXTS", help="files of texts")
    parser.add_argument("--out", required=True, metavar="STUDENT", help="folder to write")
    parser.add_argument(
        "--field",
        default="text",
        metavar="F",
        help="field of JSON lines or column of a .csv (text)",
    )
    add_separator(parser)
    add_start(parser)
    parser.add_argument("--threads", type=int, metavar="N", help="threads for the kernels")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    student = parser.add_argument_group("student")
    add_number(student, DEFAULTS, "trees", int, "trees of a feedforward")
    add_number(student, DEFAULTS, "depth", int, "depth of the trees")
    student.add_argument(
        "--two-sided",
        action=argparse.BooleanOptionalAction,
        default=DEFAULTS.two_sided,
        help="trees: output weights for each side of a node",
    )
    student.add_argument(
        "--width", type=int, metavar="W", help="neurons of dense feedforwards, instead of trees"
    )
    _add_training(parser.add_argument_group("training"))


def _add_training(group: Any) -> None:
    group.add_argument("--epochs", type=float, metavar="X", help="budget: passes over texts (16)")
    group.add_argument("--hours", type=float, metavar="X", help="budget: hours of wall-clock time")
    group.add_argument(
        "--validation",
        type=float,
        default=0.02,
        metavar="X",
        help="share of the texts to validate with (0.02)",
    )
    numbers: tuple[tuple[str, type, str], ...] = (
        ("layers-share", float, "share of the budget for the first stage"),
        ("length", int, "tokens after which texts are cut"),
        ("batch-tokens", int, "tokens per step, about"),
        ("lr", float, "peak learning rate of the first stage"),
        ("encoder-lr", float, "peak learning rate of the second stage"),
        ("weight-decay", float, "weight decay of the first stage"),
        ("encoder-weight-decay", float, "weight decay of the second stage"),
        ("max-norm", float, "largest norm of the gradients"),
        ("evaluations", int, "evaluations per stage, if the budget is in passes"),
        ("seed", int, "random seed"),
        ("checkpoint-seconds", float, "seconds between checkpoints"),
        ("keep", int, "number of checkpoints to keep"),
    )
    for name, kind, text in numbers:
        add_number(group, DEFAULTS, name, kind, text)


def run(options: argparse.Namespace) -> None:
    """Distil."""
    require_extra("tokenizers", "text")
    from fffcpu.models import BertEncoder
    from fffcpu.text import Tokenizer, read_texts
    from fffcpu.text.tokenizer import TOKENIZER_FILE

    names = {field.name for field in dataclasses.fields(DistillSettings)} - {"seconds"}
    seconds = None if options.hours is None else 3600.0 * options.hours
    settings = DistillSettings(**{name: getattr(options, name) for name in names}, seconds=seconds)
    if not 0.0 <= options.validation < 1.0:
        raise ArgumentError(
            f"argument '--validation' must be from 0 to below 1, got {options.validation}"
        )
    if options.threads is not None:
        fffcpu.set_num_threads(options.threads)
    out, folder = check_folder(options.out, options.teacher), run_folder(options.out)
    layers = RunFolder(folder.path / LAYERS)
    first = layers if layers.unfinished else folder
    check_start(first, options.out, resume=options.resume, overwrite=options.overwrite)
    tokenizer = Tokenizer.load(options.teacher)
    teacher = BertEncoder.from_pretrained(options.teacher)
    length = min(settings.length, teacher.config.longest)
    lines = itertools.chain.from_iterable(
        read_texts(path, options.field, separator=options.separator) for path in options.texts
    )
    rows = tokenizer.encode(list(filter(str.strip, lines)), length)
    print_status(f"{len(rows):,} texts, {sum(map(len, rows)):,} tokens")
    with running(first, options.resume):
        done = distill(
            teacher,
            rows,
            settings,
            validation=options.validation,
            folder=folder.path,
            resume=options.resume,
        )
    done.model.save_pretrained(out, files={TOKENIZER_FILE: tokenizer.to_json()})
    for one in (layers, folder):
        one.remove_checkpoints()
    shutil.rmtree(folder.path / LAYERS_STUDENT)
    report = {
        "model": str(out),
        "histories": [str(one.history_path) for one in (layers, folder)],
        "texts": len(rows),
        "parameters": done.model.params.count,
        "layers": None if done.layers is None else _figures(done.layers),
        "encoder": _figures(done.encoder),
    }
    print(json.dumps(report, indent=2) if options.json else f"{done.model!r}\n{_format(report)}")


def _figures(outcome: Any) -> dict[str, Any]:
    """Return the figures of a stage."""
    return {
        "steps": outcome.steps,
        "tokens": outcome.rows,
        "seconds": outcome.seconds,
        **outcome.figures,
    }


def _format(report: dict[str, Any]) -> str:
    """Return the report for people."""
    head = ("stage", "steps", "tokens", "seconds", "R2", "similarity")
    lines = []
    for stage in ("layers", "encoder"):
        found = report[stage]
        if found is None:  # an earlier run had finished it
            continue
        figures = (found.get("r2", found.get("hidden_r2")), found.get("similarity"))
        counts = (f"{found[name]:,}" for name in ("steps", "tokens"))
        cells = ("-" if figure is None else f"{figure:.4f}" for figure in figures)
        lines.append((stage, *counts, format_number(found["seconds"]), *cells))
    return format_table(head, lines)
