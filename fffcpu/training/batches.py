"""The order of the rows in training: shuffled again each epoch, a pure function of the step.

A checkpoint stores only the step. Rows are shuffled by blocks, so that a table larger than memory
is read from the disk a few blocks at a time::

    rows in the file     | block 0 | block 1 | block 2 | block 3 | block 4 | block 5 |
    blocks, shuffled     |    4    |    0    |    5    |    2    |    3    |    1    |
    groups of blocks     |           group 0           |           group 1           |
    rows of a group, shuffled       ...                            ...
    batches              |  |  |  |  |  |  |  |  |  |  |  |  |  |  |  |  |  |  |  |  |

Rows may be cut into shards, each with an order of its own. Then every batch takes from all of them,
as cards are dealt: the places of an epoch go to the shards in turn (`Deal`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.checks import check_integer
from fffcpu.errors import ArgumentError, ShapeError

__all__ = ["BatchOrder", "Deal", "split_rows"]

Rows = NDArray[np.int64]

BLOCK_ROWS = 4096
"""Rows per block. With 784 float32 numbers per row, a block is a contiguous 12 MiB of a file."""

GROUP_BLOCKS = 16
"""Number of blocks whose rows are shuffled together."""

_NO_ROWS: Rows = np.empty(0, np.int64)


class Deal(NamedTuple):
    """What one shard gets of all rows, and of every batch.

    The places of an epoch are dealt to the shards in turn: place p goes to shard ``p % shards``. So
    the shards' parts of a batch differ by at most one row, and so do the shards.
    """

    shard: int
    """Number of the shard, from 0."""
    shards: int
    """Number of shards."""
    rows: int
    """Number of rows of all shards."""

    def before(self, place: int) -> int:
        """Return how many places before this one are the shard's."""
        return (place + self.shards - 1 - self.shard) // self.shards

    @property
    def own(self) -> slice:
        """The shard's rows, as a slice of all rows: neighbours in a file stay neighbours."""
        counts = (self._replace(shard=other).before(self.rows) for other in range(self.shard))
        start = sum(counts)
        return slice(start, start + self.before(self.rows))


