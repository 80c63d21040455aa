"""The workers of a training on a cluster: who holds which shard, and what if one is lost.

The trainer runs in the client. For each step it sends each worker what is new in the parameters,
and gets sums of gradients back::

    client      changes of the parameters --.------------------.      sums of sums, optimizer
                                            |                  |        ^
    worker A    shards 0 1   |step|step| ---+-- sum of 0, 1 ---+--------+
    worker B    shards 2 3   |step|step| ---+-- sum of 2, 3 ---+--------'

Messages go straight from the client to actors of the workers, which takes a few milliseconds. Tasks
of the scheduler take several times as long. No worker waits for another one, so trainings that
share workers take turns and cannot block each other.

If a worker is lost, its shards go to other workers, with the present parameters, and the step asks
for their part again. Workers that join take their share. The sums do not depend on any of this, see
`fffcpu.recipes.shards`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import pydoc
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import dask
import numpy as np
from distributed import Future, wait
from numpy.typing import NDArray

import fffcpu
from fffcpu.dask.losses import LOSSES
from fffcpu.dask.wire import Message, changes, unpack_step
from fffcpu.dask.worker import ShardHolder, take_rows
from fffcpu.errors import ClusterError
from fffcpu.recipes.shards import ShardObjective, StepSums, for_shards
from fffcpu.recipes.tally import validation_figures
from fffcpu.training.trainer import Moment, Objective, StepResult

__all__ = ["Crew"]

Array = NDArray[Any]
ResultT = TypeVar("ResultT")

_LOGGER = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""Seconds between looks at which workers there are."""

CHECK_SECONDS = 2.0
"""Seconds that an answer may take before a look at whether its worker is still there."""

WAIT_SECONDS = 60.0
"""How long to wait for a worker where there is none."""

LOST_SECONDS = 5.0
"""How long not to ask a lost worker again: the scheduler may take a moment to know of it."""

PAUSE = 0.1
"""Seconds between looks while there is no worker."""

MOST_LOSSES = 5
"""Workers that may be lost in one step. More of them fail for a reason, such as too little
memory."""


class _Lost(Exception):  # noqa: N818  # not an error: others take over
    """A worker is lost."""


@dataclasses.dataclass(eq=False)
class _Member:
    """A worker that holds shards."""

    address: str
    name: str = dataclasses.field(default_factory=lambda: uuid.uuid4().hex)
    """Of its actor in the cluster."""
    future: Any = None
    """Of its actor, which lives as long."""
    actor: Any = None
    shards: set[int] = dataclasses.field(default_factory=set)
    serial: int = -1
    """Number of the parameters that it has; -1 before it has any."""


