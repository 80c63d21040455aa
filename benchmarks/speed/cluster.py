"""One worker process beside two, and what many machines would do: fffcpu.dask.

    python -m benchmarks.speed.cluster

No other heavy program may run at the same time. Predictions are those of the layer at BERT's size
on rows that lie in the workers; a training is that of a table in large batches. Both are timed with
one worker and with two, in turn, each with one core. Then the terms of a step's time are measured
one by one, and put into the formula of docs/dask.md: what up to 100 machines with one core would
do, and from how many on a training becomes slower. The bandwidth is that of this machine to itself
unless --bandwidth gives that of a network.
"""

from __future__ import annotations

import math
import pickle
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np

import fffcpu
import fffcpu.dask
from benchmarks.command import command_line, new_parser
from benchmarks.report import facts, table
from benchmarks.speed.figures import Figure, figure_table
from benchmarks.speed.options import add_quick
from benchmarks.speed.shapes import BERT_BASE, PathShape
from fffcpu.benchmarking.machine import describe_machine
from fffcpu.dask.crew import Crew
from fffcpu.dask.wire import Message, changes, pack_step, unpack_step
from fffcpu.data import Table
from fffcpu.models.data_parallel import on_one_core
from fffcpu.recipes.fitting import FitSettings, backward_options, new_layer, new_optimizer
from fffcpu.recipes.shards import StepSums
from fffcpu.recipes.table_objective import TableObjective
from fffcpu.recipes.table_parts import cut_table
from fffcpu.system.terminal import format_number
from fffcpu.training import clip_gradients
from fffcpu.training.batches import BatchOrder
from fffcpu.training.trainer import Moment

GOALS = {"predict": 1.6, "train": 1.5}
"""Least speed-ups from one worker to two."""

MACHINES = (1, 2, 5, 10, 20, 50, 100)

SHARDS = 100
"""Shards of the training on many machines."""


class Sizes(NamedTuple):
    """What is computed."""

    shape: PathShape
    """The layer that predicts."""
    chunk: int
    """Rows per chunk of predictions, and ..."""
    chunks: int
    """... number of chunks."""
    rows: int
    """Rows of the table to train on."""
    settings: FitSettings
    """Settings of the training."""


FULL = Sizes(
    BERT_BASE,
    16_384,
    24,
    32_768,
    FitSettings(
        depth=5, trees=16, batch_size=8192, shards=8, epochs=4, validation=0.0, gradients="dense"
    ),
)

QUICK = Sizes(
    PathShape(64, 64, 5, 2),
    512,
    8,
    2048,
    FitSettings(depth=3, trees=4, batch_size=512, shards=4, epochs=2, validation=0.0),
)

COLUMNS, CLASSES = 784, 10


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="measurements (5)")
    parser.add_argument(
        "--bandwidth", type=float, metavar="X", help="megabytes per second of a network (measured)"
    )
    add_quick(parser)
    options = parser.parse_args()
    sizes = QUICK if options.quick else FULL
    print(f"One worker and two, fffcpu {fffcpu.__version__}, Dask {dask.__version__}.")
    print(f"{facts(describe_machine())}.\n`{command_line()}`\n")
    with fffcpu.dask.connect("local:1") as one, fffcpu.dask.connect("local:2") as two:
        figures = [
            speed_up("predict", predictions(one, sizes), predictions(two, sizes), options.rounds),
            speed_up("train", trainings(one, sizes), trainings(two, sizes), options.rounds),
        ]
        terms = measure(one, sizes, options.rounds)
    if options.bandwidth is not None:
        terms = terms._replace(b=1e6 * options.bandwidth)
    print("\n".join(figure_table(figures)))
    print(f"\nThe terms of a training step ({sizes.settings.shards} shards):\n")
    print("\n".join(table(("term", "value"), terms.cells)))
    print(f"\n{SHARDS} shards of that size on machines with one core:\n")
    print("\n".join(table(("machines", "s per step", "times faster"), many_machines(terms))))
    print(f"\nfastest with about {terms.best(SHARDS):.0f} machines")


def speed_up(what: str, one: Callable[[], float], two: Callable[[], float], rounds: int) -> Figure:
    """Return how many times as fast two workers are, measured in turn."""
    for call in (one, two):
        call()  # kernels are read, rows arrive
    found = [one() / two() for _ in range(rounds)]
    return Figure(
        f"{what}, two workers / one",
        statistics.median(found),
        min(found),
        max(found),
        "x",
        GOALS[what],
    )


def predictions(client: Any, sizes: Sizes) -> Callable[[], float]:
    """Return a function that predicts rows in the workers, and gives the seconds."""
    shape = sizes.shape
    layer = fffcpu.FastFeedForward(*shape, rng=0)
    rows, chunk = sizes.chunk * sizes.chunks, (sizes.chunk, shape.input_dim)
    state = da.random.default_rng(0)
    x = state.standard_normal((rows, shape.input_dim), dtype=np.float32, chunks=chunk)
    with client.as_current():
        held = client.persist(x)
        # A number per row goes back to this process.
        firsts = fffcpu.dask.predict(layer, held)[:, 0]

    def run() -> float:
        start = time.perf_counter()
        client.compute(firsts).result()
        return time.perf_counter() - start

    return run


