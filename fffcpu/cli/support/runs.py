"""Code that the commands that train share: a run's folder, options and messages."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from fffcpu.errors import ArgumentError, CheckpointError
from fffcpu.system.memory import keep_freed_memory
from fffcpu.system.terminal import print_status, progress_bar
from fffcpu.training.progress import lines_in_logs
from fffcpu.training.run_folder import RunFolder
from fffcpu.training.trainer import Interrupted

__all__ = [
    "add_budget",
    "add_dask",
    "add_number",
    "add_start",
    "add_straight_through",
    "add_validation",
    "check_start",
    "cluster",
    "reading",
    "run_folder",
    "running",
    "timed_settings",
]

SettingsT = TypeVar("SettingsT")


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


def add_budget(group: Any, epochs: int, *, steps: bool = False) -> None:
    """Add the options for the budget of a training on texts; see `timed_settings`.

    Parameters
    ----------
    group : argument group
    epochs : int
        The default number of passes.
    steps : bool
        Whether the budget may be a number of steps.
    """
    group.add_argument(
        "--epochs", type=float, metavar="X", help=f"budget: passes over the texts ({epochs})"
    )
    if steps:
        group.add_argument("--steps", type=int, metavar="N", help="budget: steps")
    group.add_argument("--hours", type=float, metavar="X", help="budget: hours of wall-clock time")


def add_validation(group: Any, what: str) -> None:
    """Add the option for the share of the texts to hold out; ``what`` names them."""
    group.add_argument(
        "--validation",
        type=float,
        default=0.02,
        metavar="X",
        help=f"share of the {what} to validate with (0.02)",
    )


def timed_settings(kind: Callable[..., SettingsT], options: argparse.Namespace) -> SettingsT:
    """Return settings, of a dataclass with ``seconds``, from options that have ``hours`` instead.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If a value is out of range.
    """
    hours = options.hours
    if hours is not None and not 0.0 < hours < math.inf:
        raise ArgumentError(f"argument '--hours' must be above 0, got {hours}")
    names = {field.name for field in dataclasses.fields(kind)} - {"seconds"}  # type: ignore[arg-type]
    values = {name: getattr(options, name) for name in names}
    return kind(**values, seconds=None if hours is None else 3600.0 * hours)


def add_straight_through(group: Any, defaults: Any) -> None:
    """Add the option that trains the routes of trees of neurons, a field of some settings."""
    default = defaults.straight_through
    group.add_argument(
        "--straight-through",
        action=argparse.BooleanOptionalAction,
        default=default,
        help=f"trees of neurons: train the routes as well; {'on' if default else 'off'} by default",
    )


def add_dask(parser: Any) -> None:
    """Add the option that names a cluster."""
    parser.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="compute on a Dask cluster: a scheduler's address, or local:N for N processes",
    )


@contextlib.contextmanager
def cluster(address: str | None) -> Iterator[Any]:
    """Context with a client of the cluster that an option names; None without one."""
    if address is None:
        yield None
        return
    from fffcpu.dask import connect

    with connect(address) as client:
        threads = client.nthreads()
        workers = f"{len(threads)} worker{'s' * (len(threads) != 1)}"
        print_status(f"{workers} of Dask, {sum(threads.values())} threads")
        yield client


def run_folder(out: str) -> RunFolder:
    """Return the folder for the checkpoints and the history of a run, next to its result."""
    path = Path(out)
    if path.name in ("", ".."):
        raise ArgumentError(f"argument '--out' must end with a name, got '{out}'")
    return RunFolder(path.with_name(f"{path.name}.training"))


def add_start(parser: Any) -> None:
    """Add the options that decide how a run starts."""
    parser.add_argument("--resume", action="store_true", help="continue an unfinished run")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing model")


def check_start(folder: RunFolder, out: str, *, resume: bool, overwrite: bool) -> None:
    """Raise if a run would replace an unfinished run, or without ``overwrite`` a finished result.

    Raises
    ------
    CheckpointError
        If the folder has an unfinished run and ``resume`` is False; or ``resume`` is True, and the
        run is finished.
    ArgumentError
        If the result exists, and neither ``resume`` nor ``overwrite`` is True.
    """
    made = _is_made(Path(out))
    if not resume:
        folder.check_finished("--resume")
        if made and not overwrite:
            raise ArgumentError(
                f"argument '--out' must be a new path, got '{out}', which exists; --overwrite "
                "replaces it"
            )
    elif not folder.unfinished and made:
        raise CheckpointError(
            f"argument '--resume' must be left out to train again: '{out}' is finished, and folder "
            f"'{folder.path}' contains no checkpoint to continue from"
        )


def _is_made(out: Path) -> bool:
    """Whether there is a file, or a folder that is not empty."""
    return any(out.iterdir()) if out.is_dir() else out.exists()


@contextlib.contextmanager
def running(folder: RunFolder, resume: bool, *, resumable: bool = True) -> Iterator[None]:
    """Report where a run starts, and after an interruption how to resume it or start again."""
    keep_freed_memory()
    if resume:
        found = folder.checkpoints()
        start = f"continuing from {found[0].name}" if found else "starting from the beginning"
        print_status(start if found else f"nothing to resume: {start}")
    try:
        with lines_in_logs():
            yield
    except Interrupted as interrupted:
        way = "with --resume to continue" if resumable else "to start again"
        print_status(f"\n{interrupted}; run the same command {way}")
        raise


@contextlib.contextmanager
def reading(path: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal while a file is read; yield a function of read and total bytes."""
    with progress_bar(description=path, unit="B", scaled=True) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
