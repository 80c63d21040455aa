"""The parts of a table that shards train on, and what is found out from each of them.

A part is a run of neighbouring rows, those held out included. So the part of a table that lies in
blocks on several machines is a block, or a few of them::

    rows of the table     |  t  t  v  t  |  t  v  t  t  |  t  t  t  v  |      t: to train on
    parts                 |    part 0    |    part 1    |    part 2    |      v: held out

Statistics of all rows are made from those of the parts, which are added in the order of the shards.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fffcpu.data import Encoding, Table, check_finite
from fffcpu.errors import ArgumentError
from fffcpu.inference.predictor import Predictor
from fffcpu.inference.routes import RouteCounts, count_routes, final_nodes
from fffcpu.recipes.scaling import EncodedRows, Moments, Scaling, block_rows, dense_rows
from fffcpu.recipes.table_objective import tally_of
from fffcpu.recipes.tally import Tally
from fffcpu.system.terminal import progress_bar
from fffcpu.training.batches import Deal

__all__ = [
    "CHECKED_ROWS",
    "ColumnTotals",
    "TablePart",
    "check_part",
    "column_totals",
    "cut_table",
    "input_moments",
    "part_routes",
    "part_tally",
    "sampled_rows",
    "start_inputs",
]

Array = NDArray[Any]
Rows = NDArray[np.int64]

CHECKED_ROWS = 8192
"""Number of rows that are checked together for numbers that are not finite."""


class TablePart(NamedTuple):
    """Neighbouring rows of a table, and their targets."""

    x: Any
    """The rows (R, C); of a table of Dask, a part of its array."""
    y: Array
    """Their targets."""
    first: int
    """Number of the first row in the table."""
    training: Rows
    """Numbers of the rows to train on, in this part."""
    validation: Rows
    """Numbers of the rows held out, in this part."""
    deal: Deal
    """Which shard it is."""
    path: str | None = None
    """The file of the table, for errors."""

    def inputs(self, encoding: Encoding | None) -> Any:
        """Return the rows as inputs of a layer."""
        return self.x if encoding is None else EncodedRows(self.x, encoding)


def cut_table(table: Table, training: Rows, validation: Rows, shards: int) -> list[TablePart]:
    """Cut a table into the parts of shards.

    Parameters
    ----------
    table : Table
        Table with targets.
    training, validation : int64 arrays
        Numbers of the rows to train on, and of those held out, in rising order.
    shards : int
        Number of parts.

    Raises
    ------
    ArgumentError
        If there are fewer rows to train on than shards.
    """
    if len(training) < shards:
        raise ArgumentError(
            f"argument 'shards' must be at most the number of rows to train on, {len(training)}, "
            f"got {shards}"
        )
    assert table.y is not None
    deals = [Deal(shard, shards, len(training)) for shard in range(shards)]
    cuts = [0, *(int(training[deal.own.start]) for deal in deals[1:]), len(table.y)]
    parts = []
    for deal, start, stop in zip(deals, cuts, cuts[1:], strict=False):
        low, high = np.searchsorted(validation, (start, stop))
        rows = (training[deal.own] - start, validation[low:high] - start)
        parts.append(
            TablePart(table.x[start:stop], table.y[start:stop], start, *rows, deal, table.path)
        )
    return parts


def check_part(part: TablePart, dtype: DTypeLike, progress: bool | None = False) -> None:
    """Raise unless all numbers of the rows are finite; see `fffcpu.recipes.fitting.check_rows`."""
    starts = range(0, len(part.x), CHECKED_ROWS)
    for start in progress_bar(starts, "checking rows", shown=progress):
        block = part.x[start : start + CHECKED_ROWS]
        with np.errstate(over="ignore"):
            numbers = block.astype(dtype, copy=False)
        first = part.first + start
        check_finite(numbers, range(first, first + len(block)), part.path)


def sampled_rows(part: TablePart, every: int) -> Array:
    """Return the rows whose numbers in the table are multiples of ``every``."""
    rows: Array = part.x[-part.first % every :: every]
    return rows


def start_inputs(part: TablePart, step: int, encoding: Encoding | None, scaling: Scaling) -> Array:
    """Return every ``step``-th row to train on, as scaled inputs of a layer."""
    rows = dense_rows(part.inputs(encoding), part.training[::step])
    return scaling.apply(rows, np.float32)


class ColumnTotals(NamedTuple):
    """Sums and ranges of columns in which values may be missing (NaN)."""

    totals: Array
    counts: Array
    low: Array
    high: Array
    """float64 (C,)."""

    def plus(self, other: ColumnTotals) -> ColumnTotals:
        """Return those of the rows of both."""
        return ColumnTotals(
            self.totals + other.totals,
            self.counts + other.counts,
            np.fmin(self.low, other.low),
            np.fmax(self.high, other.high),
        )


def column_totals(part: TablePart) -> ColumnTotals:
    """Return the totals of the columns over the rows to train on."""
    width = part.x.shape[1]
    found = ColumnTotals(
        np.zeros(width), np.zeros(width), np.full(width, np.inf), np.full(width, -np.inf)
    )
    for start in range(0, len(part.training), CHECKED_ROWS):
        block = part.x[part.training[start : start + CHECKED_ROWS]].astype(np.float64)
        present = np.isfinite(block)
        sums = np.where(present, block, 0.0).sum(axis=0), present.sum(axis=0)
        found = found.plus(
            ColumnTotals(*sums, np.fmin.reduce(block, axis=0), np.fmax.reduce(block, axis=0))
        )
    return found


def input_moments(part: TablePart, encoding: Encoding | None) -> Moments:
    """Return the moments of a layer's inputs over the rows to train on."""
    return Moments.of(part.inputs(encoding), part.training)


def part_tally(part: TablePart, predictor: Predictor) -> Tally:
    """Evaluate a predictor on the rows held out."""
    width = part.inputs(predictor.schema.encoding).shape[1]
    return tally_of(
        lambda rows: predictor.table_scores(part.x[rows]), part.y, part.validation, width=width
    )


def part_routes(part: TablePart, predictor: Predictor, shift: float) -> RouteCounts | None:
    """Count the rows to train on by the leaves that they reach; see `count_routes`."""
    classes = len(predictor.schema.classes)
    return count_routes(_last_nodes(part, predictor), classes, shift)


def _last_nodes(part: TablePart, predictor: Predictor) -> Iterator[tuple[Array, Array]]:
    """Yield the last nodes and the (first) targets of blocks of rows."""
    x = part.inputs(predictor.schema.encoding)
    step = block_rows(x.shape[1])
    for start in range(0, len(part.training), step):
        rows = part.training[start : start + step]
        yield final_nodes(predictor.layer, x[rows]), part.y[rows].reshape(len(rows), -1)[:, 0]
