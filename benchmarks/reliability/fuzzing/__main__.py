"""Damaged files for every reader, and hostile arrays for every function that takes arrays.

    python -m benchmarks.reliability.fuzzing --folder FUZZ
    python -m benchmarks.reliability.fuzzing --folder FUZZ --only csv --cases 5000
    python -m benchmarks.reliability.fuzzing --folder FUZZ --replay csv:1234

Small files of our own writers are mutated: bits, lengths, numbers, JSON keys, headers, archives,
gzip layers. Mutants that go a new way through the reader are mutated again. Each must be read as
simple other code reads it, or be refused by an error of ours that names the file. A sample is also
given to the commands. No case may crash the process, hang, or take more memory than 64 bytes for
each byte of the file, and 4 MiB.

Cases run in slices, each in a process of its own. The folder keeps the results of whole slices, so
the same command continues after an interruption, and the files of faults. Progress goes to standard
error. The exit status is 1 if there was a fault.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import fffcpu
from benchmarks.command import new_parser
from benchmarks.reliability.fuzzing.judging import FLOOR, MULTIPLE
from benchmarks.reliability.fuzzing.slices import ARRAYS, Slice, names, run_slice
from fffcpu.system.terminal import format_table, progress_bar

FILES, FILES_AT_ONCE = 100_000, 4_000
NUMBERS, NUMBERS_AT_ONCE = 1_000_000, 100_000
"""Default numbers of cases, of all readers of files together and of arrays; and per slice."""

DEATHS = 5
"""Number of cases of a slice that may end its process before the slice is given up."""


def main() -> int:
    options = _parser().parse_args()
    if options.slice:
        values = json.loads(options.slice)
        print(json.dumps(run_slice(Slice(**values), options.folder)))
        return 0
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.replay:
        return _replay(options)
    slices = list(_slices(options))
    todo = [one for one in slices if not _result_path(options.folder, one).exists()]
    started = time.perf_counter()
    with ThreadPoolExecutor(options.processes) as pool:
        running = pool.map(lambda one: _run(one, options.folder), todo)
        bar = progress_bar(running, "slices", total=len(todo), shown=options.progress, kept=True)
        for _ in bar:
            pass
    results = [json.loads(_result_path(options.folder, one).read_text()) for one in slices]
    print(_report(results, time.perf_counter() - started))
    return int(any(result["faults"] for result in results))


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(__doc__)
    parser.add_argument(
        "--folder", type=Path, required=True, help="folder for results and faults, made if missing"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (0)")
    parser.add_argument("--only", choices=names(), metavar="READER", help=f"{', '.join(names())}")
    parser.add_argument(
        "--cases",
        type=int,
        metavar="N",
        help=f"cases ({FILES} of files, equally many for each reader, and {NUMBERS} of arrays)",
    )
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="processes (2)")
    parser.add_argument("--replay", metavar="READER:CASE", help="run one case, and print all of it")
    parser.add_argument(
        "--progress", action=argparse.BooleanOptionalAction, help="show progress (on a terminal)"
    )
    parser.add_argument("--slice", metavar="JSON", help=argparse.SUPPRESS)
    return parser


def _slices(options: argparse.Namespace) -> Iterator[Slice]:
    """Yield the slices of a campaign."""
    chosen = [options.only] if options.only else names()
    readers = [name for name in chosen if name != ARRAYS]
    for name in chosen:
        cases, size = NUMBERS, NUMBERS_AT_ONCE
        if name != ARRAYS:
            cases, size = -(-FILES // len(readers)), FILES_AT_ONCE
        if options.cases is not None:
            cases = options.cases if options.only else -(-options.cases // len(chosen))
        for first in range(0, cases, size):
            yield Slice(name, options.seed, first, min(size, cases - first))


def _result_path(folder: Path, cases: Slice) -> Path:
    """Return the file of a slice's result."""
    return folder / f"{cases.reader}-{cases.seed}-{cases.first}-{cases.count}.json"


