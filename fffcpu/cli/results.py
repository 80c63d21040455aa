"""Results that are written while they are computed, a block of rows at a time."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

__all__ = ["with_progress", "write_npy"]

Array = NDArray[Any]


def with_progress(results: Iterator[Array], total: int | None, unit: str) -> Iterator[Array]:
    """Pass arrays of rows on, with a progress bar on a terminal."""
    from tqdm import tqdm

    with tqdm(
        total=total, unit=unit, unit_scale=True, file=sys.stderr, disable=None, leave=False
    ) as bar:
        for result in results:
            yield result
            bar.update(len(result))


def write_npy(path: Path, results: Iterator[Array]) -> tuple[int, ...]:
    """Write arrays of rows, one at least, as one; its header once more when rows are counted."""
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
    """Write an array's header; NumPy leaves room in it for any number of rows."""
    header = {
        "descr": np.lib.format.dtype_to_descr(first.dtype),
        "fortran_order": False,
        "shape": (rows, *first.shape[1:]),
    }
    np.lib.format.write_array_header_1_0(file, header)
