"""``fffcpu fill-mask``: guess the masked words of texts."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import fffcpu
from fffcpu.cli.support.results import Clock, print_json
from fffcpu.cli.support.texts import TextAnswers, add_strict, open_texts
from fffcpu.errors import ArgumentError, require_extra

__all__ = ["DESCRIPTION", "add_arguments", "run"]

DESCRIPTION = """\
Guess the masked tokens of a text: for each [MASK], print the likeliest tokens and their
probabilities.

examples:
  fffcpu fill-mask "the [MASK] of a tree"
  fffcpu fill-mask "a [MASK] that [MASK] at night" --top 3 --model bert
  fffcpu fill-mask --json < sentences.txt              one text per line, from standard input

Without --model, the small model in the package is used. Tokens that begin with ## continue the word
before them.

how to read the output: each mask has its likeliest tokens. Their probabilities are the model's,
which sum to 1 over all tokens. A text without a mask is left out, or with --json has an empty list
of 'masks'. It is an error if no text has a mask.

errors: a text that the model cannot take, because a mask lies beyond its longest text, is named on
standard error, and with --json has an 'error'; then the exit status is 1. With --strict the first
such text ends the command.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument(
        "texts",
        metavar="TEXT",
        nargs="*",
        help="texts with [MASK] (default: the lines of standard input)",
    )
    parser.add_argument(
        "--model",
        metavar="FOLDER",
        help="folder of a masked language model (default: the package's)",
    )
    parser.add_argument(
        "--top", type=int, default=5, metavar="N", help="number of guesses per mask (5)"
    )
    add_strict(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> None:
    """Fill masks."""
    require_extra("tokenizers", "text")
    clock = Clock()
    from fffcpu.inference.pipelines import FillMask, default_model_folder

    folder = default_model_folder() if options.model is None else options.model
    pipeline = FillMask.from_pretrained(folder)
    fffcpu.warmup(pipeline.model)
    clock.rows_begin()
    answers = TextAnswers(
        options.texts or open_texts("-", ""),
        lambda texts: pipeline.stream(texts, options.top, strict=False),
        strict=options.strict,
        place="text" if options.texts else "standard input, line",
    )
    report: list[dict[str, Any]] = []
    any_mask = False
    for text, masks, error in answers:
        any_mask = any_mask or bool(masks)
        if options.json:
            report.append({"text": text, **_values(masks, error)})
        elif masks:
            print(_format(str(text), masks))
    if not any_mask and not answers.errors:
        mask = pipeline.tokenizer.token(pipeline.tokenizer.mask_id)
        raise ArgumentError(f"argument 'TEXT' must contain {mask} where a token is to be guessed")
    if options.json:
        figures = {**answers.figures, **clock.figures}
        print_json({"model": str(folder), **figures, "texts": report})
    answers.finish()


def _values(masks: Sequence[Sequence[Any]] | None, error: str | None) -> dict[str, Any]:
    """Return the guesses for a text, or the error, by name."""
    if masks is None:
        return {"error": error}
    return {"masks": [[guess._asdict() for guess in guesses] for guesses in masks]}


def _format(text: str, masks: Sequence[Sequence[Any]]) -> str:
    """Return the answer to a text for people."""
    lines = [text]
    for number, guesses in enumerate(masks, 1):
        if len(masks) > 1:
            lines.append(f"  mask {number}")
        lines += [f"  {guess.probability:.3f}  {guess.token}" for guess in guesses]
    return "\n".join(lines)
