"""The folder of a run: the checkpoints it continues from, and its history.

::

    model.training/
        checkpoint-0000000500.safetensors    the state after 500 steps
        checkpoint-0000001000.safetensors    the newest one
        history.jsonl                        a line for each evaluation

A run is unfinished while its folder contains checkpoints. They are removed once the result is
saved; the history is kept. A file appears under its name when it is whole, so a run that is killed
at any moment leaves whole checkpoints. Its history may be ahead of them, and is then cut.

A checkpoint is a safetensors file. Its metadata has one key, ``trainer``, whose value is a JSON
object: the notes of a `Trainer`, and the version of the format.
"""

from __future__ import annotations

import json
import logging
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from fffcpu.checkpoints.safetensors import (
    check_metadata,
    read_array,
    read_header,
    write_tensors,
)
from fffcpu.errors import CheckpointError, describe
from fffcpu.system.files import TEMPORARY, append_line, open_regular, parse_json, write_text

__all__ = ["HISTORY", "Checkpoint", "RunFolder"]

Array = NDArray[Any]

_LOGGER = logging.getLogger(__name__)

STATE_VERSION = 2
"""Version of the format of checkpoints."""

HISTORY = "history.jsonl"
"""Name of the history in the folder of a run."""

_METADATA_KEY = "trainer"

_NAME = re.compile(r"checkpoint-(\d{10})\.safetensors")


class Checkpoint(NamedTuple):
    """The state of a run after one of its steps."""

    path: Path
    """The file of the checkpoint."""
    notes: dict[str, Any]
    """JSON values of the `Trainer`."""
    arrays: dict[str, Array]
    """Arrays by name."""


