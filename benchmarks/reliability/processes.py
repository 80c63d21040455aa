"""Processes of many kinds that start, compute and end, again and again; none may hang.

    python -m benchmarks.reliability.processes

Each program computes in the threads or processes of its kind. It compares every result with the
same rows computed one by one, bit for bit, and starts the pool of threads in a thread that ends
before the process. It runs free, on one CPU (as taskset gives it), and in a control group whose
parent has a quota of one CPU, where this user may make one. NUMBA_NUM_THREADS asks for two threads
each time. A process that has not ended after the timeout hangs, and is killed. Progress goes to
standard error. The exit status is 1 if a process hung, failed, or computed something else.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from benchmarks.command import new_parser
from benchmarks.control_group import joining, one_cpu
from benchmarks.report import table
from fffcpu.system.terminal import progress_bar

START = """
import asyncio, multiprocessing, os, sys, threading
import fffcpu
import numpy as np
from fffcpu.system.threads import get_thread_layer

layer = fffcpu.FastFeedForward(64, 64, 7, rng=0)
x = np.random.default_rng(1).standard_normal((16384, 64)).astype(np.float32)
SOME = slice(None, None, 997)


def compute(number=0):
    '''Whether a large call has the bits of calls with one row; then the pool is started, too.'''
    y = layer(x)
    get_thread_layer()
    return all(np.array_equal(layer(row[np.newaxis])[0], out) for row, out in zip(x[SOME], y[SOME]))


def in_a_thread(function):
    answers = []
    thread = threading.Thread(target=lambda: answers.append(function()))
    thread.start()
    thread.join()
    return answers


def main():
"""

END = """

if __name__ == "__main__":
    answers = main()
    sys.exit(not (answers and all(answers)))
"""

KINDS = {
    "a thread": """
    return in_a_thread(compute)
""",
    "16 threads": """
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(compute())) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers if len(answers) == 16 else []
""",
    "asyncio": """
    async def serve():
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(None, compute) for _ in range(8)))

    return asyncio.run(serve())
""",
    "joblib, threads": """
    import joblib
    return joblib.Parallel(2, prefer="threads")(joblib.delayed(compute)(k) for k in range(4))
""",
    "joblib, processes": """
    import joblib
    return joblib.Parallel(2)(joblib.delayed(compute)(k) for k in range(4)) + in_a_thread(compute)
""",
    "fork server": """
    answers = []
    for warm in (False, True):  # workers of a parent that has not computed, and of one that has
        if warm:
            answers += [compute()]
        workers = []
        for _ in range(2):
            worker = os.fork()
            if not worker:
                sys.exit(not all(in_a_thread(compute)))
            workers.append(worker)
        answers += [os.waitpid(worker, 0)[1] == 0 for worker in workers]
    return answers
""",
    "spawn server": """
    with multiprocessing.get_context("spawn").Pool(2) as processes:
        answers = processes.map(compute, range(4))
        processes.close()
        processes.join()
    return answers + in_a_thread(compute)
""",
}


class Condition(NamedTuple):
    """What a process may use, and how to start it so."""

    name: str
    prefix: list[str]


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument("--starts", type=int, default=50, metavar="N", help="of each kind (50)")
    parser.add_argument(
        "--timeout", type=float, default=300, help="seconds after which a process hangs (300)"
    )
    parser.add_argument("--jobs", type=int, default=2, help="programs that run at once (2)")
    parser.add_argument(
        "--only", choices=list(KINDS), nargs="+", default=list(KINDS), help="kinds to run (all)"
    )
    options = parser.parse_args()
    bad = 0
    with tempfile.TemporaryDirectory(prefix="fffcpu-processes-") as name, conditions() as given:
        programs = {kind: write_program(Path(name), kind) for kind in options.only}
        total = len(programs) * len(given) * options.starts
        names = [condition.name for condition in given]
        print("\n".join(table(["kind", *names], [])), flush=True)
        with progress_bar(description="processes", total=total, shown=True, kept=True) as bar:
            for kind, path in programs.items():
                row = [kind]
                for condition in given:
                    command = [*condition.prefix, sys.executable, str(path)]
                    ends = run_often(command, options, bar.update)
                    row.append(summary(ends))
                    bad += options.starts - ends["right"]
                print(table(row, [])[0], flush=True)
    print(f"\n{options.starts} starts each; {bad} hung, failed or computed something else")
    return int(bad > 0)


@contextlib.contextmanager
def conditions() -> Iterator[list[Condition]]:
    """Context with the conditions that are possible here; says which are not."""
    given = [Condition("free", [])]
    if hasattr(os, "sched_getaffinity"):
        cpu = min(os.sched_getaffinity(0))
        given.append(Condition("on one CPU", ["taskset", "-c", str(cpu)]))
    with contextlib.ExitStack() as stack:
        try:
            group = stack.enter_context(one_cpu())
        except OSError as error:
            print(f"no quota of one CPU: {error}", file=sys.stderr)
        else:
            given.append(Condition("quota of one CPU", joining(group)))
        yield given


def write_program(folder: Path, kind: str) -> Path:
    """Write a program to a file, which processes that it starts can import."""
    path = folder / f"program_{list(KINDS).index(kind)}.py"
    path.write_text(START + KINDS[kind].lstrip("\n") + END, encoding="utf-8")
    return path


def run_often(
    command: list[str], options: argparse.Namespace, done: Callable[[], object]
) -> Counter[str]:
    """Return how often a command ended in which way."""

    def run(_: int) -> str:
        end = run_once(command, options.timeout)
        done()
        return end

    with ThreadPoolExecutor(options.jobs) as pool:
        return Counter(pool.map(run, range(options.starts)))


def run_once(command: list[str], timeout: float) -> str:
    """Run a command with all that it starts: "right", "hung" or "failed"."""
    environment = {**os.environ, "NUMBA_NUM_THREADS": "2"}
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            _, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return "hung"
    if process.returncode:
        print(f"exit status {process.returncode}\n{errors}", file=sys.stderr)
        return "failed"
    return "right"


def summary(ends: Counter[str]) -> str:
    """Return how many processes ended in which way."""
    return ", ".join(f"{ends[how]} {how}" for how in ("right", "hung", "failed") if ends[how])


if __name__ == "__main__":
    sys.exit(main())
