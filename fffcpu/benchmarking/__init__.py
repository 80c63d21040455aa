"""Measuring: outputs checked, contenders timed in alternation, and the machine's roofline."""

from __future__ import annotations

from fffcpu.benchmarking.machine import describe_machine
from fffcpu.benchmarking.roofline import Roofline, roofline_contenders
from fffcpu.benchmarking.timing import Contender, Timing, Work, alternate, cycling, ratio
from fffcpu.benchmarking.verification import (
    check_close,
    check_dense,
    check_leaves,
    check_paths,
    distinct_batches,
)

__all__ = [
    "Contender",
    "Roofline",
    "Timing",
    "Work",
    "alternate",
    "check_close",
    "check_dense",
    "check_leaves",
    "check_paths",
    "cycling",
    "describe_machine",
    "distinct_batches",
    "ratio",
    "roofline_contenders",
]
