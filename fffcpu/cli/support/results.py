"""Results that are written while they are computed, block by block."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from fffcpu.system.terminal import format_number, progress_bar

__all__ = ["print_written", "with_progress", "write_npy"]

Array = NDArray[Any]
T = TypeVar("T")


def with_progress(
    results: Iterator[T],
    total: int | None,
    unit: str,
    size: Callable[[T], int] = len,  # type: ignore[assignment]
) -> Iterator[T]:
    """Yield the results, with a progress bar on a terminal that counts their rows."""
    with progress_bar(total=total, unit=unit, scaled=True) as bar:
        for result in results:
            yield result
            bar.update(size(result))


def print_written(report: dict[str, Any], count: int, unit: str, as_json: bool) -> None:
    """Report what was written: a report with ``out`` and ``seconds``, as JSON or in a line."""
    if as_json:
        print(json.dumps(report, indent=2))
        return
    seconds = report["seconds"]
    rate = format_number(count / seconds)
    print(f"{report['out']}: {count:,} {unit} in {format_number(seconds)} s, {rate} {unit}/s")


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
