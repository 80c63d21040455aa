"""``fffcpu distill``: make a faster encoder or classifier from a BERT."""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fffcpu
from fffcpu.benchmarking.encoders import Shape, time_encoders
from fffcpu.cli.support.outputs import check_folder
from fffcpu.cli.support.runs import (
    add_budget,
    add_number,
    add_start,
    add_validation,
    check_start,
    run_folder,
    running,
    timed_settings,
)
from fffcpu.cli.support.texts import ENDINGS, add_fields
from fffcpu.errors import ArgumentError, CheckpointError, require_extra
from fffcpu.recipes.distillation import LAYERS, DistillSettings, distill
from fffcpu.recipes.distillation_report import REPORT_FILE, format_report, make_report
from fffcpu.system.files import write_text
from fffcpu.system.terminal import format_number, format_table, print_status
from fffcpu.training.run_folder import RunFolder

__all__ = ["DESCRIPTION", "add_arguments", "run"]

DEFAULTS = DistillSettings()

SHAPES = ("1x16", "1x128", "8x128")
"""Default shapes of the calls that --plot times."""

HEADS = {"agreement": "agreement", "output_r2": "output R2"}
"""Figures of classifiers and of regressions, and their names for people."""

ENCODED = 4096
"""Texts that are tokenized at a time."""