class Crew:
    """Shards on the workers of a cluster; see `fffcpu.recipes.shards.Shards`.

    Parameters
    ----------
    client : distributed.Client
        A client of the cluster, not asynchronous. It must be the current one, see
        `distributed.Client.as_current`, while the crew is used: actors find their client so.
    parts : sequence
        The part of the data of each shard. Rows that are arrays of Dask become one block each,
        which stays in the cluster.

    Raises
    ------
    ClusterError
        If there is no worker, or one has another version of fffcpu.
    """

    def __init__(self, client: Any, parts: Sequence[Any]) -> None:
        self._client = client
        self._parts = [_in_cluster(client, part) for part in parts]
        self._members: dict[str, _Member] = {}
        self._looked = -LOOK_SECONDS
        self._losses = 0
        self._lost: dict[str, float] = {}
        self._plan: tuple[Any, Any] | None = None
        self._sent: dict[str, Array] = {}
        self._serial = 0

    # --- What a training asks for ----------------------------------------------------------------

    def map(self, function: Callable[..., ResultT], *arguments: Any) -> list[ResultT]:
        """Return ``function(part, *arguments)`` for each part, in the order of the shards."""
        found: dict[int, ResultT] = {}
        for content in self._ask("map", lambda member, shards: (function, arguments)):
            found |= content
        return [found[shard] for shard in range(len(self._parts))]

    def objective(self, model: Any, make: Callable[[Any, Any], ShardObjective]) -> Objective:
        """Return the objective of all shards."""
        self._plan = (model, make)
        self._sent = {name: array.copy("C") for name, array in model.params.items()}
        return _CrewObjective(self, model)

    def step(self, moment: Moment) -> StepResult:
        """Return the sum of the shards' steps."""
        moments, sums = for_shards(moment, len(self._parts)), StepSums()
        new = self._news()

        def work(member: _Member, shards: Sequence[int]) -> Any:
            own = {shard: moments[shard] for shard in shards}
            return own, new if member.serial < self._serial else {}

        for content in self._ask("step", work):
            for (level, place), result in content.items():
                sums.add(level, place, unpack_step(result))
        return sums.total()

    def evaluate(self) -> dict[str, float]:
        """Return the figures of an evaluation."""
        found: dict[int, Any] = {}
        new = self._news()

        def work(member: _Member, shards: Sequence[int]) -> Any:
            return None, new if member.serial < self._serial else {}

        for content in self._ask("tally", work):
            found |= content
        return validation_figures([found[shard] for shard in range(len(self._parts))])

    def close(self) -> None:
        """Let go of the workers' actors, and of the data in the cluster."""
        for address in list(self._members):
            self._dismiss(address)
        for part in self._parts:
            if _is_future(part):
                part.x.release()
        self._parts, self._plan = [], None

    def _news(self) -> dict[str, Any]:
        """Return what is new in the parameters since they were last sent, and count them on."""
        assert self._plan is not None
        self._serial += 1
        return changes(self._plan[0].params, self._sent)

    # --- Asking ----------------------------------------------------------------------------------

    def _ask(
        self, method: str, work: Callable[[_Member, Sequence[int]], Any]
    ) -> Iterator[dict[Any, Any]]:
        """Yield what workers answer for the shards that they hold, until all shards are answered.

        Parameters
        ----------
        method : str
            Method of `ShardHolder`, of some shards and a message.
        work : callable
            Maps a member and its shards to the content of the message.
        """
        waiting, self._losses = set(range(len(self._parts))), 0
        while waiting:
            self._settle()
            calls = []
            for member in self._members.values():
                shards = sorted(member.shards & waiting)
                if shards:
                    message = Message(work(member, shards))
                    calls.append((member, shards, getattr(member.actor, method)(shards, message)))
            for member, shards, call in calls:
                with self._replaced(member):
                    content = self._answer(member, call).content
                    if method != "map":
                        member.serial = self._serial
                    waiting -= set(shards)
                    yield content

    def _answer(self, member: _Member, call: Any) -> Any:
        """Return a call's result, or raise that the worker is lost."""
        while True:
            try:
                return call.result(timeout=CHECK_SECONDS)
            except TimeoutError as error:  # which is an OSError, too
                if member.address not in self._client.nthreads():
                    raise _Lost(member.address) from error
            except (OSError, *LOSSES) as error:
                raise _Lost(member.address) from error

    @contextlib.contextmanager
    def _replaced(self, member: _Member) -> Iterator[None]:
        """Context in which a worker may be lost; others take its shards over afterwards."""
        try:
            yield
        except _Lost as loss:
            self._dismiss(member.address)
            self._lost[member.address] = time.monotonic()
            self._losses += 1
            _LOGGER.warning("worker %s is lost; others take over its shards", member.address)
            if self._losses > MOST_LOSSES:
                raise ClusterError(
                    f"{self._losses} workers were lost during one step, the last one "
                    f"'{member.address}'; see their logs"
                ) from loss

    # --- Who holds what --------------------------------------------------------------------------

    def _settle(self) -> None:
        """Give every shard a worker; now and then, look for workers that joined or left."""
        if self._free() or time.monotonic() - self._looked >= LOOK_SECONDS:
            self._balance()
        self._brief()
        while self._free():
            self._balance()
            self._brief()

    def _brief(self) -> None:
        """Give the model and the present parameters to members that have none yet."""
        if self._plan is None:
            return
        for member in [member for member in self._members.values() if member.serial < 0]:
            with self._replaced(member):
                self._answer(member, member.actor.begin(Message(self._plan)))
                member.serial = self._serial

    def _free(self) -> set[int]:
        """Return the shards without a worker."""
        held = (member.shards for member in self._members.values())
        return set(range(len(self._parts))).difference(*held)

    def _balance(self) -> None:
        """Give each worker its share of the shards, and move no more of them than that takes."""
        threads = self._workers()
        self._looked = time.monotonic()
        for address in self._members.keys() - threads.keys():
            self._dismiss(address)
        room = shares(threads, len(self._parts))
        for member in list(self._members.values()):
            with self._replaced(member):
                self._take_back(member, sorted(member.shards)[room[member.address] :])
        for address, shards in self._wishes(room).items():
            member = self._members.get(address) or _Member(address)
            with self._replaced(member):
                self._hand_over(member, shards)

    def _wishes(self, room: Mapping[str, int]) -> dict[str, list[int]]:
        """Return which free shards go to which worker: where their rows lie, if there is room."""
        left = dict(room)
        for member in self._members.values():
            left[member.address] -= len(member.shards)
        homes = _homes(self._client, self._parts)
        found: dict[str, list[int]] = {}
        for shard in sorted(self._free(), key=lambda shard: (not homes[shard], shard)):
            near = [address for address in homes[shard] if left.get(address, 0) > 0]
            address = near[0] if near else next(name for name, count in left.items() if count > 0)
            left[address] -= 1
            found.setdefault(address, []).append(shard)
        return found

    def _workers(self) -> dict[str, int]:
        """Return the numbers of threads by worker, at least one; wait if there is none."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            found: dict[str, int] = self._client.nthreads()
            for address in found.keys() & self._lost.keys():
                if time.monotonic() - self._lost[address] < LOST_SECONDS:
                    del found[address]
            if found:
                return found
            if time.monotonic() > deadline:
                raise ClusterError(f"the cluster has had no worker for {WAIT_SECONDS:.0f} s")
            time.sleep(PAUSE)

    def _dismiss(self, address: str) -> None:
        """Let go of a worker's actor, and with it of what it holds."""
        member = self._members.pop(address, None)
        if member is not None:
            self._client.cancel([member.future])

    def _take_back(self, member: _Member, shards: Sequence[int]) -> None:
        """Take shards from a worker."""
        if shards:
            self._answer(member, member.actor.drop(shards))
            member.shards.difference_update(shards)

    def _hand_over(self, member: _Member, shards: Sequence[int]) -> None:
        """Give shards to a worker, which becomes a member if it is none."""
        if member.actor is None:
            self._hire(member)
        parts = {shard: self._parts[shard] for shard in shards}
        calls = [
            member.actor.take(shard, Message(part._replace(x=None) if _is_future(part) else part))
            for shard, part in parts.items()
        ]
        for call in calls:
            self._answer(member, call)
        here = {"workers": [member.address], "pure": False}
        calls = [
            self._client.submit(take_rows, part.x, member.name, shard, **here)
            for shard, part in parts.items()
            if _is_future(part)
        ]
        for call in calls:
            self._answer(member, call)
        member.shards |= parts.keys()
        _LOGGER.info("worker %s holds the shards %s", member.address, sorted(member.shards))

    def _hire(self, member: _Member) -> None:
        """Start the actor of a worker."""
        self._check_version(member)
        member.future = self._client.submit(
            ShardHolder,
            member.name,
            key=f"fffcpu-shards-{member.name}",
            actor=True,
            workers=[member.address],
            pure=False,
        )
        try:
            member.actor = self._answer(member, member.future)
        except (AttributeError, ImportError, RuntimeError) as error:
            raise ClusterError(
                f"worker '{member.address}' cannot hold shards ({error}); the scheduler and all "
                f"workers must have fffcpu {fffcpu.__version__}"
            ) from error
        self._members[member.address] = member

    def _check_version(self, member: _Member) -> None:
        """Raise unless a worker has this fffcpu. One without it would end with what it cannot read.

        So the function that looks is one of Python's own.
        """
        here = {"workers": [member.address], "pure": False}
        version = self._answer(
            member, self._client.submit(pydoc.locate, "fffcpu.__version__", **here)
        )
        if version != fffcpu.__version__:
            raise ClusterError(
                f"worker '{member.address}' must have fffcpu {fffcpu.__version__}, "
                f"got {'none' if version is None else version}"
            )