def _run(cases: Slice, folder: Path) -> None:
    """Run a slice in a process of its own; again without the cases that end the process."""
    deaths: list[dict[str, Any]] = []
    while True:
        done = _process(cases, folder)
        if done.returncode == 0:
            result = json.loads(done.stdout.splitlines()[-1])
            break
        stem = f"{cases.reader}-{cases.first}"
        number = int((folder / f"current-{stem}").read_text() or -1)
        log = (folder / f"dead-{stem}.txt").read_text()
        what = "hang" if "Timeout" in log else "crash"
        detail = f"status {done.returncode}\n{done.stderr[-1500:]}\n{log[-3000:]}"
        deaths.append({"case": number, "outcome": "fault", "signature": what, "detail": detail})
        cases = cases._replace(skipped=(*cases.skipped, number))
        if len(deaths) > DEATHS:
            result = {**cases._asdict(), "outcomes": {}, "signatures": {}, "faults": []}
            result |= {"largest": {"peak": 0, "bytes": 0, "multiple": 0.0}, "seconds": 0.0}
            break
    result["faults"] = deaths + result["faults"]
    result["outcomes"]["fault"] = result["outcomes"].get("fault", 0) + len(deaths)
    path = _result_path(folder, cases)
    path.with_suffix(".part").write_text(json.dumps(result))
    path.with_suffix(".part").replace(path)


def _process(cases: Slice, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.reliability.fuzzing", "--folder", str(folder)]
    command += ["--slice", json.dumps(cases._asdict())]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _replay(options: argparse.Namespace) -> int:
    """Run one case again, after the cases of its slice that lead to it."""
    reader, _, number = options.replay.partition(":")
    size = NUMBERS_AT_ONCE if reader == ARRAYS else FILES_AT_ONCE
    first = int(number) // size * size
    done = _process(Slice(reader, options.seed, first, size, (), int(number)), options.folder)
    print(done.stdout, done.stderr, sep="\n")
    if done.returncode != 0:
        return 1
    faults = json.loads(done.stdout.splitlines()[-1])["faults"]
    print("\n".join(fault["detail"] for fault in faults if fault["case"] == int(number)))
    return int(bool(faults))


@dataclasses.dataclass
class _Sum:
    """The results of all slices of a reader."""

    outcomes: Counter[str] = dataclasses.field(default_factory=Counter)
    ways: set[str] = dataclasses.field(default_factory=set)
    multiple: float = 0.0
    seconds: float = 0.0


def _report(results: list[dict[str, Any]], seconds: float) -> str:
    """Return the table of a campaign, and its faults."""
    sums: dict[str, _Sum] = {}
    for result in results:
        one = sums.setdefault(result["reader"], _Sum())
        one.outcomes.update(result["outcomes"])
        one.ways |= set(result["signatures"])
        one.multiple = max(one.multiple, result["largest"]["multiple"])
        one.seconds += result["seconds"]
    rows = [
        (
            name,
            f"{one.outcomes['read'] + one.outcomes['refused'] + one.outcomes['fault']:,}",
            f"{one.outcomes['read']:,}",
            f"{one.outcomes['refused']:,}",
            f"{one.outcomes['command read'] + one.outcomes['command refused']:,}",
            f"{len(one.ways):,}",
            "-" if name == ARRAYS else f"{one.multiple:.1f}",
            f"{one.outcomes['fault'] + one.outcomes['command fault']:,}",
            f"{one.seconds:,.0f}",
        )
        for name, one in sums.items()
    ]
    head = ("reader", "cases", "read", "refused", "commands", "ways", "bytes/byte", "faults", "s")
    lines = [
        format_table(head, rows),
        "",
        f"bytes/byte: memory beyond {FLOOR} bytes, limit {MULTIPLE}",
    ]
    lines.append(_versions())
    lines.append(f"{seconds:.0f} s in this run")
    seen: set[str] = set()
    for result in results:
        for fault in result["faults"]:
            if fault["signature"] not in seen:
                seen.add(fault["signature"])
                place = f"{result['reader']}:{fault['case']}"
                lines += ["", f"FAULT {place}  {fault['signature']}", fault["detail"]]
    return "\n".join(lines)


def _versions() -> str:
    return (
        f"fffcpu {fffcpu.__version__}, Python {platform.python_version()}, NumPy {np.__version__}"
    )


if __name__ == "__main__":
    sys.exit(main())