class BatchOrder:
    """The rows of the batch of each step.

    Parameters
    ----------
    rows : int or int64 array of shape (R,)
        Number of rows, or the numbers of the rows to train on.
    batch_size : int
        Number of rows per batch. The last batch of an epoch may have fewer.
    seed : int
        Seed of the shuffling.
    block_rows : int, optional
        Number of rows per block. Tables of up to `GROUP_BLOCKS` blocks are shuffled as a whole.
    deal : Deal, optional
        The shard whose rows these are. Batches are then the shard's parts of the batches of all
        rows. By default there is one shard.

    Attributes
    ----------
    batch_size : int
    steps_per_epoch : int

    Raises
    ------
    ArgumentError, ArgumentTypeError, ShapeError
        If there is no row, a number is out of range, or the rows are not as many as the shard's.

    Examples
    --------
    >>> order = BatchOrder(5, batch_size=2, seed=0)
    >>> order.steps_per_epoch
    3
    >>> sorted(int(row) for step in range(3) for row in order.rows(step))
    [0, 1, 2, 3, 4]
    """

    def __init__(
        self,
        rows: int | Rows,
        batch_size: int,
        seed: int = 0,
        block_rows: int = BLOCK_ROWS,
        *,
        deal: Deal | None = None,
    ) -> None:
        if isinstance(rows, np.ndarray):
            if rows.ndim != 1 or rows.dtype.kind not in "iu":
                raise ShapeError(
                    "argument 'rows' must be a number of rows or a one-dimensional array of row "
                    f"numbers, got shape {rows.shape} and dtype {rows.dtype}"
                )
            self._numbers: Rows | None = rows.astype(np.int64)
            self._count = len(rows)
        else:
            self._numbers = None
            self._count = check_integer("rows", rows, 0)
        if self._count == 0:
            raise ArgumentError("argument 'rows' must have at least one row, got none")
        self._deal = Deal(0, 1, self._count) if deal is None else deal
        if self._deal.before(self._deal.rows) != self._count:
            raise ArgumentError(
                f"argument 'rows' must have {self._deal.before(self._deal.rows)} rows, as {deal} "
                f"gives the shard, got {self._count}"
            )
        self.batch_size = check_integer("batch_size", batch_size, 1)
        self.steps_per_epoch = -(-self._deal.rows // self.batch_size)
        self._seed = check_integer("seed", seed, 0)
        self._block_rows = check_integer("block_rows", block_rows, 1)
        self._blocks = -(-self._count // self._block_rows)
        # Values of the last call, because the next call probably needs them.
        self._epoch, self._shuffled_blocks = -1, _NO_ROWS
        self._starts = _NO_ROWS
        self._group: tuple[int, int] = (-1, -1)
        self._group_rows = _NO_ROWS

    def __len__(self) -> int:
        return self._count

    def rows(self, step: int) -> Rows:
        """Return the row numbers of a step's batch; steps count from 0, over all epochs."""
        epoch, first, last = self._batch(step)
        begin, end = self._deal.before(first), self._deal.before(last)
        self._start_epoch(epoch)
        pieces = []
        group = int(np.searchsorted(self._starts, begin, "right")) - 1
        while begin < end:
            start, stop = int(self._starts[group]), int(self._starts[group + 1])
            here = self._rows_of_group(epoch, group)
            pieces.append(here[begin - start : min(end, stop) - start])
            begin = min(end, stop)
            group += 1
        places = pieces[0] if len(pieces) == 1 else np.concatenate([_NO_ROWS, *pieces])
        return places if self._numbers is None else self._numbers[places]

    def batch_rows(self, step: int) -> int:
        """Return the number of rows of a step's batch, those of all shards."""
        _, first, last = self._batch(step)
        return last - first

    def _batch(self, step: int) -> tuple[int, int, int]:
        """Return the epoch of a step, and the places in it at which its batch begins and ends."""
        epoch, number = divmod(check_integer("step", step, 0), self.steps_per_epoch)
        first = number * self.batch_size
        return epoch, first, min(first + self.batch_size, self._deal.rows)

    def _start_epoch(self, epoch: int) -> None:
        """Shuffle the blocks of an epoch, and find the start of each group of blocks."""
        if epoch == self._epoch:
            return
        blocks = self._generator(epoch).permutation(self._blocks)
        lengths = np.minimum(self._count - blocks * self._block_rows, self._block_rows)
        ends = np.cumsum(lengths)[GROUP_BLOCKS - 1 :: GROUP_BLOCKS]
        ends = ends if len(ends) and ends[-1] == self._count else np.append(ends, self._count)
        self._starts = np.concatenate([[0], ends])
        self._epoch, self._shuffled_blocks = epoch, blocks

    def _generator(self, *place: int) -> np.random.Generator:
        """Return the generator of an epoch, or of a group in it; each shard has its own."""
        key = (self._deal.shard,) if self._deal.shards > 1 else ()
        return np.random.default_rng(np.random.SeedSequence((self._seed, *place), spawn_key=key))

    def _rows_of_group(self, epoch: int, group: int) -> Rows:
        """Return the shuffled rows of a group of blocks."""
        if self._group != (epoch, group):
            first = group * GROUP_BLOCKS
            blocks = self._shuffled_blocks[first : first + GROUP_BLOCKS]
            rows = blocks[:, np.newaxis] * self._block_rows + np.arange(self._block_rows)
            rows = rows[rows < self._count]
            self._generator(epoch, group).shuffle(rows)
            self._group, self._group_rows = (epoch, group), rows
        return self._group_rows


def split_rows(
    rows: int, fraction: float, seed: int = 0, classes: NDArray[Any] | None = None
) -> tuple[Rows, Rows]:
    """Split row numbers at random into those to train on and those to validate with.

    Parameters
    ----------
    rows : int
        Number of rows.
    fraction : float
        Share of the rows to validate with, from 0 (none) to below 1.
    seed : int
        Seed of the choice.
    classes : int array of shape (rows,), optional
        Class of each row: each class is split by the share, up to one row.

    Returns
    -------
    training, validation : int64 arrays
        In rising order, so that neighbours in a file stay neighbours.
    """
    chosen: NDArray[Any] = np.zeros(rows, bool)
    generator = np.random.default_rng((seed, rows))
    order = generator.permutation(rows)
    held_out = round(rows * fraction)
    if classes is None or not held_out:
        chosen[order[:held_out]] = True
    else:
        # Rows sorted by class, in random order in each; then every row at equal distances.
        order = order[np.argsort(classes[order], kind="stable")]
        places = (np.arange(held_out) + generator.random()) * (rows / held_out)
        chosen[order[np.minimum(places.astype(np.int64), rows - 1)]] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)
