"""What the commands that train share: the folder of a run, its options, and what is told of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fffcpu.errors import ArgumentError, CheckpointError
from fffcpu.system.memory import keep_freed_memory
from fffcpu.system.terminal import print_status, progress_bar
from fffcpu.training.trainer import Interrupted, checkpoints

__all__ = [
    "add_number",
    "check_unfinished",
    "reading",
    "remove_checkpoints",
    "running",
    "work_folder",
]


def add_number(group: Any, defaults: Any, name: str, kind: type, text: str) -> None:
    """Add an option for a number, whose default is a field of some settings."""
    default = getattr(defaults, name.replace("-", "_"))
    group.add_argument(
        f"--{name}",
        type=kind,
        default=default,
        metavar="N" if kind is int else "X",
        help=f"{text} ({default})",
    )


def work_folder(out: str) -> Path:
    """Return where the state and the history of a training go: beside what it is to make."""
    path = Path(out)
    if path.name in ("", ".."):
        raise ArgumentError(f"argument '--out' must end with a name, got '{out}'")
    return path.with_name(f"{path.name}.training")


def check_unfinished(folder: Path, out: str, resume: bool) -> None:
    """Raise if a new run would replace one that is not finished, or ``--resume`` one that is."""
    unfinished = bool(checkpoints(folder))
    if resume and not unfinished and _is_made(Path(out)):
        raise CheckpointError(
            f"argument '--resume' must be left out to train anew: '{out}' is finished, and folder "
            f"'{folder}' holds nothing to go on with"
        )
    if unfinished and not resume:
        raise CheckpointError(
            f"folder '{folder}' holds a training that is not finished; --resume goes on with it, "
            "and without the folder a new one begins"
        )


def _is_made(out: Path) -> bool:
    """Whether there is a file, or a folder with something in it."""
    return any(out.iterdir()) if out.is_dir() else out.exists()


@contextlib.contextmanager
def running(folder: Path, resume: bool) -> Iterator[None]:
    """Say where a training begins, and if it is interrupted, how it goes on."""
    keep_freed_memory()
    if resume:
        found = checkpoints(folder)
        print_status(f"goes on from {found[0].name}" if found else "nothing to resume: begins anew")
    try:
        yield
    except Interrupted as interrupted:
        print_status(f"\n{interrupted}; the same command with --resume goes on")
        raise


def remove_checkpoints(folder: Path) -> None:
    """Remove the state of a training whose result is saved; its history stays."""
    for path in checkpoints(folder):
        path.unlink()


@contextlib.contextmanager
def reading(path: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal while a file is read; yields what takes the bytes done and all."""
    with progress_bar(description=path, unit="B", scaled=True) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
