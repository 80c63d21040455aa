"""Trainings and predictions that are killed at random moments, and must lose nothing.

    python -m benchmarks.reliability.soak

A training is killed with SIGKILL again and again, and resumed with --resume, until it is done. Its
model must have the bytes of an undisturbed one, and its history each line once. Predictions are
killed too. Under the final name there must be nothing, or the whole output. Progress goes to
standard error. The exit status is 1 if anything was lost.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.command import new_parser
from fffcpu.data import load_digits
from fffcpu.system.terminal import progress_bar

TRAINING = ("--depth", "4", "--trees", "2", "--epochs", "30", "--checkpoint-seconds", "0.02")


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument(
        "--trainings", type=int, default=100, metavar="N", help="kills of trainings (100)"
    )
    parser.add_argument(
        "--predictions", type=int, default=20, metavar="N", help="kills of predictions (20)"
    )
    parser.add_argument("--rows", type=int, default=200_000, help="rows to predict (200000)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the kills (0)")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory(prefix="fffcpu-soak-") as name:
        folder = Path(name)
        failures = kill_trainings(folder, options.trainings, rng)
        failures += kill_predictions(folder, options.predictions, options.rows, rng)
    print(f"{failures} failures")
    return int(failures > 0)


def kill_trainings(folder: Path, kills: int, rng: np.random.Generator) -> int:
    """Return the number of killed and resumed trainings that ended with other bytes."""
    images, labels = load_digits()
    np.save(folder / "x.npy", images)
    np.save(folder / "y.npy", labels)
    subprocess.run(train(folder, "unbroken"), check=True, capture_output=True)
    expected, lines = result(folder, "unbroken")
    done = failures = number = 0
    resumed = 0  # kills after which there was a checkpoint
    with progress_bar(description="kills of trainings", total=kills, shown=True, kept=True) as bar:
        while done < kills:
            number += 1
            out = f"killed-{number}"
            while done < kills:
                child = subprocess.Popen(
                    train(folder, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
                wait_for_a_moment(child, folder / f"{out}.training", rng)
                child.kill()
                if child.wait() == 0:
                    break  # the training had ended before the kill
                done += 1
                resumed += newest(folder / f"{out}.training") != ""
                bar.update()
            subprocess.run(train(folder, out), check=True, capture_output=True)
            failures += result(folder, out) != (expected, lines)
    print(
        f"{done} kills in {number} trainings, {resumed} with a checkpoint to resume from; "
        f"{failures} trainings with other results"
    )
    return failures


def wait_for_a_moment(child: subprocess.Popen[bytes], run: Path, rng: np.random.Generator) -> None:
    """Wait for a random time: often after a checkpoint, else while the process starts."""
    before = newest(run)
    if rng.random() < 0.75:
        while child.poll() is None and newest(run) == before:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.3))
    else:
        time.sleep(rng.uniform(0, 1.5))


def newest(run: Path) -> str:
    """Return the name of the newest checkpoint, or an empty one."""
    return max((path.name for path in run.glob("checkpoint-*")), default="")


def train(folder: Path, out: str) -> list[str]:
    """Return the command. ``--resume`` starts over if there is nothing to resume."""
    return [
        *(sys.executable, "-m", "fffcpu", "train", str(folder / "x.npy")),
        *("--target", str(folder / "y.npy"), "--out", str(folder / out)),
        *(*TRAINING, "--resume"),
    ]


def result(folder: Path, out: str) -> tuple[bytes, list[dict[str, float]]]:
    """Return the bytes of a model, and its history without times."""
    text = (folder / f"{out}.training" / "history.jsonl").read_text()
    lines = [{**json.loads(line), "seconds": 0} for line in text.splitlines()]
    return (folder / out).read_bytes(), lines


def kill_predictions(folder: Path, kills: int, rows: int, rng: np.random.Generator) -> int:
    """Return the number of killed predictions that left a broken output under its name."""
    images, _ = load_digits()
    np.save(folder / "many.npy", np.resize(images, (rows, images.shape[1])))
    out = folder / "predicted.npy"
    command = [sys.executable, "-m", "fffcpu", "predict", str(folder / "unbroken")]
    command += [str(folder / "many.npy"), "--out", str(out), "--rows", "512"]
    subprocess.run(command, check=True, capture_output=True)  # compiles
    whole = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    whole = time.perf_counter() - whole
    expected, failures = out.read_bytes(), 0
    for _ in progress_bar(range(kills), "kills of predictions", shown=True, kept=True):
        out.unlink(missing_ok=True)
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.3 * whole, 1.1 * whole))
        child.kill()
        child.wait()
        failures += out.exists() and out.read_bytes() != expected
    print(f"{kills} kills of predictions of {whole:.1f} s, {failures} with a broken output")
    return failures


if __name__ == "__main__":
    sys.exit(main())
