"""``fffcpu embed``: make vectors of texts."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fffcpu
from fffcpu.cli.support.outputs import check_output
from fffcpu.cli.support.results import Clock, print_written, with_progress, write_npy
from fffcpu.cli.support.texts import FILES, TextAnswers, add_texts, count_texts, open_texts
from fffcpu.errors import ArgumentError, require_extra
from fffcpu.system.files import write_atomically

__all__ = ["DESCRIPTION", "add_arguments", "run"]

DESCRIPTION = f"""\
Make a vector of each text with the encoder of any FastBERT, or with a BERT in a folder of Hugging
Face, such as those of sentence-transformers. Texts are read, computed and written in
blocks of some thousands, in their order, so neither texts nor vectors need to fit into memory. The
output file appears when it is complete, or not at all.

examples:
  fffcpu embed bert sentences.txt --out vectors.npy
  fffcpu embed bert papers.jsonl.gz --field abstract --out vectors.npy --normalize
  cat sentences.txt | fffcpu embed bert - --out vectors.npy --pooling start

{FILES}
output: one array (texts, width). With --normalize, products of vectors are cosine similarities. The
row of a text with an error is NaN.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("model", metavar="MODEL", help="folder of a model")
    add_texts(parser)
    parser.add_argument("--out", required=True, metavar="X", help=".npy file to write")
    parser.add_argument(
        "--pooling",
        choices=("mean", "start"),
        help="mean over tokens, or the start token's vector (default: the model's own, or mean)",
    )
    parser.add_argument(
        "--normalize",
        action=argparse.BooleanOptionalAction,
        help="scale vectors to length 1 (default: the model's own, or no)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads for the kernels")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")


def run(options: argparse.Namespace) -> None:
    """Embed."""
    require_extra("tokenizers", "text")
    if Path(options.out).suffix.lower() != ".npy":
        raise ArgumentError(f"argument '--out' must end in .npy, got '{options.out}'")
    check_output(options.out, options.texts)
    clock = Clock()
    from fffcpu.inference.pipelines import TextEmbedder

    if options.threads is not None:
        fffcpu.set_num_threads(options.threads)
    embedder = TextEmbedder.from_pretrained(options.model)
    total = count_texts(options)
    none = embedder.embed([])  # so that the array's dtype is known without any text
    missing = np.full_like(none, np.nan, shape=(1, none.shape[1]))
    fffcpu.warmup(embedder.model)
    clock.rows_begin()
    answers = TextAnswers(
        open_texts(options.texts, options.field, options.separator),
        lambda texts: embedder.stream(texts, options.pooling, normalize=options.normalize),
        strict=options.strict,
    )
    rows: Iterator[NDArray[Any]] = (
        missing if answer.error is not None else answer.result[np.newaxis]
        for answer in with_progress(answers, total, "texts", lambda _: 1)
    )
    with write_atomically(options.out) as temporary:
        shape = write_npy(temporary, itertools.chain([none], rows))
    report = {"out": options.out, "shape": list(shape), **answers.figures, **clock.figures}
    print_written(report, shape[0], "texts", options.json)
    answers.finish()
