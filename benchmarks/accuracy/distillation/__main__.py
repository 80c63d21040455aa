"""Distilled encoders beside their teacher: how well they follow it, and how fast they are.

    python -m benchmarks.data.texts DIR TEXTS
    fffcpu distill TEACHER texts.txt --out STUDENT
    python -m benchmarks.accuracy.distillation quality TEACHER TEXTS OUT --students STUDENT
    python -m benchmarks.accuracy.distillation time TEACHER OUT --students STUDENT
    python -m benchmarks.accuracy.distillation show OUT

TEACHER and the students are folders of encoders; several students may be named. Run `time` on an
idle machine.

`quality` uses texts that no student may have learned from, of two kinds: definitions of WordNet,
from glosses-test.jsonl, and passages of one to four sentences of the Brown corpus, from the tenth
of its documents that benchmarks.data.minilm holds out. It draws 2,000 texts of each kind and
compares the vectors of each encoder with those of the teacher:

    similarity    Spearman's correlation of the cosines of all pairs of texts
    neighbours    share of the ten nearest texts of a text that are also nearest for the teacher
    cosine        mean cosine between the vectors of encoder and teacher for a text

A linear probe shows what the vectors are good for: a logistic regression on vectors that are
standardized by column, by scikit-learn with C = 0.1, at most 1,000 iterations and no search of
settings. It learns from at most 20,000 texts and is tested on at most 5,000 others:

    glosses     the class of a definition, one of 45
    snippets    whether a snippet of a film review is favourable
    genres      the genre of a passage of the Brown corpus, one of 15; no document is in both parts

A kind of text or a task whose file is not in TEXTS is left out by name.

`time` times all encoders in one alternation per shape of calls, texts x tokens of random tokens,
after their outputs were checked; medians in microseconds per token. The teacher runs in fffcpu and,
as `fffcpu export` writes it, in onnxruntime: in float32, and in int8 by its dynamic quantization of
weights and activations, with one scale per column. Models of fffcpu that can be quantized run in
int8, too. The quality of int8 is measured like that of a student, because it has a loss as well.

Every encoder has a line of OUT/quality.jsonl, and every alternation one of OUT/times.jsonl. An
encoder with the same weights is not evaluated twice. `show` prints one table of both.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import fffcpu
from benchmarks.accuracy.distillation.quality import evaluate
from benchmarks.accuracy.distillation.show import show
from benchmarks.accuracy.distillation.timing import SHAPES, measure
from benchmarks.command import add_out, new_parser, parse_into
from benchmarks.speed.options import add_seconds, add_threads


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for function, name, what in (
        (evaluate, "quality", "compare every encoder with the teacher"),
        (measure, "time", "time all encoders"),
        (show, "show", "print a table of quality and time"),
    ):
        command = commands.add_parser(name, help=what, description=f"{what.capitalize()}.")
        command.set_defaults(run=function)
        if function is not show:
            command.add_argument(
                "teacher", type=Path, metavar="TEACHER", help="folder of the teacher"
            )
        if function is evaluate:
            command.add_argument(
                "texts", type=Path, metavar="TEXTS", help="folder that benchmarks.data.texts wrote"
            )
        add_out(command)
        if function is not show:
            command.add_argument(
                "--students",
                type=Path,
                nargs="+",
                default=[],
                metavar="STUDENT",
                help="folders of students",
            )
            add_threads(command, "every encoder")
        if function is measure:
            add_timing(command)
    return parse_into(parser, arguments)


def add_timing(command: argparse.ArgumentParser) -> None:
    """Add the options of `time`."""
    command.add_argument(
        "--shapes",
        nargs="+",
        default=list(SHAPES),
        metavar="BxS",
        help=f"texts x tokens of a call ({' '.join(SHAPES)})",
    )
    command.add_argument("--repeats", type=int, default=9, help="rounds (9)")
    add_seconds(command, 0.2)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    before = fffcpu.get_num_threads()
    try:
        options.run(options)
    finally:
        fffcpu.set_num_threads(before)


if __name__ == "__main__":
    main()
