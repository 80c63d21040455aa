"""``fffcpu fill-mask``: guess the masked words of texts."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import Any

from fffcpu.cli.support.texts import standard_input
from fffcpu.errors import ArgumentError, require_extra

__all__ = ["DESCRIPTION", "add_arguments", "run"]

DESCRIPTION = """\
Guess the masked tokens of a text: for each [MASK], print the likeliest tokens and their
probabilities.

examples:
  fffcpu fill-mask "the [MASK] of a tree"
  fffcpu fill-mask "a [MASK] that [MASK] at night" --top 3 --model bert
  fffcpu fill-mask --json < sentences.txt              one text per line, from standard input

Without --model, the small model in the package is used. Tokens that begin with ##
continue the word before them.

how to read the output: each mask has its likeliest tokens. Their probabilities are the model's,
which sum to 1 over all tokens. A text without a mask is left out, or with --json has an empty list
of 'masks'. It is an error if no text has a mask.
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
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> None:
    """Fill masks."""
    require_extra("tokenizers", "text")
    from fffcpu.inference.pipelines import FillMask, default_model_folder

    folder = default_model_folder() if options.model is None else options.model
    pipeline = FillMask.from_pretrained(folder)
    given: list[str] = []
    answers = pipeline.stream(_kept(options.texts or standard_input(), given), options.top)
    report, any_mask = [], False
    for masks in answers:
        text = given.pop(0)
        any_mask = any_mask or bool(masks)
        if options.json:
            guesses = [[guess._asdict() for guess in guesses] for guesses in masks]
            report.append({"text": text, "masks": guesses})
        elif masks:
            print(_format(text, masks))
    if not any_mask:
        mask = pipeline.tokenizer.token(pipeline.tokenizer.mask_id)
        raise ArgumentError(f"argument 'TEXT' must contain {mask} where a token is to be guessed")
    if options.json:
        print(json.dumps({"model": str(folder), "texts": report}, indent=2, ensure_ascii=False))


def _kept(texts: Any, given: list[str]) -> Iterator[str]:
    """Yield texts, and keep each until its answer is there."""
    for text in texts:
        given.append(text)
        yield text


def _format(text: str, masks: Sequence[Sequence[Any]]) -> str:
    """Return the answer to a text for people."""
    lines = [text]
    for number, guesses in enumerate(masks, 1):
        if len(masks) > 1:
            lines.append(f"  mask {number}")
        lines += [f"  {guess.probability:.3f}  {guess.token}" for guess in guesses]
    return "\n".join(lines)