DESCRIPTION = f"""\
Distil a BERT, an encoder of sentences or a classifier, into one whose feedforwards are trees of
neurons. First each feedforward learns the outputs of the teacher's from the teacher's inputs. Then
the student as a whole learns the teacher's hidden states, and its vectors of texts or its classes.

examples:
  fffcpu distill minilm sentences.txt --out fast --hours 4
  fffcpu distill minilm papers.jsonl.gz --field abstract --out fast --trees 8 --depth 5
  fffcpu distill minilm sentences.txt --out narrow --width 256 --hours 4
                                            a dense student of the same recipe, to compare with
  fffcpu distill minilm sentences.txt --out fast --plot fast.svg
                                            also time student and teacher, and draw the result
  fffcpu distill reviews reviews.csv --field text --out fast
                                            a classifier, as 'fffcpu finetune' makes one; its
                                            student needs no labels

{ENDINGS}\
  Files may be gzipped (.gz). Some texts are held out for validation (--validation). Texts like
  those that the encoder will see are best.

output:
  STUDENT is a folder like TEACHER, with its tokenizer. 'fffcpu embed', 'classify' and 'serve' read
  it. Of a masked language model, the encoder is distilled, without the head. STUDENT's
  config.json describes the trees, and its {REPORT_FILE} what it was distilled from, and how
  well it follows its teacher.

while it trains:
  r2 is the share of the variance of the teacher's outputs that a feedforward explains. similarity
  is Spearman's correlation, between student and teacher, of the similarities of all pairs of
  held-out texts. Of a classifier, agreement is the share of held-out texts whose class is the
  teacher's; of a regression, output_r2 is the share of the variance of the teacher's outputs.
  Every minute, and on Ctrl-C, the state is saved in the folder STUDENT.training. The same command
  with --resume continues the run, also after a crash or kill -9, and with --epochs the result has
  the same bits. The histories of both stages are kept.

memory and disk:
  Besides the teacher, a student takes four times the size of its parameters, and checkpoints take
  three times that size each. Both are checked before the run.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("teacher", metavar="TEACHER", help="folder of a BERT")
    parser.add_argument("texts", nargs="+", metavar="TEXTS", help="files of texts")
    parser.add_argument("--out", required=True, metavar="STUDENT", help="folder to write")
    add_fields(parser)
    add_start(parser)
    parser.add_argument(
        "--plot",
        metavar="FILE",
        help="time student and teacher, and draw similarity, or what a classifier has instead, "
        "against time (.png, .svg, .pdf)",
    )
    parser.add_argument(
        "--shapes",
        nargs="+",
        default=list(SHAPES),
        metavar="BxS",
        help=f"--plot: texts x tokens of a call ({' '.join(SHAPES)})",
    )
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
    add_budget(group, 16)
    add_validation(group, "texts")
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
    from fffcpu.plots import check_plot_path
    from fffcpu.text import Tokenizer
    from fffcpu.text.corpus import check_validation
    from fffcpu.text.tokenizer import TOKENIZER_FILE

    settings = timed_settings(DistillSettings, options)
    check_validation(options.validation)
    if options.threads is not None:
        fffcpu.set_num_threads(options.threads)
    if options.plot is not None:
        check_plot_path(options.plot)
    shapes = list(map(Shape.parse, options.shapes))
    out, folder = check_folder(options.out, options.teacher), run_folder(options.out)
    layers = RunFolder(folder.path / LAYERS)
    first = next((stage for stage in (folder, layers) if stage.unfinished), folder)
    check_start(first, options.out, resume=options.resume, overwrite=options.overwrite)
    tokenizer = Tokenizer.load(options.teacher)
    teacher = _open_teacher(options.teacher)
    if options.plot is not None:
        _check_shapes(shapes, teacher.config.positions)
    settings.check_room(teacher.config, folder.path)
    rows = list(_tokens(options, tokenizer, min(settings.length, teacher.config.longest)))
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
    report = make_report(teacher, options.teacher, done, settings, fffcpu.__version__)
    files = {TOKENIZER_FILE: tokenizer.to_json(), REPORT_FILE: format_report(report)}
    done.model.save_pretrained(out, files=files)
    for one in (folder, layers):  # the longer stage last, for a kill in between
        one.remove_checkpoints()
    if options.plot is not None:
        report["times"] = _times(teacher, done.model, shapes)
        write_text(out / REPORT_FILE, format_report(report))
        _draw(report, out.name, options.plot)
    paths = {
        "model": str(out),
        "histories": [str(one.history_path) for one in (layers, folder)],
    }
    shown = {**paths, **report}
    print(json.dumps(shown, indent=2) if options.json else f"{done.model!r}\n{_format(report)}")


def _open_teacher(folder: str) -> Any:
    """Open the classifier in a folder, or else the encoder."""
    from fffcpu.models import BertConfig, BertEncoder, BertForSequenceClassification
    from fffcpu.models.folders import open_config
    from fffcpu.models.model import check_float_weights

    config = open_config(Path(folder))
    if not isinstance(config, BertConfig):
        raise CheckpointError(
            f"folder '{folder}' must hold a BERT to distil, got a FastBERT, which has trees already"
        )
    kind = BertEncoder if config.classes is None else BertForSequenceClassification
    teacher = kind.from_pretrained(folder)
    check_float_weights(teacher, "teacher")
    if config.head == "masked_lm":
        print_status(f"{folder}: the head of the masked language model is left out")
    return teacher


def _check_shapes(shapes: list[Shape], positions: int) -> None:
    """Raise if a call to be timed has more tokens than the teacher takes."""
    longest = max(shape.tokens for shape in shapes)
    if longest > positions:
        raise ArgumentError(
            f"argument '--shapes' must have at most the teacher's {positions} tokens, got {longest}"
        )


def _tokens(options: argparse.Namespace, tokenizer: Any, length: int) -> Iterator[NDArray[Any]]:
    """Yield the tokens of each text that is not blank, in four bytes each."""
    from fffcpu.text import read_texts

    lines = itertools.chain.from_iterable(
        read_texts(path, options.field, separator=options.separator) for path in options.texts
    )
    texts = filter(str.strip, lines)
    while some := list(itertools.islice(texts, ENCODED)):
        yield from (np.array(row, np.int32) for row in tokenizer.encode(some, length))


def _times(teacher: Any, student: Any, shapes: list[Shape]) -> dict[str, dict[str, float]]:
    """Return the microseconds per token of teacher and student, by shape."""
    print_status("timing teacher and student")
    encoders = {"teacher": teacher, "student": student}
    return {
        str(shape): {
            timing.name: timing.microseconds
            for timing in time_encoders(encoders, shape, teacher.config.vocabulary)
        }
        for shape in shapes
    }


def _draw(report: dict[str, Any], name: str, path: str) -> None:
    """Draw what a student is for against time; of the teacher itself, each of the figures is 1."""
    from fffcpu.plots import Timed, plot_tradeoff

    figure = next((name for name in HEADS if report[name] is not None), "similarity")
    quality = {"teacher": 1.0, "student": report[figure]}
    if quality["student"] is None:
        print_status("no picture: too few texts are held out (--validation) for a figure")
        return
    panels = {
        f"{shape} tokens": [Timed(who, time, quality[who]) for who, time in times.items()]
        for shape, times in report["times"].items()
    }
    teacher = Path(report["teacher"]["name"]).name
    title = f"{name}, distilled from {teacher}"
    plot_tradeoff(panels, path, title, quality=HEADS.get(figure, figure))


def _format(report: dict[str, Any]) -> str:
    """Return the report for people."""
    results = {"hidden_r2": "R2", "similarity": "similarity", "cosine": "cosine"}
    results |= {name: title for name, title in HEADS.items() if report[name] is not None}
    lines = []
    for name, stage in report["stages"].items():
        last = dict(stage["evaluations"][-1]) if stage["evaluations"] else {}
        last.setdefault("hidden_r2", last.get("r2"))
        figures = map(last.get, results)
        counts = (f"{stage[count]:,}" for count in ("steps", "tokens"))
        cells = ("-" if figure is None else f"{figure:.4f}" for figure in figures)
        lines.append((name, *counts, format_number(stage["seconds"]), *cells))
    head = ("stage", "steps", "tokens", "seconds", *results.values())
    return "\n\n".join([format_table(head, lines), *_format_times(report)])


def _format_times(report: dict[str, Any]) -> Iterator[str]:
    """Yield a table of times, if there are any."""
    if "times" in report:
        head = ("texts x tokens", "teacher, µs per token", "student, µs per token", "ratio")
        yield format_table(
            head,
            [
                (
                    shape,
                    *(format_number(times[who]) for who in ("teacher", "student")),
                    f"{times['teacher'] / times['student']:.2f}x",
                )
                for shape, times in report["times"].items()
            ],
        )
