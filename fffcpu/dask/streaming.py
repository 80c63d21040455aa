"""Blocks of rows computed on a cluster, in their order, with few of them at a time.

This process reads the blocks and gets the results. So only as many blocks are on their way as keep
the workers busy::

    blocks     read | sent | sent | sent | not read yet ...
    results    given out in order, as soon as the first is there
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

from numpy.typing import NDArray

from fffcpu.dask.losses import LOSSES
from fffcpu.models.data_parallel import on_one_core

__all__ = ["stream"]

Array = NDArray[Any]

AHEAD = 2
"""Blocks on their way per thread of a worker: one is computed while the next arrives."""

TRIES = 4
"""How often a block is sent, if the worker that has it is lost each time."""

PAUSE = 0.2
"""Seconds before a block is sent again: the scheduler may not know yet that a worker is lost."""


class _Block(Protocol):
    """Rows to compute."""

    @property
    def inputs(self) -> Array: ...


BlockT = TypeVar("BlockT", bound=_Block)


def stream(
    client: Any, compute: Callable[[Array], Array], blocks: Iterable[BlockT]
) -> Iterator[tuple[BlockT, Array]]:
    """Yield blocks and what a function returns for their inputs, in their order.

    Parameters
    ----------
    client : distributed.Client
        A client of the cluster.
    compute : callable
        A function of the inputs of a block. It is sent to each worker once, and runs on one core.
    blocks : iterable
        Blocks with ``inputs``. They are read as they are needed.
    """
    sender = _Sender(client, compute)
    most = max(2, AHEAD * sum(client.nthreads().values()))
    waiting: deque[tuple[BlockT, Any]] = deque()
    for block in blocks:
        waiting.append((block, sender.send(block.inputs)))
        if len(waiting) == most:
            yield sender.result(*waiting.popleft())
    while waiting:
        yield sender.result(*waiting.popleft())


class _Sender:
    """Sends blocks to a cluster, and again if they are lost."""

    def __init__(self, client: Any, compute: Callable[[Array], Array]) -> None:
        self._client, self._compute = client, compute
        self._shared = self._scatter(compute, broadcast=True)

    def send(self, inputs: Array) -> Any:
        """Return the future of a block's result."""
        rows = self._scatter(inputs)
        return self._client.submit(_call, self._shared, rows, pure=False)

    def _scatter(self, value: Any, **how: bool) -> Any:
        """Return the future of a value that is sent to a worker, to another if that is lost."""
        for _ in range(TRIES - 1):
            try:
                return self._client.scatter(value, hash=False, **how)
            except OSError:
                time.sleep(PAUSE)
        return self._client.scatter(value, hash=False, **how)

    def result(self, block: BlockT, future: Any) -> tuple[BlockT, Array]:
        """Return a block and its result."""
        for _ in range(TRIES - 1):
            try:
                return block, future.result()
            except LOSSES:
                self._shared = self._scatter(self._compute, broadcast=True)
                future = self.send(block.inputs)
        return block, future.result()


def _call(compute: Callable[[Array], Array], inputs: Array) -> Array:
    with on_one_core():
        return compute(inputs)
