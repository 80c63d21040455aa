"""A slice of a campaign: some cases of one reader, in a process of its own.

A case is a function of the campaign's seed, the reader and the number of the case, and of the
slice's cases before it: a mutant that goes a new way becomes a file that later ones start from.
The process is limited in memory. It writes the number of each case before it begins, so whoever
started it knows what it died of.
"""

from __future__ import annotations

import faulthandler
import gzip
import io
import os
import resource
import tempfile
import time
import tracemalloc
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from benchmarks.reliability.fuzzing.arrays import ARRAY_CASES, check_arrays
from benchmarks.reliability.fuzzing.judging import (
    FLOOR,
    METER,
    MULTIPLE,
    Verdict,
    judge,
    judge_command,
)
from benchmarks.reliability.fuzzing.readers import COPIED, READERS, FileReader

__all__ = ["ARRAYS", "Slice", "names", "run_slice"]

ARRAYS = "arrays"
"""The name of the hostile arrays among the readers."""

SECONDS = 30.0
"""Seconds after which some cases count as hanging."""

FILES_AT_ONCE, ARRAYS_AT_ONCE = 10, 200
"""Number of files, or of hostile arrays, that have this time together."""

MEMORY = 3 << 30
"""Bytes of addresses that a slice may take beyond those that it starts with."""

COMMANDS = 40
"""One file in this many is also given to a command."""

MOST_KEPT = 300
LARGEST_KEPT = 1 << 15
"""Number and bytes of the mutants that a slice keeps to start from."""


class Slice(NamedTuple):
    """Some cases of a reader."""

    reader: str
    seed: int
    first: int
    count: int
    skipped: tuple[int, ...] = ()
    """Cases that ended the process before."""
    only: int | None = None
    """The case to judge; those before it only make the files that it starts from."""


def names() -> tuple[str, ...]:
    """Return the names of the readers, and that of the hostile arrays."""
    return (*READERS, ARRAYS)


def run_slice(cases: Slice, place: Path) -> dict[str, Any]:
    """Run the cases of a slice.

    Parameters
    ----------
    cases : Slice
        The cases.
    place : Path
        Folder for the number of the running case (``current``) and the files of faults.

    Returns
    -------
    dict
        JSON values: counts of outcomes and of signatures, the largest memory, the faults.
    """
    place.mkdir(parents=True, exist_ok=True)
    tracemalloc.start()
    result = _Result(cases)
    with (
        open(place / f"dead-{cases.reader}-{cases.first}.txt", "w") as log,
        open(place / f"current-{cases.reader}-{cases.first}", "w") as current,
        tempfile.TemporaryDirectory(prefix="fffcpu-fuzzing-") as name,
    ):
        faulthandler.enable(log)
        run = _run_arrays if cases.reader == ARRAYS else _run_files
        run(cases, result, Path(name), place, _Watch(current, log))
        faulthandler.cancel_dump_traceback_later()
        faulthandler.disable()
    tracemalloc.stop()
    return result.values()


class _Watch:
    """Notes the running case, and ends the process if it takes too long."""

    def __init__(self, current: Any, log: Any) -> None:
        self._current, self._log = current.fileno(), log

    def begin(self, number: int, timed: bool) -> None:
        """Note that a case begins; the time of some cases may begin with it."""
        os.pwrite(self._current, f"{number:<12}".encode(), 0)
        if timed:
            faulthandler.dump_traceback_later(SECONDS, exit=True, file=self._log)


class _Result:
    """The results of the cases of a slice."""

    def __init__(self, cases: Slice) -> None:
        self._cases = cases
        self._begun = time.perf_counter()
        self.outcomes: Counter[str] = Counter()
        self.signatures: Counter[str] = Counter()
        self.faults: list[dict[str, Any]] = []
        self.largest = {"peak": 0, "bytes": 0, "multiple": 0.0}

    def add(self, number: int, verdict: Verdict, what: str = "") -> bool:
        """Count a verdict; return whether its signature is new."""
        new = verdict.signature not in self.signatures
        self.outcomes[what + verdict.outcome] += 1
        self.signatures[verdict.signature] += 1
        if verdict.outcome == "fault" and self.signatures[verdict.signature] <= 3:
            self.faults.append({"case": number, **verdict._asdict()})
        return new

    def measure(self, peak: int, size: int) -> None:
        """Note the memory of a case."""
        multiple = max(0, peak - FLOOR) / max(1, size)
        if (multiple, peak) > (self.largest["multiple"], self.largest["peak"]):
            self.largest = {"peak": peak, "bytes": size, "multiple": multiple}

    def values(self) -> dict[str, Any]:
        """Return all as JSON values."""
        return {
            **self._cases._asdict(),
            "outcomes": dict(self.outcomes),
            "signatures": dict(self.signatures),
            "faults": self.faults,
            "largest": self.largest,
            "seconds": round(time.perf_counter() - self._begun, 2),
        }


