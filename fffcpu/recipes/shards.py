"""Shards: a training run whose data are cut into a fixed number of parts.

Each shard has its own rows, its own order of them and its own random numbers. A batch takes rows of
all shards, and the gradients of its shards are added::

    part 0 of the data  --|step|--> gradients 0 --.
    part 1 of the data  --|step|--> gradients 1 --+--.
    part 2 of the data  --|step|--> gradients 2 --.  +--> the gradients of the batch
    part 3 of the data  --|step|--> gradients 3 --+--'

Sums are made in pairs of neighbours. So the order of all additions depends only on the number of
shards, and not on who computes which. The same number gives the same bits. A worker that holds
several neighbours adds theirs up, and sends one sum.

A shard is computed on one core. Here, `LocalShards`, threads compute several at a time. On a
cluster, `fffcpu.dask` does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from numpy.typing import NDArray

from fffcpu.models.data_parallel import run_shards, shard_threads
from fffcpu.parameters import RowGradient
from fffcpu.recipes.tally import Tally, validation_figures
from fffcpu.training.trainer import Moment, Objective, StepResult

__all__ = [
    "LocalShards",
    "ShardObjective",
    "Shards",
    "StepSums",
    "for_shards",
    "in_proportion",
    "run_in_threads",
]

Array = NDArray[Any]
ResultT = TypeVar("ResultT")


class ShardObjective(Objective, Protocol):
    """The objective of one shard: it returns what its rows add to the whole."""

    def step(self, moment: Moment) -> StepResult:
        """Return the shard's part of a batch's loss and gradients."""
        ...

    def tally(self) -> Tally:
        """Return the shard's part of an evaluation."""
        ...


class Shards(Protocol):
    """The parts of a training's data, and what computes with them."""

    def map(self, function: Callable[..., ResultT], *arguments: Any) -> list[ResultT]:
        """Return ``function(part, *arguments)`` for each part, in the order of the shards.

        The function and its arguments can be pickled, and so can its results.
        """
        ...

    def objective(self, model: Any, make: Callable[[Any, Any], ShardObjective]) -> Objective:
        """Return the objective of all shards.

        Parameters
        ----------
        model : layer or model
            What is trained. Its ``params`` are those of the objective.
        make : callable
            Maps a part and the model to the objective of a shard. It can be pickled.
        """
        ...

    def close(self) -> None:
        """Let go of the parts."""
        ...


class LocalShards:
    """Shards in this process, several at a time on its threads.

    Parameters
    ----------
    parts : sequence
        The part of the data of each shard, at least one. A single one is computed like a training
        without shards, with all threads.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        self._parts = parts

    def map(self, function: Callable[..., ResultT], *arguments: Any) -> list[ResultT]:
        """Return ``function(part, *arguments)`` for each part, in the order of the shards."""
        if len(self._parts) == 1:
            return [function(self._parts[0], *arguments)]
        calls = [(part, *arguments) for part in self._parts]
        return run_in_threads(function, calls, shard_threads())

    def objective(self, model: Any, make: Callable[[Any, Any], ShardObjective]) -> Objective:
        """Return the objective of all shards."""
        objectives = [make(part, model) for part in self._parts]
        return objectives[0] if len(objectives) == 1 else _LocalObjective(objectives)

    def close(self) -> None:
        """Do nothing: the parts belong to the caller."""


class _LocalObjective:
    """The sum of the objectives of shards, which threads compute."""

    def __init__(self, objectives: Sequence[ShardObjective]) -> None:
        self._objectives = objectives

    @property
    def params(self) -> Mapping[str, Array]:
        return self._objectives[0].params

    def step(self, moment: Moment) -> StepResult:
        moments = for_shards(moment, len(self._objectives))
        calls = list(zip(self._objectives, moments, strict=True))
        threads, sums = shard_threads(), StepSums()
        for start in range(0, len(calls), threads):
            some = calls[start : start + threads]
            for shard, result in enumerate(run_in_threads(_step, some, threads), start):
                sums.add(0, shard, result)
        return sums.total()

    def evaluate(self) -> dict[str, float]:
        calls = [(objective,) for objective in self._objectives]
        return validation_figures(run_in_threads(_tally, calls, shard_threads()))


def _step(objective: ShardObjective, moment: Moment) -> StepResult:
    return objective.step(moment)


def _tally(objective: ShardObjective) -> Tally:
    return objective.tally()


def run_in_threads(
    function: Callable[..., ResultT], calls: Sequence[tuple[Any, ...]], threads: int
) -> list[ResultT]:
    """Return a function's results for several arguments, each computed on one core."""
    results = list[ResultT]()
    for start in range(0, len(calls), threads):
        results += run_shards(function, calls[start : start + threads])
    return results


def for_shards(moment: Moment, shards: int) -> list[Moment]:
    """Return the moment of each shard, which has a random generator of its own."""
    return [moment._replace(rng=rng) for rng in moment.rng.spawn(shards)]


def in_proportion(result: StepResult, rows: int) -> StepResult:
    """Return what the mean loss of a shard, and its gradients, add to those of a whole batch.

    Parameters
    ----------
    result : StepResult
        Loss and gradients of a mean over the shard's rows. The gradients are changed.
    rows : int
        Number of rows (or tokens) of the batch of all shards.
    """
    if result.rows == rows:
        return result
    share = result.rows / rows
    for grad in result.grads.values():
        values = grad.values if isinstance(grad, RowGradient) else grad
        values *= share
    return result._replace(loss=result.loss * share)


class StepSums:
    """Adds what shards return for a batch: neighbours first, whoever computed them.

    A sum of level k holds ``2**k`` neighbours, those of place p from shard ``p * 2**k`` on. Two
    sums become one as soon as both are there, so few are held at a time.

    Attributes
    ----------
    sums : dict
        The sums that wait for their neighbour, by level and place.
    """

    def __init__(self) -> None:
        self.sums: dict[tuple[int, int], StepResult] = {}

    def add(self, level: int, place: int, result: StepResult) -> None:
        """Add the sum of some neighbours; level 0 is a single shard. Its arrays may be changed."""
        while (neighbour := self.sums.pop((level, place ^ 1), None)) is not None:
            result = _plus(neighbour, result) if place & 1 else _plus(result, neighbour)
            level, place = level + 1, place >> 1
        self.sums[level, place] = result

    def total(self) -> StepResult:
        """Return the sum of all shards, of which none is missing."""
        in_order = sorted(self.sums, key=lambda where: where[1] << where[0])
        return functools.reduce(_plus, (self.sums[where] for where in in_order))


def _plus(first: StepResult, second: StepResult) -> StepResult:
    """Return a sum, in the arrays of the first where they can be written."""
    grads = {name: _added(grad, second.grads[name]) for name, grad in first.grads.items()}
    # Names may share an array, which is then added once.
    counts = {
        id(array): _added(array, second.usage[name])
        for name, array in _distinct(first.usage).items()
    }
    usage = {name: counts[id(array)] for name, array in first.usage.items()}
    return StepResult(first.loss + second.loss, grads, first.rows + second.rows, usage)


def _distinct(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return arrays that several names share under the first of these names."""
    names = dict[int, str]()
    for name, array in arrays.items():
        names.setdefault(id(array), name)
    return {name: arrays[name] for name in names.values()}


def _added(first: Any, second: Any) -> Any:
    if isinstance(first, RowGradient):
        return first.plus(second)
    if not first.flags.writeable:  # it came in a message
        return first + second
    first += second
    return first