def random_table(rows: int) -> Table:
    """Return a table of random numbers and classes."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, COLUMNS), dtype=np.float32)
    return Table(x, rng.integers(0, CLASSES, rows), classes=tuple(range(CLASSES)))


def trainings(client: Any, sizes: Sizes) -> Callable[[], float]:
    """Return a function that trains, and gives the seconds per step."""
    found = random_table(sizes.rows)

    def run() -> float:
        outcome = fffcpu.dask.fit(client, found, None, sizes.settings, progress=False).outcome
        return outcome.seconds / outcome.steps

    return run


# --- What a step takes ---------------------------------------------------------------------------


class Terms(NamedTuple):
    """The terms of a step's time, as docs/dask.md names them: seconds and bytes."""

    c: float
    l: float
    u: int
    g: int
    b: float
    a: float
    o: float

    @property
    def cells(self) -> list[tuple[str, str]]:
        """Return the terms as rows of a table."""
        return [
            ("c, a shard", f"{format_number(1e3 * self.c)} ms"),
            ("l, an empty call", f"{format_number(1e3 * self.l)} ms"),
            ("u, bytes of parameters", f"{self.u:,}"),
            ("g, bytes of gradients", f"{self.g:,}"),
            ("b, bandwidth", f"{format_number(self.b / 1e6)} MB/s"),
            ("a, reading and adding a sum", f"{format_number(1e3 * self.a)} ms"),
            ("o, clipping and the optimizer", f"{format_number(1e3 * self.o)} ms"),
        ]

    @property
    def per_worker(self) -> float:
        """Seconds that each worker costs the client."""
        return (self.u + self.g) / self.b + self.a

    def step(self, shards: int, workers: int) -> float:
        """Return the seconds of a step on workers with one core."""
        return self.c * math.ceil(shards / workers) + self.l + workers * self.per_worker + self.o

    def best(self, shards: int) -> float:
        """Return the number of workers beyond which a step becomes slower."""
        return min(shards, math.sqrt(self.c * shards / self.per_worker))


def many_machines(terms: Terms) -> list[tuple[object, ...]]:
    """Return the rows of the table of machines."""
    alone = terms.step(SHARDS, 1)
    return [
        (count, format_number(step), f"{alone / step:.1f}")
        for count in MACHINES
        for step in (terms.step(SHARDS, count),)
    ]


def seconds_of(call: Callable[[], object], rounds: int) -> float:
    """Return the median seconds of a call, after a first one."""
    call()
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def measure(client: Any, sizes: Sizes, rounds: int) -> Terms:
    """Measure the terms of a step."""
    settings = sizes.settings
    found = random_table(sizes.rows)
    parts = cut_table(found, np.arange(sizes.rows), np.empty(0, np.int64), settings.shards)
    layer = new_layer(settings, COLUMNS, CLASSES)
    part = parts[0]
    order = BatchOrder(part.training, settings.batch_size, deal=part.deal)
    options = backward_options(settings, layer)
    objective = TableObjective(layer, part.x, part.y, order, backward_options=options)

    def step() -> Any:
        with on_one_core():
            return objective.step(Moment(0, 0.0, np.random.default_rng(0)))

    result = step()
    sent = {name: array.copy() for name, array in layer.params.items()}
    optimizer = new_optimizer(settings.for_rows(sizes.rows), layer)

    def update() -> None:
        clip_gradients(result.grads, 1.0)
        optimizer.step(result.grads)

    update()
    new = pickle.dumps(Message(changes(layer.params, sent)), protocol=5)
    message = pickle.dumps(Message(pack_step(step())), protocol=5)

    def add() -> None:
        sums = StepSums()
        for place in range(2):
            sums.add(0, place, unpack_step(pickle.loads(message).content))

    return Terms(
        c=seconds_of(step, rounds),
        l=seconds_of(empty_call(client, parts), rounds),
        u=len(new),
        g=len(message),
        b=bandwidth(client, rounds),
        a=seconds_of(add, rounds) / 2,
        o=seconds_of(update, rounds),
    )


def empty_call(client: Any, parts: Any) -> Callable[[], object]:
    """Return a function that calls a worker with next to no content."""
    crew = Crew(client, parts[:1])

    def call() -> object:
        with client.as_current():
            return crew.map(len)

    return call


def bandwidth(client: Any, rounds: int) -> float:
    """Return the bytes per second to a worker."""
    numbers = np.zeros(1 << 23)
    return numbers.nbytes / seconds_of(lambda: client.scatter(numbers, hash=False), rounds)


if __name__ == "__main__":
    main()
