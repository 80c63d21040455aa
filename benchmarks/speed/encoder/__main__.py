"""Encoders' speed compared with other runtimes: inference, training, predictions alone, a BERT.

    python -m benchmarks.speed.encoder
    python -m benchmarks.speed.encoder --only alone --model FOLDER
    python -m benchmarks.speed.encoder --only bert --bert FOLDER

No other heavy program may run at the same time. Outputs and gradients are checked first, then the
contenders are timed in alternation. A figure is the median over the rounds of the ratio within a
round. Models have random weights unless --model or --bert names one.
"""

from __future__ import annotations

import argparse
import json

# Before NumPy, so that fffcpu makes the idle threads of NumPy's BLAS sleep.
import fffcpu  # noqa: F401
from benchmarks.speed.encoder.alone import alone
from benchmarks.speed.encoder.bert import bert
from benchmarks.speed.encoder.inference import inference
from benchmarks.speed.encoder.report import format_report, report
from benchmarks.speed.encoder.run import Run
from benchmarks.speed.encoder.training import training
from benchmarks.speed.session import Section, run_sections, section_parser

SECTIONS: dict[str, Section] = {
    "inference": inference,
    "training": training,
    "alone": alone,
    "bert": bert,
}


def main() -> None:
    options = parse()
    run = Run(options)
    run_sections(run, SECTIONS)
    print(json.dumps(report(run), indent=2) if options.json else format_report(run))


def parse() -> argparse.Namespace:
    parser = section_parser(__doc__, SECTIONS)
    group = parser.add_argument_group("alone")
    group.add_argument(
        "--model", metavar="FOLDER", help="folder of a masked language model (a random one)"
    )
    group.add_argument("--count", type=int, default=10_000, help="number of sequences (10000)")
    group.add_argument("--batch", type=int, default=32, help="sequences per padded batch (32)")
    group.add_argument("--mask-id", type=int, default=4, help="number of the mask's token (4)")
    group = parser.add_argument_group("bert")
    group.add_argument("--bert", metavar="FOLDER", help="folder of a BERT (a random one)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
