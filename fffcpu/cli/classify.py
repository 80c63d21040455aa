"""``fffcpu classify``: predict the classes of texts with a fine-tuned FastBERT."""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fffcpu
from fffcpu.cli.support.outputs import check_output
from fffcpu.cli.support.results import print_written, with_progress
from fffcpu.cli.support.texts import add_texts, count_texts, open_texts
from fffcpu.errors import ArgumentError, require_extra
from fffcpu.system.files import write_atomically

__all__ = ["DESCRIPTION", "add_arguments", "run"]

Answer = dict[str, Any]

DESCRIPTION = """\
Predict the classes of texts, with a classifier that 'fffcpu finetune' wrote or a published one.
Texts are read, classified and written in blocks of some thousands, in their order. The output file
appears when it is complete, or not at all.

examples:
  fffcpu classify judge --text "a film to remember" --text "two hours too long"
  fffcpu classify judge reviews.txt --out judged.csv
  fffcpu classify judge reviews.jsonl.gz --field body --out judged.jsonl
  cat reviews.txt | fffcpu classify judge - > labels.tsv

texts:
  .txt    one text per line
  .jsonl  one object per line, with its text in --field
  .csv    a header, then one record per text; --field names the column
  All may be gzipped (.gz). Tokens beyond the model's longest text are dropped.

output, for each text:
  without --out  the label, a tab, and the model's probability for it. A tab, a line end or a
                 backslash within a label is written as \\t, \\n, \\r or \\\\
  .csv           the same, with a header
  .jsonl         an object with 'label', 'probability', and the 'probabilities' of all classes
  A regression gives one number instead, named 'prediction'.
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
    from fffcpu.inference.pipelines import TextClassifier

    if options.threads is not None:
        fffcpu.set_num_threads(options.threads)
    classifier = TextClassifier.from_pretrained(options.model)
    texts, total = _texts(options)
    rows = (row[np.newaxis] for row in classifier.stream(texts))
    found = (_answer(row[0], classifier.labels) for row in with_progress(rows, total, "texts"))
    if options.out is not None:
        _write(options, found, ["label", "probability"] if classifier.labels else ["prediction"])
    elif options.json:
        print(json.dumps({"model": options.model, "texts": list(found)}, indent=2))
    else:
        for answer in found:
            print(*(str(cell).translate(ESCAPES) for cell in _cells(answer)), sep="\t")


def _texts(options: argparse.Namespace) -> tuple[Iterable[str], int | None]:
    """Return the texts, and their number if it is known."""
    if options.text is not None:
        return options.text, len(options.text)
    total = count_texts(options.texts, options.field)
    return open_texts(options.texts, options.field), total


def _check(options: argparse.Namespace) -> None:
    """Raise unless there is one source of texts and the output file can be written."""
    if (options.texts is None) == (options.text is None):
        raise ArgumentError("argument 'TEXTS' or '--text' must be given, and not both")
    if options.out is not None and Path(options.out).suffix.lower() not in ENDINGS:
        raise ArgumentError(
            f"argument '--out' must end in {' or '.join(ENDINGS)}, got '{options.out}'"
        )
    check_output(options.out, options.texts)


def _answer(row: NDArray[Any], labels: tuple[str, ...]) -> Answer:
    """Return the prediction for a text."""
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


def _cells(answer: Answer) -> list[Any]:
    """Return the cells of an answer's line."""
    return [value for name, value in answer.items() if name != "probabilities"]


def _write(options: argparse.Namespace, found: Iterator[Answer], names: list[str]) -> None:
    """Write the answers to a file, and report it."""
    start, count = time.perf_counter(), 0
    table = Path(options.out).suffix.lower() == ".csv"
    with (
        write_atomically(options.out) as temporary,
        open(temporary, "w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        if table:
            writer.writerow(names)
        for answer in found:
            if table:
                writer.writerow(_cells(answer))
            else:
                file.write(json.dumps(answer, ensure_ascii=False) + "\n")
            count += 1
    seconds = time.perf_counter() - start
    report = {"out": options.out, "texts": count, "seconds": seconds}
    print_written(report, count, "texts", options.json)
