"""Options that the benchmarks of this folder share."""

from __future__ import annotations

import argparse

import fffcpu

__all__ = ["add_quick", "add_seconds", "add_threads"]


def add_threads(parser: argparse.ArgumentParser, whose: str = "the kernels") -> None:
    """Add ``--threads``, by default two if there are two."""
    threads = min(2, fffcpu.get_num_threads())
    parser.add_argument(
        "--threads", type=int, default=threads, help=f"threads of {whose} ({threads})"
    )


def add_seconds(parser: argparse.ArgumentParser, default: float) -> None:
    """Add ``--seconds``."""
    parser.add_argument(
        "--seconds",
        type=float,
        default=default,
        help=f"minimum seconds of a measurement ({default:g})",
    )


def add_quick(parser: argparse.ArgumentParser) -> None:
    """Add ``--quick``."""
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
