"""fffcpu compared with the fastest dense runtimes and other FFFs: all goals in one run.

    python -m benchmarks.speed.layers
    python -m benchmarks.speed.layers --only dense pools

No other heavy program may run at the same time. Each section checks the outputs first. Then it
times its contenders in alternation with a copy and a matrix product, which give the roofline. A
figure is the median over the rounds of the ratio within a round. FastFeedForward is called as
layer(x), and from 256 rows on as layer(x, out=y). The run takes several minutes. Progress goes to
standard error.
"""

from __future__ import annotations

import argparse
import json

# Before fffcpu, so that the idle threads of NumPy's BLAS spin, which is their default.
import numpy  # noqa: F401

from benchmarks.speed.layers.report import format_report, report
from benchmarks.speed.layers.run import Run
from benchmarks.speed.layers.sections import SECTIONS
from benchmarks.speed.session import run_sections, section_parser


def main() -> None:
    options = parse()
    run = Run(options)
    run_sections(run, SECTIONS)
    print(json.dumps(report(run), indent=2) if options.json else format_report(run))


def parse() -> argparse.Namespace:
    parser = section_parser(__doc__, SECTIONS)
    parser.add_argument(
        "--no-spinning",
        action="store_true",
        help="let onnxruntime's idle threads sleep at once, which is not its default",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