class RunFolder:
    """The folder of a run.

    Parameters
    ----------
    path : path
        The folder; `prepare` and `save` create it if it is missing.

    Attributes
    ----------
    path : Path
        The folder.
    history_path : Path
        The file of the history.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.history_path = self.path / HISTORY

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    # --- Whether there is something to continue --------------------------------------------------

    @property
    def unfinished(self) -> bool:
        """Whether the folder contains an unfinished run."""
        return bool(self.checkpoints())

    def check_finished(self, resume_option: str = "resume=True") -> None:
        """Raise if a new run would replace an unfinished one.

        Parameters
        ----------
        resume_option : str
            The option that continues a run, for the message.

        Raises
        ------
        CheckpointError
            If the folder contains an unfinished run.
        """
        if self.unfinished:
            raise CheckpointError(
                f"folder '{self.path}' contains an unfinished training run. "
                f"Pass {resume_option} to continue it, or delete the folder to start over"
            )

    def prepare(self) -> None:
        """Make the folder, and remove files that a kill left half-written."""
        self.path.mkdir(parents=True, exist_ok=True)
        for half_written in self.path.glob(TEMPORARY):
            half_written.unlink()

    # --- Checkpoints -----------------------------------------------------------------------------

    def checkpoints(self) -> list[Path]:
        """Return the files of the checkpoints, the newest first."""
        paths = [path for path in self.path.glob("checkpoint-*") if _NAME.fullmatch(path.name)]
        return sorted(paths, reverse=True)

    def latest(self) -> Checkpoint | None:
        """Read the newest checkpoint that is whole.

        Returns
        -------
        Checkpoint or None
            None if the folder contains no checkpoints.

        Raises
        ------
        CheckpointError
            If it contains checkpoints, but none is whole.

        Warns
        -----
        RuntimeWarning
            For each checkpoint that is damaged.
        """
        paths = self.checkpoints()
        for path in paths:
            try:
                return _read(path)
            except CheckpointError as error:
                failure = error
                warnings.warn(f"{error}; trying an older one", RuntimeWarning, stacklevel=3)
        if paths:
            raise CheckpointError(
                f"folder '{self.path}' contains no checkpoint that is whole: {failure}"
            )
        return None

    def save(
        self, step: int, arrays: Mapping[str, Array], notes: Mapping[str, Any], *, keep: int
    ) -> None:
        """Write a checkpoint, then remove all except the newest.

        Parameters
        ----------
        step : int
            Number of steps that the run has made.
        arrays : mapping of str to array
            C-contiguous arrays.
        notes : mapping
            JSON values.
        keep : int
            Number of checkpoints to keep.

        Raises
        ------
        OSError
            If the folder cannot be written to.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        path = self.path / f"checkpoint-{step:010d}.safetensors"
        # Moments may be infinite for a while; the trainer checks the parameters.
        write_tensors(path, arrays, _metadata(notes), finite=False)
        _LOGGER.debug("wrote checkpoint '%s', %d bytes", path, os.path.getsize(path))
        for old in self.checkpoints()[keep:]:
            old.unlink()

    def check_notes(self, notes: Mapping[str, Any]) -> None:
        """Raise if a checkpoint cannot have these notes, before there is anything to save.

        Raises
        ------
        CheckpointError
            If they are too long: names of columns and classes are part of them.
        """
        check_metadata(_metadata(notes))

    def remove_checkpoints(self) -> None:
        """Remove the checkpoints of a run whose result is saved. Its history is kept."""
        for path in self.checkpoints():
            path.unlink()

    # --- History ---------------------------------------------------------------------------------

    def read_history(self) -> list[dict[str, Any]]:
        """Return the lines of the history: step, seconds, lr, losses, figures of evaluations.

        Raises
        ------
        CheckpointError
            If a line is damaged. An unfinished last line is left out.
        OSError
            If there is no history, or it cannot be read.
        """
        lines = []
        for number, line in enumerate(self._history_lines(), 1):
            values = _parse_line(line)
            if values is None:
                raise CheckpointError(
                    f"file '{self.history_path}', line {number}: must be a JSON object with a "
                    f"step, got {describe(line)}"
                )
            lines.append(values)
        return lines

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line of JSON values to the history."""
        append_line(self.history_path, json.dumps(line))

    def cut_history(self, step: int) -> list[dict[str, Any]]:
        """Drop the lines of later steps, which a resumed run writes again, and damaged ones.

        Parameters
        ----------
        step : int
            The last step whose line is kept.

        Returns
        -------
        list of dict
            The kept lines; empty if there is no history.
        """
        if not self.history_path.exists():
            return []
        parsed = [(line, _parse_line(line)) for line in self._history_lines()]
        kept = [(line, values) for line, values in parsed if values and values["step"] <= step]
        content = b"".join(line + b"\n" for line, _ in kept)
        if content != self.history_path.read_bytes():
            write_text(self.history_path, content.decode())
        return [values for _, values in kept]

    def _history_lines(self) -> list[bytes]:
        """Return the lines, without their ends and without an unfinished last one."""
        return self.history_path.read_bytes().split(b"\n")[:-1]


def _metadata(notes: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata of a checkpoint."""
    return {_METADATA_KEY: json.dumps({"version": STATE_VERSION, **notes})}


def _read(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises
    ------
    CheckpointError
        If it is damaged, or has another version.
    """
    try:
        with open_regular(path) as file:
            header = read_header(file)
            notes = parse_json(header.metadata[_METADATA_KEY], "its notes")
            if not isinstance(notes, dict):
                raise ValueError(f"its notes must be an object, got {describe(notes)}")
            arrays = {name: read_array(file, at) for name, at in header.tensors().items()}
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"checkpoint '{path}' is damaged ({error})") from error
    if notes.get("version") != STATE_VERSION:
        raise CheckpointError(
            f"checkpoint '{path}' has version {notes.get('version')}, and this fffcpu reads "
            f"{STATE_VERSION}"
        )
    return Checkpoint(path, notes, arrays)


def _parse_line(line: bytes) -> dict[str, Any] | None:
    """Return the values of a history's line; None if it is damaged."""
    try:
        values = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) and type(values.get("step")) is int else None
