"""Trainings and predictions that are killed at random moments, and must lose nothing.

    python -m benchmarks.reliability.kills

``fffcpu train`` and ``fffcpu pretrain`` are killed with SIGKILL again and again, and resumed with
--resume, until they are done. A model must have the bytes of an undisturbed one, and its history
each line once. Predictions are killed too. While all this runs, there must be nothing under the
final name, or the whole result. Half of the moments are anywhere in a run, the others just after
a new file of the run appears. Progress goes to standard error. The exit status is 1 if anything was
lost.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.command import command_line, new_parser
from fffcpu.data import load_digits
from fffcpu.system.terminal import print_status, progress_bar

TRAINING = ("--depth=4", "--trees=2", "--epochs=10", "--checkpoint-seconds=0.05")

PRETRAINING = (
    *("--width=16", "--layers=1", "--heads=2", "--feedforward-size=1", "--depth=2"),
    *("--length=32", "--batch-size=8", "--small-batch-size=8", "--epochs=6"),
    "--checkpoint-seconds=0.05",
)

WORDS = (("red", "cats", "run"), ("blue", "dogs", "sleep"), ("green", "birds", "sing"))

PAUSE = 0.002
"""Seconds between two looks at the files of a run."""

AFTER = 0.03
"""Seconds after a new file in which a run is killed."""


class Run(NamedTuple):
    """A command whose result is known."""

    command: Callable[[str], list[str]]
    """Maps the name of the output to the command."""
    expected: dict[str, bytes]
    """The files of the result, by name; that of a single file is empty."""
    lines: list[dict[str, float]]
    """Lines of the history, without times."""
    seconds: float
    """How long it takes undisturbed."""


def main() -> int:
    parser = new_parser(__doc__)
    for name, default in (("trainings", 100), ("pretrainings", 100), ("predictions", 20)):
        parser.add_argument(
            f"--{name}", type=int, default=default, metavar="N", help=f"kills of {name} ({default})"
        )
    parser.add_argument("--rows", type=int, default=200_000, help="rows to predict (200000)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the kills (0)")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    print(command_line())
    with tempfile.TemporaryDirectory(prefix="fffcpu-kills-") as name:
        folder = Path(name)
        images, labels = load_digits()
        np.save(folder / "x.npy", images)
        np.save(folder / "y.npy", labels)
        np.save(folder / "many.npy", np.resize(images, (options.rows, images.shape[1])))
        failures = 0
        if options.trainings:
            failures += kill_runs(folder, "train", training(folder), options.trainings, rng)
        if options.pretrainings:
            run = pretraining(folder)
            failures += kill_runs(folder, "pretrain", run, options.pretrainings, rng)
        if options.predictions:
            failures += kill_predictions(folder, options.predictions, rng)
    print(f"{failures} failures")
    return int(failures > 0)


def fffcpu(*arguments: object) -> list[str]:
    """Return a command of the package."""
    return [sys.executable, "-m", "fffcpu", *map(str, arguments)]


def training(folder: Path) -> Callable[[str], list[str]]:
    """Return the command that trains. ``--resume`` starts over if there is nothing to resume."""

    def command(out: str) -> list[str]:
        files = (folder / "x.npy", "--target", folder / "y.npy", "--out", folder / out)
        return fffcpu("train", *files, *TRAINING, "--resume")

    return command


def pretraining(folder: Path) -> Callable[[str], list[str]]:
    """Return the command that pretrains, with a tokenizer that was trained before."""
    from fffcpu.text import Tokenizer

    rng = np.random.default_rng(0)
    kinds = rng.integers(0, len(WORDS), 1500)
    lines = ["the " + " ".join(WORDS[kind]) + "." for kind in kinds]
    (folder / "text.txt").write_text("\n".join(lines) + "\n")
    # Training a tokenizer may break ties in either way.
    Tokenizer.train(lines, 64).save(folder / "tokenizer.json")

    def command(out: str) -> list[str]:
        files = (folder / "text.txt", "--tokenizer", folder / "tokenizer.json")
        return fffcpu("pretrain", *files, "--out", folder / out, *PRETRAINING, "--resume")

    return command


def kill_runs(
    folder: Path,
    name: str,
    command: Callable[[str], list[str]],
    kills: int,
    rng: np.random.Generator,
) -> int:
    """Return the number of wrong results, and of looks that found a part of one."""
    run = undisturbed(folder, name, command)
    done = failures = number = 0
    resumed = 0  # kills after which there was a checkpoint
    with progress_bar(description=f"kills of {name}", total=kills, shown=True, kept=True) as bar:
        while done < kills:
            number += 1
            out = f"{name}-{number}"
            ended = False
            while done < kills and not ended:
                killed, ended, wrong = start_and_kill(folder, out, run, rng)
                if wrong:
                    failures += 1
                    print_status(f"a part of a result was seen: run {number}, kill {done + killed}")
                done += killed
                resumed += killed and newest(folder, out) != ""
                bar.update(int(killed))
            if not ended:
                subprocess.run(command(out), check=True, capture_output=True)
            if result(folder, out) != (run.expected, run.lines):
                failures += 1
                print_status(f"run {number} ended with other bytes, or another history")
    print(
        f"{name}: {done} kills in {number} runs of {run.seconds:.1f} s, {resumed} with a "
        f"checkpoint to resume from; {failures} failures"
    )
    return failures


def undisturbed(folder: Path, name: str, command: Callable[[str], list[str]]) -> Run:
    """Run a command to its end, twice, so that nothing has to be compiled in the second run."""
    for out in (f"{name}-first", f"{name}-whole"):
        start = time.perf_counter()
        subprocess.run(command(out), check=True, capture_output=True)
        seconds = time.perf_counter() - start
    if result(folder, f"{name}-first") != result(folder, f"{name}-whole"):
        raise SystemExit(f"two runs of {name} gave different results")
    return Run(command, *result(folder, f"{name}-whole"), seconds)


def start_and_kill(
    folder: Path, out: str, run: Run, rng: np.random.Generator
) -> tuple[bool, bool, bool]:
    """Start a run and kill it; return whether that came in time, it had ended, a part was seen."""
    child = subprocess.Popen(run.command(out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    waits = bool(rng.random() < 0.5)  # for a new file
    left = rng.uniform(0, AFTER if waits else 1.1 * run.seconds)
    before, wrong = files_of_run(folder, out), False
    deadline = None if waits else time.perf_counter() + left
    while child.poll() is None:
        if deadline is None and files_of_run(folder, out) != before:
            deadline = time.perf_counter() + left
        wrong |= contents(folder / out) not in ({}, run.expected)
        if deadline is not None and time.perf_counter() >= deadline:
            child.kill()
            break
        time.sleep(PAUSE)
    killed = child.wait() == -signal.SIGKILL
    found = contents(folder / out)
    # A run that is killed between its last file and its end has nothing to resume.
    ended = bool(found) and not newest(folder, out)
    return killed, ended, wrong or found not in ({}, run.expected)


def files_of_run(folder: Path, out: str) -> set[str]:
    """Return the names of what a run has written: checkpoints, unfinished files, the result."""
    return {path.name for path in (folder / f"{out}.training").glob("[!h]*")} | {
        path.name for path in folder.glob(f"{out}*")
    }


def newest(folder: Path, out: str) -> str:
    """Return the name of the newest checkpoint, or an empty one."""
    paths = (folder / f"{out}.training").glob("checkpoint-*")
    return max((path.name for path in paths), default="")


def contents(path: Path) -> dict[str, bytes]:
    """Return the files of a result by name, the one of a single file under an empty name."""
    if path.is_dir():
        return {file.name: file.read_bytes() for file in path.iterdir()}
    try:
        return {"": path.read_bytes()}
    except FileNotFoundError:
        return {}


def result(folder: Path, out: str) -> tuple[dict[str, bytes], list[dict[str, float]]]:
    """Return the files of a result, and the history without times."""
    text = (folder / f"{out}.training" / "history.jsonl").read_text()
    return contents(folder / out), [
        {**json.loads(line), "seconds": 0} for line in text.splitlines()
    ]


def kill_predictions(folder: Path, kills: int, rng: np.random.Generator) -> int:
    """Return the number of killed predictions that left a broken output under its name."""
    model, out = folder / "model", folder / "predicted.npy"
    files = (folder / "x.npy", "--target", folder / "y.npy", "--out", model)
    subprocess.run(fffcpu("train", *files, "--epochs", 1), check=True, capture_output=True)
    command = fffcpu("predict", model, folder / "many.npy", "--out", out, "--rows", 512)
    subprocess.run(command, check=True, capture_output=True)  # compiles
    whole = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    whole = time.perf_counter() - whole
    expected, failures = out.read_bytes(), 0
    for _ in progress_bar(range(kills), "kills of predict", shown=True, kept=True):
        out.unlink(missing_ok=True)
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.3 * whole, 1.1 * whole))
        child.kill()
        child.wait()
        failures += out.exists() and out.read_bytes() != expected
    print(f"predict: {kills} kills of {whole:.1f} s, {failures} failures")
    return failures


if __name__ == "__main__":
    sys.exit(main())