class _CrewObjective:
    """The objective of all shards of a crew."""

    def __init__(self, crew: Crew, model: Any) -> None:
        self._model = model
        self.step, self.evaluate = crew.step, crew.evaluate

    @property
    def params(self) -> Mapping[str, Array]:
        params: Mapping[str, Array] = self._model.params
        return params


def shares(threads: Mapping[str, int], shards: int) -> dict[str, int]:
    """Return how many shards each worker holds, in proportion to its threads.

    Parameters
    ----------
    threads : mapping of str to int
        Numbers of threads by worker, at least one.
    shards : int
        Number of shards.
    """
    total, before, found = sum(threads.values()), 0, {}
    for address in sorted(threads):
        after = before + threads[address]
        found[address] = -(-shards * after // total) - -(-shards * before // total)
        before = after
    return found


def _in_cluster(client: Any, part: Any) -> Any:
    """Return a part whose rows are an array of Dask with the future of one block instead."""
    if dask.is_dask_collection(getattr(part, "x", None)):
        return part._replace(x=client.compute(part.x))
    # A memory-mapped file need not be there on a worker.
    whole = (np.asarray(item) if isinstance(item, np.memmap) else item for item in part)
    return part._make(whole)


def _homes(client: Any, parts: Sequence[Any]) -> list[Sequence[str]]:
    """Return for each part the workers in which its rows lie; none if they lie here."""
    futures = [part.x for part in parts if _is_future(part)]
    places = {}
    if futures:
        wait(futures)
        places = client.who_has(futures)
    return [places.get(part.x.key, ()) if _is_future(part) else () for part in parts]


def _is_future(part: Any) -> bool:
    return isinstance(getattr(part, "x", None), Future)
