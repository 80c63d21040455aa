"""The end of a crew that lies in a worker process: an actor that holds shards.

Dask runs the calls of a worker's actors one after the other, on a thread of their own. So of two
trainings on one worker each waits for a call of the other, and never for more. A call computes its
shards on as many threads as the worker has for tasks, each on one core.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distributed import get_worker
from numpy.typing import NDArray

from fffcpu.dask.wire import Message, SomeRows, apply_changes, pack_step
from fffcpu.recipes.shards import ShardObjective, StepSums, run_in_threads
from fffcpu.recipes.tally import Tally
from fffcpu.training.trainer import Moment, StepResult

__all__ = ["ShardHolder", "take_rows"]

Array = NDArray[Any]


class ShardHolder:
    """The shards that a worker holds for a training.

    Parameters
    ----------
    name : str
        A name by which `take_rows` finds it.
    """

    def __init__(self, name: str) -> None:
        self._threads = get_worker().state.nthreads
        self._parts: dict[int, Any] = {}
        self._model: Any = None
        self._make: Callable[[Any, Any], ShardObjective] | None = None
        self._objectives: dict[int, ShardObjective] = {}
        _HOLDERS[name] = self

    def take(self, shard: int, part: Message) -> None:
        """Take a shard: its part of the data, with rows or with None for rows that come."""
        self._parts[shard] = part.content
        self._begin(shard)

    def take_rows(self, shard: int, x: Array) -> None:
        """Take the rows of a shard whose part has come without them."""
        self.take(shard, Message(self._parts[shard]._replace(x=x)))

    def drop(self, shards: Sequence[int]) -> None:
        """Let go of shards, which others hold now."""
        for shard in shards:
            self._parts.pop(shard, None)
            self._objectives.pop(shard, None)

    def begin(self, plan: Message) -> None:
        """Take a copy of the model, and what makes the objective of a shard."""
        self._model, self._make = plan.content
        for shard in self._parts:
            self._begin(shard)

    def _begin(self, shard: int) -> None:
        part = self._parts[shard]
        if self._make is not None and getattr(part, "x", part) is not None:
            self._objectives[shard] = self._make(part, self._model)

    def map(self, shards: Sequence[int], work: Message) -> Message:
        """Return a function's values for the parts of shards, by shard."""
        function, arguments = work.content
        calls = [(self._parts[shard], *arguments) for shard in shards]
        results = run_in_threads(function, calls, self._threads)
        return Message(dict(zip(shards, results, strict=True)))

    def step(self, shards: Sequence[int], work: Message) -> Message:
        """Change the parameters, and return the sums of shards' steps, by level and place."""
        moments, new = work.content
        self._update(new)
        sums = StepSums()
        for start in range(0, len(shards), self._threads):
            some = shards[start : start + self._threads]
            calls = [(self._objectives[shard], moments[shard]) for shard in some]
            for shard, result in zip(
                some, run_in_threads(_step, calls, self._threads), strict=True
            ):
                sums.add(0, shard, result)
        return Message({where: pack_step(result) for where, result in sums.sums.items()})

    def tally(self, shards: Sequence[int], work: Message) -> Message:
        """Change the parameters, and return the tallies of shards, by shard."""
        _, new = work.content
        self._update(new)
        calls = [(self._objectives[shard],) for shard in shards]
        results = run_in_threads(_tally, calls, self._threads)
        return Message(dict(zip(shards, results, strict=True)))

    def _update(self, new: Mapping[str, Array | SomeRows]) -> None:
        apply_changes(self._model.params, new)


_HOLDERS: weakref.WeakValueDictionary[str, ShardHolder] = weakref.WeakValueDictionary()
"""The holders in this process, for as long as Dask keeps them."""


def take_rows(x: Array, name: str, shard: int) -> None:
    """Give rows that lie in the cluster to a holder in this process: a task of Dask."""
    _HOLDERS[name].take_rows(shard, x)


def _step(objective: ShardObjective, moment: Moment) -> StepResult:
    return objective.step(moment)


def _tally(objective: ShardObjective) -> Tally:
    return objective.tally()
