"""``fffcpu classify``: predict the classes of texts with a fine-tuned FastBERT or BERT."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

import fffcpu
from fffcpu.cli.support.outputs import check_output
from fffcpu.cli.support.results import Clock, print_json, print_written, with_progress
from fffcpu.cli.support.texts import (
    FILES,
    Answer,
    TextAnswers,
    add_texts,
    count_texts,
    open_texts,
)
from fffcpu.errors import ArgumentError, DataError, require_extra
from fffcpu.system.files import write_atomically

__all__ = ["DESCRIPTION", "add_arguments", "run"]

DESCRIPTION = f"""\
Predict the classes of texts, with a classifier that 'fffcpu finetune' wrote or a published one.
Texts are read, classified and written in blocks of some thousands, in their order. The output file
appears when it is complete, or not at all.

examples:
  fffcpu classify judge --text "a film to remember" --text "two hours too long"
  fffcpu classify judge reviews.txt --out judged.csv
  fffcpu classify judge reviews.jsonl.gz --field body --out judged.jsonl
  cat reviews.txt | fffcpu classify judge - > labels.tsv

{FILES}
output, for each text:
  without --out  the label, a tab, and the model's probability for it. A tab, a line end or a
                 backslash within a label is written as \\t, \\n, \\r or \\\\
  .csv           the same, with a header
  .jsonl         an object with 'label', 'probability', and the 'probabilities' of all classes, or
                 an 'error'
  A regression gives one number instead, named 'prediction'. For a text with an error all is empty.
"""

ENDINGS = (".csv", ".jsonl")

ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})
"""Escapes for characters in a label that would break its line or the columns."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("model", metavar="MODEL", help="folder of a classifier")
    add_texts(parser, nargs="?")
    parser.add_argument(
        "--text",
        action="append",
        metavar="TEXT",
        help="a text, instead of TEXTS; may be repeated",
    )
    parser.add_argument("--out", metavar="Y", help="file to write: .csv or .jsonl")
    parser.add_argument("--threads", type=int, metavar="N", help="threads for the kernels")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")


def run(options: argparse.Namespace) -> None:
    """Classify."""
    require_extra("tokenizers", "text")
    _check(options)
    clock = Clock()
    from fffcpu.inference.pipelines import TextClassifier

    if options.threads is not None:
        fffcpu.set_num_threads(options.threads)
    classifier = TextClassifier.from_pretrained(options.model)
    texts, total = _texts(options)
    fffcpu.warmup(classifier.model)
    clock.rows_begin()
    answers = TextAnswers(texts, classifier.stream, strict=options.strict)
    shown = with_progress(answers, total, "texts", lambda _: 1)
    found = (_values(answer, classifier.labels) for answer in shown)
    names = ["label", "probability"] if classifier.labels else ["prediction"]
    if options.out is not None:
        _write(options, found, names)
        report = {"out": options.out, **answers.figures, **clock.figures}
        print_written(report, answers.texts, "texts", options.json)
    elif options.json:
        every = list(found)
        print_json({"model": options.model, **answers.figures, **clock.figures, "texts": every})
    else:
        for values in found:
            print(*(str(cell).translate(ESCAPES) for cell in _cells(values, names)), sep="\t")
    answers.finish()


def _texts(options: argparse.Namespace) -> tuple[Iterable[str | DataError], int | None]:
    """Return the texts, and their number if it is known."""
    if options.text is not None:
        return options.text, len(options.text)
    total = count_texts(options)
    return open_texts(options.texts, options.field, options.separator), total


def _check(options: argparse.Namespace) -> None:
    """Raise unless there is one source of texts and the output file can be written."""
    if (options.texts is None) == (options.text is None):
        raise ArgumentError("argument 'TEXTS' or '--text' must be given, and not both")
    if options.out is not None and Path(options.out).suffix.lower() not in ENDINGS:
        raise ArgumentError(
            f"argument '--out' must end in {' or '.join(ENDINGS)}, got '{options.out}'"
        )
    check_output(options.out, options.texts)


def _values(answer: Answer, labels: tuple[str, ...]) -> dict[str, Any]:
    """Return the prediction for a text, or the error, by name."""
    if answer.error is not None:
        return {"error": answer.error}
    row: NDArray[Any] = answer.result
    # As text first: NumPy has the shortest digits of a float32, Python those of a float64.
    numbers = [float(text) for text in row.astype(str)]
    if not labels:
        return {"prediction": numbers[0]}
    best = int(row.argmax())
    probabilities = dict(zip(labels, numbers, strict=True))
    return {
        "label": labels[best],
        "probability": numbers[best],
        "probabilities": probabilities,
    }


def _cells(values: dict[str, Any], names: list[str]) -> list[Any]:
    """Return the cells of a line; those of an error are empty."""
    return [values.get(name, "") for name in names]


def _write(options: argparse.Namespace, found: Iterator[dict[str, Any]], names: list[str]) -> None:
    """Write the answers to a file."""
    table = Path(options.out).suffix.lower() == ".csv"
    with (
        write_atomically(options.out) as temporary,
        open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        if table:
            writer.writerow(names)
        for values in found:
            if table:
                writer.writerow(_cells(values, names))
            else:
                file.write(json.dumps(values, ensure_ascii=False) + "\n")