def _run_files(cases: Slice, result: _Result, folder: Path, place: Path, watch: _Watch) -> None:
    """Run cases of a reader of files."""
    reader = READERS[cases.reader]
    seeds = reader.prepare(folder)
    for name, data in seeds.items():  # loads what is loaded once, and shows that all is in order
        verdicts = (_judge_file(reader, folder / name, data, Random(i), result) for i in range(20))
        verdict = next((one for one in verdicts if one.outcome == "read"), None)
        if verdict is None:
            verdict = _judge_file(reader, folder / name, data, Random(0), result)
            result.add(-1, verdict._replace(outcome="fault", detail=f"{name}: {verdict}"))
        for i in range(4):
            judge_command(reader.command(folder / name, Random(i)))
    _limit_memory()
    corpus = list(seeds.items())
    for number in range(cases.first, cases.first + cases.count):
        rng = Random(f"{cases.seed} {cases.reader} {number}")
        # Mostly whole files: what is damaged already is mostly refused again.
        name, data = rng.choice(corpus if rng.random() < 0.3 else corpus[: len(seeds)])
        others = [rng.choice(corpus)[1] for _ in range(2)]
        for _ in range(rng.choice((1, 1, 1, 1, 2, 3))):
            data = reader.mutate(rng, data, others)
        if number in cases.skipped:
            continue
        watch.begin(number, timed=number % FILES_AT_ONCE == 0 or number == cases.first)
        verdict = _judge_file(reader, folder / name, data, rng, result)
        new = result.add(number, verdict)
        if verdict.outcome == "fault":
            (place / f"fault-{cases.reader}-{number}-{name}").write_bytes(data)
        elif new and len(corpus) < MOST_KEPT and len(data) <= LARGEST_KEPT:
            corpus.append((name, data))
        if rng.random() < 1 / COMMANDS or number == cases.only:
            (folder / name).write_bytes(data)
            verdict = judge_command(reader.command(folder / name, rng))
            result.add(number, verdict, "command ")
            if verdict.outcome == "fault":
                (place / f"fault-{cases.reader}-{number}-{name}").write_bytes(data)
        if number == cases.only:
            break


def _judge_file(
    reader: FileReader, path: Path, data: bytes, rng: Random, result: _Result
) -> Verdict:
    """Read a file, and judge what came and how much memory it took."""
    path.write_bytes(data)
    names = {path.name, path.name.removeprefix(COPIED)}
    names |= {str(path.parent)} if reader.is_folder else set()
    verdict = judge(lambda: reader.check(path, rng), sorted(names))
    size = max(len(data), _unpacked_size(data))
    result.measure(METER.peak, size)
    if METER.peak > FLOOR + MULTIPLE * size:
        detail = f"{METER.peak} bytes were taken for {size} bytes ({verdict.signature})"
        return Verdict("fault", f"memory: {verdict.signature}", detail)
    return verdict


def _unpacked_size(data: bytes) -> int:
    """Return the number of bytes of a file when it is unpacked; of a damaged one, up to there."""
    if data.startswith(b"PK"):
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                return sum(min(i.file_size, 1032 * len(data)) for i in archive.infolist())
        except Exception:  # noqa: BLE001  # a damaged archive raises anything
            return 0
    size = 0
    if data.startswith(b"\x1f\x8b"):
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
                while piece := file.read(1 << 16):
                    size += len(piece)
        except (OSError, EOFError, zlib.error):
            pass
    return size


def _run_arrays(cases: Slice, result: _Result, folder: Path, place: Path, watch: _Watch) -> None:
    """Run cases of hostile arrays."""
    tracemalloc.stop()  # memory is that of small arrays, and time matters
    for function in ARRAY_CASES:
        for warm in range(20):
            judge(lambda f=function, w=warm: check_arrays(Random(w), f))  # type: ignore[misc]
    _limit_memory()
    for number in range(cases.first, cases.first + cases.count):
        if number in cases.skipped or (cases.only is not None and number != cases.only):
            continue
        watch.begin(number, timed=number % ARRAYS_AT_ONCE == 0 or number == cases.first)
        rng = Random(f"{cases.seed} {cases.reader} {number}")
        result.add(number, judge(lambda: check_arrays(rng)))  # noqa: B023


def _limit_memory() -> None:
    """Let a large allocation fail with MemoryError, instead of taking the machine's memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
