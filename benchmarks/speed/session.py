"""A benchmark of several sections: its options, its figures, its notes."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import threadpoolctl

import fffcpu
from benchmarks.command import command_line, new_parser
from benchmarks.peers.layers import absent
from benchmarks.speed.figures import Figure
from benchmarks.speed.options import add_quick, add_seconds, add_threads
from fffcpu.benchmarking.machine import describe_machine, package_version
from fffcpu.benchmarking.timing import Timing
from fffcpu.system.terminal import print_status

__all__ = ["Section", "Session", "run_sections", "section_help", "section_parser"]

Section = Callable[[Any], None]
"""One section of a benchmark, which takes the session. Its docstring is its help."""


class Session:
    """The options of a benchmark, and what it has found so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.figures: list[Figure] = []
        self.notes: list[str] = []

    def times_faster(
        self, what: str, slow: Timing, fast: Timing, goal: float | None = None
    ) -> None:
        """Add the time of one contender over that of another as a figure."""
        self.figures.append(Figure.times_faster(what, slow, fast, goal))

    def at_most(
        self, what: str, rounds: Sequence[float], unit: str, goal: float | None = None
    ) -> None:
        """Add a figure that should be small."""
        self.figures.append(Figure.at_most(what, rounds, unit, goal))

    def has(self, peer: Any) -> bool:
        """Whether a peer is installed. A note names what is missing."""
        missing = absent(peer)
        if missing:
            self.note(missing)
        return missing is None

    def note(self, text: str) -> None:
        """Add a line below the tables, once."""
        if text not in self.notes:
            print_status(text)
            self.notes.append(text)

    def header(self, packages: Sequence[str]) -> dict[str, Any]:
        """Return the command, the machine, the versions and the options."""
        return {
            "command": command_line(),
            "fffcpu": fffcpu.__version__,
            **describe_machine(),
            **{name: package_version(name) for name in packages},
            "threads": self.options.threads,
            "rounds": self.options.rounds,
            "seconds": self.options.seconds,
        }

    def figures_as_json(self) -> list[dict[str, Any]]:
        """Return the figures and their verdicts as JSON values."""
        return [{**figure._asdict(), "verdict": figure.verdict} for figure in self.figures]


def section_help(sections: Mapping[str, Section]) -> str:
    """Return a line for each section, for the end of the help."""
    lines = (f"  {name:10} {run.__doc__}" for name, run in sections.items())
    return "\n".join(["sections:", *lines])


def section_parser(
    description: str | None, sections: Mapping[str, Section]
) -> argparse.ArgumentParser:
    """Return a parser with the options of every benchmark that has sections."""
    parser = new_parser(description, section_help(sections))
    parser.add_argument(
        "--only", nargs="+", choices=sections, metavar="SECTION", help="run these sections (all)"
    )
    add_threads(parser, "every contender")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of an alternation (9)")
    add_seconds(parser, 0.2)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_quick(parser)
    return parser


def run_sections(session: Session, sections: Mapping[str, Section]) -> None:
    """Run the chosen sections, or all, with every library on the same number of threads."""
    options = session.options
    fffcpu.set_num_threads(options.threads)
    start = time.monotonic()
    with threadpoolctl.threadpool_limits(options.threads, "blas"):
        for name in options.only or sections:
            print_status(f"--- {name} ({time.monotonic() - start:.0f} s)")
            sections[name](session)
    print_status(f"--- done ({time.monotonic() - start:.0f} s)")
