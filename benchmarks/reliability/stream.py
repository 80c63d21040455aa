"""Ten million rows predicted on a cluster, generated there: the memory of each worker.

    python -m benchmarks.reliability.stream

Rows are generated chunk by chunk in the workers, predicted there, and counted by class. Nothing of
them is kept, so the memory of a worker must not grow with the number of rows: its largest resident
memory in the second half of the run is compared with that in the first. The counts must be those of
as many rows computed here, in another order. The exit status is 1 if the memory grew by more than a
tenth, or a count is wrong.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
from numpy.typing import NDArray

import fffcpu
import fffcpu.dask
from benchmarks.command import command_line, new_parser
from benchmarks.report import facts, table
from fffcpu.benchmarking.machine import describe_machine

FEATURES, CLASSES = 32, 8

PAUSE = 0.2
"""Seconds between looks at the workers."""

MOST_GROWTH = 1.1
"""Largest memory of the second half over that of the first."""


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows (10000000)")
    parser.add_argument("--chunk", type=int, default=20_000, help="rows per chunk (20000)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (2)")
    options = parser.parse_args()
    print(f"{options.rows:,} rows, fffcpu {fffcpu.__version__}, Dask {dask.__version__}.")
    print(f"{facts(describe_machine())}.\n`{command_line()}`\n")
    layer = fffcpu.FastFeedForward(FEATURES, CLASSES, 7, trees=4, rng=0)
    labels = tuple(range(CLASSES))
    predictor = fffcpu.Predictor(layer, fffcpu.Schema("classification", labels))
    chunks = tuple(len(part) for part in parts(options.rows, options.chunk))
    with fffcpu.dask.connect(f"local:{options.workers}") as client, client.as_current():
        watch = Watch(client)
        start = time.perf_counter()
        counts = count(client, predictor, chunks)
        seconds = time.perf_counter() - start
        watch.end()
    print("\n".join(table(("worker", "first half, MB", "second half, MB"), watch.rows)))
    print(f"\n{options.rows / seconds:,.0f} rows/s; counts {counts.tolist()}")
    right = counts.sum() == options.rows and (counts == expected(predictor, chunks)).all()
    print(f"counts are {'right' if right else 'WRONG'}; memory grew {watch.growth:.2f} times")
    return int(not right or watch.growth > MOST_GROWTH)


def parts(rows: int, chunk: int) -> Iterator[range]:
    """Yield the rows of each chunk."""
    for start in range(0, rows, chunk):
        yield range(start, min(start + chunk, rows))


def generate(place: int, rows: int) -> NDArray[np.float32]:
    """Return the rows of a chunk, a function of its place."""
    return np.random.default_rng(place).standard_normal((rows, FEATURES), dtype=np.float32)


def generate_block(block_info: Any = None) -> NDArray[np.float32]:
    """Return the rows of a chunk of a lazy array."""
    where = block_info[None]
    return generate(where["chunk-location"][0], where["chunk-shape"][0])


def count_block(labels: NDArray[Any]) -> NDArray[np.int64]:
    """Return how many rows of a chunk have each class."""
    return np.bincount(labels, minlength=CLASSES)[np.newaxis]


def count(client: Any, predictor: Any, chunks: tuple[int, ...]) -> NDArray[np.int64]:
    """Return how many rows have each class, computed by the workers."""
    x = da.map_blocks(generate_block, chunks=(chunks, (FEATURES,)), dtype=np.float32)
    labels = fffcpu.dask.predict(predictor, x)
    counts = labels.map_blocks(
        count_block, chunks=((1,) * len(chunks), (CLASSES,)), new_axis=1, dtype=np.int64
    )
    found: NDArray[np.int64] = client.compute(counts.sum(axis=0)).result()
    return found


def expected(predictor: Any, chunks: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the counts, computed here from the last chunk to the first."""
    total = np.zeros(CLASSES, np.int64)
    for place in reversed(range(len(chunks))):
        labels = predictor.predict(generate(place, chunks[place]))
        total += np.bincount(labels, minlength=CLASSES)
    return total


def resident() -> float:
    """Return the resident memory of this process in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1000
    return 0.0


class Watch:
    """Looks at the memory of the workers until it is ended."""

    def __init__(self, client: Any) -> None:
        self._client, self._ended = client, threading.Event()
        self._seen: list[dict[str, float]] = []
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(PAUSE):
            self._seen.append(self._client.run(resident))

    def end(self) -> None:
        """Stop looking."""
        self._ended.set()
        self._thread.join()

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """The largest memory of each worker in both halves of the time."""
        return [
            (str(number), f"{first:.0f}", f"{second:.0f}")
            for number, (first, second) in enumerate(self._peaks())
        ]

    @property
    def growth(self) -> float:
        """The largest ratio of these."""
        return max(second / first for first, second in self._peaks())

    def _peaks(self) -> list[tuple[float, float]]:
        middle = len(self._seen) // 2
        halves = self._seen[:middle], self._seen[middle:]
        return [
            tuple(max(look[worker] for look in half) for half in halves)  # type: ignore[misc]
            for worker in sorted(self._seen[-1])
        ]


if __name__ == "__main__":
    sys.exit(main())
