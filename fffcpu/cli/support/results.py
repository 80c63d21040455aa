"""Results that are written while they are computed, block by block, and reports of them."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from fffcpu.system.terminal import format_number, print_status, progress_bar

__all__ = ["Clock", "print_cut", "print_json", "print_written", "with_progress", "write_npy"]

Array = NDArray[Any]
T = TypeVar("T")


class Clock:
    """The time of a command: first of its start, then of its rows.

    The start is what happens once, however many rows there are: a model is loaded, and kernels are
    compiled or read (`fffcpu.warmup`). Call `rows_begin` after it, and `figures` after the rows.
    """

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._rows_began = self._began

    def rows_begin(self) -> None:
        """End the start, and begin the time of the rows."""
        self._rows_began = time.perf_counter()

    @property
    def figures(self) -> dict[str, float]:
        """Seconds of the rows so far, and of the start, by their names in reports."""
        now = time.perf_counter()
        start = self._rows_began - self._began
        return {"seconds": now - self._rows_began, "start_seconds": start}


def with_progress(
    results: Iterable[T], total: int | None, unit: str, rows: Callable[[Any], int] = len
) -> Iterator[T]:
    """Yield results, with a progress bar on a terminal; ``rows`` counts those of a result."""
    with progress_bar(total=total, unit=unit, scaled=True) as bar:
        for result in results:
            yield result
            bar.update(rows(result))


def print_written(report: dict[str, Any], count: int, unit: str, as_json: bool) -> None:
    """Report what was written, as JSON or in a line.

    Parameters
    ----------
    report : dict
        With ``out`` and `Clock.figures`.
    count : int
        Number of rows, and ...
    unit : str
        ... their name.
    as_json : bool
        Whether to print the report as it is.
    """
    if as_json:
        print_json(report)
        return
    seconds = report["seconds"]
    line = f"{report['out']}: {count:,} {unit} in {format_number(seconds)} s"
    if count:
        line += f", {format_number(count / seconds)} {unit}/s"
    if "start_seconds" in report:
        line += f"; {format_number(report['start_seconds'])} s to load the model and its kernels"
    print(line)


def print_json(report: Any) -> None:
    """Print a report as JSON; with escapes if the terminal's encoding lacks some character."""
    text = json.dumps(report, indent=2, ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(report, indent=2)
    print(text)


def print_cut(cut: int, texts: int, longest: int) -> None:
    """Report on standard error how many texts were cut, if any."""
    if cut:
        were = "was" if cut == 1 else "were"
        print_status(
            f"{cut:,} of {texts:,} texts {were} cut to the model's longest text, {longest:,} tokens"
        )


def write_npy(path: Path, results: Iterator[Array]) -> tuple[int, ...]:
    """Write at least one array of rows as one array; rewrite its header with the number of rows."""
    with open(path, "wb") as file:
        first = next(results)
        rows = 0
        _write_header(file, first, rows)
        for result in itertools.chain([first], results):
            file.write(np.ascontiguousarray(result, first.dtype).tobytes())
            rows += len(result)
        file.seek(0)
        _write_header(file, first, rows)
    return (rows, *first.shape[1:])


def _write_header(file: BinaryIO, first: Array, rows: int) -> None:
    """Write an array's header, in which NumPy reserves space for any number of rows."""
    header = {
        "descr": np.lib.format.dtype_to_descr(first.dtype),
        "fortran_order": False,
        "shape": (rows, *first.shape[1:]),
    }
    np.lib.format.write_array_header_1_0(file, header)
