"""Programs in separate processes, timed from their start."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from typing import NamedTuple

from benchmarks.speed.shapes import PathShape

__all__ = ["FirstLine", "first_line", "first_result"]


class FirstLine(NamedTuple):
    """The first line that a process printed, and the seconds from its start to that line."""

    text: str
    seconds: float


def first_line(program: str, environment: Mapping[str, str] | None = None) -> FirstLine:
    """Run a program in a new process."""
    command = [sys.executable, "-c", program]
    start = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - start
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return FirstLine(line, seconds)


def first_result(shape: PathShape, rows: int) -> str:
    """Return a program that makes a layer, calls it once, and prints a line."""
    return f"""
import numpy as np
from fffcpu import FastFeedForward
layer = FastFeedForward({", ".join(map(str, shape))}, rng=0)
print(layer(np.ones(({rows}, {shape.input_dim}), np.float32)).shape, flush=True)
"""
